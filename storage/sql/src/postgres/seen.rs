//! What this machine has seen of the database, so that one that went back in time is noticed: a
//! backup that was restored, or a standby that lacked the last commits.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use polymq_store::{Epoch, ShardBatch};

use crate::{database::Position, failure::Failure};

/// Between two writes of the file while batches are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A small file with the last position. It is not synced: one that is a little old notices a
/// little less, and never refuses a database that is as it should be.
#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
    /// Made with the tables, and part of every backup of them.
    store: String,
    latest: Option<Position>,
    written: Instant,
}

impl Seen {
    /// Compares `position` of the database `store` with the file.
    ///
    /// Errors: [`Failure::Refused`] when the file knows more, or cannot be read.
    pub(super) fn checked(
        path: PathBuf,
        store: String,
        position: Position,
    ) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::Refused(format!("{why}; to serve it as it is, remove `{}`", path.display()))
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(refused(format!("what was seen cannot be read: {error}"))),
        };
        if let Some((known_store, known)) = parsed(&text) {
            let is_older = position.epoch < known.epoch || position.last_batch < known.last_batch;
            if known_store == store && is_older {
                return Err(refused(format!(
                    "the database went back in time: it has seen batch {} of epoch {}, this \
                     broker batch {} of epoch {}",
                    position.last_batch, position.epoch, known.last_batch, known.epoch
                )));
            }
        }
        let seen = Self { path, store, latest: Some(position), written: Instant::now() };
        seen.write();
        Ok(seen)
    }

    pub(super) fn saw(&mut self, position: Position) {
        self.latest = Some(position);
        if self.written.elapsed() >= WRITE_EVERY {
            self.written = Instant::now();
            self.write();
        }
    }

    pub(super) fn write(&self) {
        let Some(Position { epoch, last_batch }) = self.latest else { return };
        let new = self.path.with_extension("new");
        let text = format!("{} {epoch} {last_batch}\n", self.store);
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path)) {
            tracing::warn!(event = "position_not_remembered", why = %error);
        }
    }
}

fn parsed(text: &str) -> Option<(&str, Position)> {
    let mut parts = text.split_whitespace();
    let store = parts.next()?;
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let last_batch = ShardBatch(parts.next()?.parse().ok()?);
    Some((store, Position { epoch, last_batch }))
}
