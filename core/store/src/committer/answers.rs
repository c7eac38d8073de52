//! Callbacks that are ready to run: one queue, one runner at a time, so that their order holds
//! whichever thread brings the answer.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::StoreError;

/// What somebody who waits for a batch wants to be called with.
pub(super) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Default)]
pub(super) struct Answers {
    queue: Mutex<Queue>,
    panics: AtomicU64,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<(Done, Result<(), StoreError>)>,
    is_running: bool,
}

impl Answers {
    /// Queues a callback. Called under the committer's lock, which makes the order.
    pub(super) fn push(&self, done: Done, result: Result<(), StoreError>) {
        self.queue.lock().ready.push_back((done, result));
    }

    /// Runs what is queued, unless a thread does so already; that one will not miss anything.
    pub(super) fn run(&self) {
        let mut queue = self.queue.lock();
        if queue.is_running {
            return;
        }
        queue.is_running = true;
        while !queue.ready.is_empty() {
            let ready = std::mem::take(&mut queue.ready);
            drop(queue);
            for (done, result) in ready {
                // The thread may be the only one that writes; a panic must not take it along.
                if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                    self.panics.fetch_add(1, Ordering::Relaxed);
                }
            }
            queue = self.queue.lock();
        }
        queue.is_running = false;
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}
