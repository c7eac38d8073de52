//! Room that a queue with a limit keeps for a transaction, so that it takes all of it or none.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};

use super::Queue;

/// Whether messages that come have their room already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Room {
    /// They take what there is.
    #[default]
    Free,
    /// It is kept for them.
    Reserved,
}

/// Room in a queue, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    queue: Arc<Queue>,
    messages: u64,
    bytes: u64,
}

impl Queue {
    /// Keeps room for messages with bodies of so many bytes together; `None` where none is needed.
    ///
    /// Errors: kind `Full`.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        messages: u64,
        bytes: u64,
    ) -> Result<Option<Reserved>, Refusal> {
        let mut state = self.lock();
        if !state.refuses_overflow() {
            return Ok(None);
        }
        if !state.has_room_for(messages, bytes) {
            let text = format!("{self} has no room for {messages} messages of a transaction");
            return Err(Refusal::new(RefusalKind::Full, text));
        }
        state.reserved.0 += messages;
        state.reserved.1 += bytes;
        Ok(Some(Reserved { queue: self.clone(), messages, bytes }))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.reserved.0 = state.reserved.0.saturating_sub(self.messages);
        state.reserved.1 = state.reserved.1.saturating_sub(self.bytes);
    }
}
