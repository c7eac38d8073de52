//! Prepares log files on a thread of its own, so that no commit waits for it.

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
};

use crate::{
    core::Home,
    error::Failure,
    prepare::{Fill, Prepared, prepare},
};

struct Request {
    home: Home,
    number: NonZeroU32,
}

pub(crate) struct Preparer {
    requests: Sender<Request>,
    results: Receiver<Result<Prepared, Failure>>,
    stop: Arc<AtomicBool>,
    is_under_way: bool,
}

impl Preparer {
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, incoming) = channel::<Request>();
        let (outgoing, results) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::Builder::new().name("polymq-log-prep".into()).spawn(move || {
            for Request { home, number } in incoming {
                let stop = || stopped.load(Ordering::Relaxed);
                let bytes = home.config.wal_file_bytes;
                let prepared = prepare(&home, number, bytes, Fill::Zeros, &stop);
                if outgoing.send(prepared).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, results, stop, is_under_way: false })
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    pub(crate) fn request(&mut self, home: Home, number: NonZeroU32) {
        self.stop.store(false, Ordering::Relaxed);
        self.is_under_way = self.requests.send(Request { home, number }).is_ok();
    }

    /// The file that was requested, when it is ready.
    pub(crate) fn take(&mut self) -> Option<Prepared> {
        if !self.is_under_way {
            return None;
        }
        let result = match self.results.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(Failure::Closed),
        };
        self.is_under_way = false;
        logged(result)
    }

    /// Waits until nothing is under way, so that the directory may get another owner.
    pub(crate) fn finish(&mut self) -> Option<Prepared> {
        if !self.is_under_way {
            return None;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.is_under_way = false;
        self.results.recv().ok().and_then(Result::ok)
    }
}

/// Without a prepared file the next one is made when it is needed.
fn logged(result: Result<Prepared, Failure>) -> Option<Prepared> {
    match result {
        Ok(prepared) => Some(prepared),
        Err(failure) => {
            tracing::warn!(
                event = "log_file_not_prepared", %failure,
                "no log file could be prepared"
            );
            None
        }
    }
}
