//! The thread that flushes, so that no commit waits for it, unless it falls far behind.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{error::Failure, flush::Flusher, writer::Status};

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Flushes one opening of the store; dropping it waits for the step under way.
pub(crate) struct FlushThread {
    wake: Option<SyncSender<()>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    steps: Mutex<u64>,
    advanced: Condvar,
    is_stopped: AtomicBool,
}

impl FlushThread {
    /// Errors: when no thread can be started.
    pub(crate) fn start(flusher: Arc<Mutex<Flusher>>, status: Arc<Status>) -> io::Result<Self> {
        let (wake, wakes) = sync_channel(1);
        let progress = Arc::new(Progress::default());
        let mine = progress.clone();
        let thread = thread::Builder::new()
            .name("polymq-log-flush".into())
            .spawn(move || run(&flusher, &status, &wakes, &mine))?;
        Ok(Self { wake: Some(wake), progress, thread: Some(thread) })
    }

    /// Says that there may be something to do.
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.wake {
            match wake.try_send(()) {
                // One that waits already is enough.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }

    /// Waits until some work is done, or for as long as `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let mut steps = self.progress.steps.lock();
        self.wake();
        let _ = self.progress.advanced.wait_for(&mut steps, limit);
    }
}

impl Drop for FlushThread {
    fn drop(&mut self) {
        self.progress.is_stopped.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(flusher: &Mutex<Flusher>, status: &Status, wakes: &Receiver<()>, progress: &Progress) {
    loop {
        match wakes.recv_timeout(RETRY) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => flusher.lock().wake(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while !progress.is_stopped.load(Ordering::Relaxed) {
            // Without this thread the log would grow until publishers wait for ever.
            let step = catch_unwind(AssertUnwindSafe(|| flusher.lock().step()))
                .unwrap_or_else(|_| Err(flusher.lock().fail("flushing the log panicked")));
            *progress.steps.lock() += 1;
            progress.advanced.notify_all();
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(Failure::Fatal(why)) => {
                    status.fail(&why);
                    return;
                }
                Err(failure) => {
                    tracing::error!(event = "flush_failed", %failure, "flushing the log failed");
                    break;
                }
            }
        }
    }
}
