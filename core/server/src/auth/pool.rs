//! A few threads for work that takes milliseconds, with a bounded queue before them.

use std::{
    sync::mpsc::{self, SyncSender, TrySendError},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Threads that hash passwords. They end when the pool is dropped.
pub(crate) struct HashingPool<J> {
    jobs: SyncSender<J>,
}

impl<J: Send + 'static> HashingPool<J> {
    /// Starts `threads` threads that do `work`; up to `waiting_max` jobs wait before them.
    ///
    /// Errors: when the system gives no thread.
    pub(crate) fn start(threads: usize, waiting_max: usize, work: fn(J)) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::sync_channel::<J>(waiting_max);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = Arc::clone(&receiver);
            let run = move || {
                loop {
                    // The lock is held while waiting, never while working.
                    let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match job {
                        Ok(job) => work(job),
                        Err(mpsc::RecvError) => return,
                    }
                }
            };
            thread::Builder::new().name(format!("hashing-{number}")).spawn(run)?;
        }
        Ok(Self { jobs })
    }

    /// Takes a job, or gives it back when too many wait.
    pub(crate) fn run(&self, job: J) -> Result<(), J> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    #[test]
    fn jobs_beyond_the_bound_come_back() {
        let pool = HashingPool::start(1, 1, |job: Job| job()).unwrap();
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel();
        let slow: Job = Box::new(move || {
            started.send(()).unwrap();
            may_go.recv().unwrap();
        });
        assert!(pool.run(slow).is_ok());
        has_started.recv().unwrap();
        assert!(pool.run(Box::new(move || done.send(()).unwrap())).is_ok());
        assert!(pool.run(Box::new(|| {})).is_err());
        go.send(()).unwrap();
        is_done.recv().unwrap();
    }
}
