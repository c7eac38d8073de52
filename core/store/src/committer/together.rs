//! Several appends in one batch.

use super::Committer;

/// While one of these lives, the open batch stays open: what is appended meanwhile is written
/// together or not at all.
#[derive(Debug)]
pub struct Together<'a> {
    committer: &'a Committer,
}

impl Committer {
    /// Keeps the open batch open until the answer is dropped. Meant for a few appends on one thread
    /// that does not wait for anything in between.
    pub fn together(&self) -> Together<'_> {
        self.inner.lock().held_open += 1;
        Together { committer: self }
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        let is_due = {
            let mut inner = self.committer.inner.lock();
            inner.held_open = inner.held_open.saturating_sub(1);
            inner.held_open == 0 && inner.wanted
        };
        if is_due {
            self.committer.advance();
        }
    }
}
