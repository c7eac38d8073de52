//! What the queues of a virtual host come to together. Only those are looked at again that may have
//! changed, so that thousands of queues at rest cost whoever asks nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{Activity, Sample};
use crate::queue::{Queue, QueueCounts};

/// Numbers of one queue, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueSum {
    /// What has left; what came in is counted by exchanges.
    pub(crate) activity: Activity,
    pub(crate) ready: u64,
    pub(crate) unsettled: u64,
    pub(crate) consumers: u64,
    /// Bytes of the bodies of ready messages.
    pub(crate) bytes: u64,
    /// Ready messages in memory.
    pub(crate) in_memory: u64,
}

impl QueueSum {
    pub(crate) fn new(counts: QueueCounts, activity: Activity) -> Self {
        Self {
            activity: Activity { published: 0, ..activity },
            ready: counts.ready,
            unsettled: counts.unsettled,
            consumers: u64::from(counts.consumers),
            bytes: counts.bytes,
            in_memory: counts.in_memory,
        }
    }

    pub(crate) fn sample(&self) -> Sample {
        let Self { activity, ready, unsettled, .. } = *self;
        Sample { activity, ready, unsettled, ..Sample::default() }
    }

    /// Puts numbers of a queue in the place of what they were.
    fn replace(&mut self, was: &Self, is: &Self) {
        // What grows may be added before what has shrunk is taken away.
        let put = |sum: &mut u64, was: u64, is: u64| *sum = sum.wrapping_add(is).wrapping_sub(was);
        self.activity.replace(&was.activity, &is.activity);
        put(&mut self.ready, was.ready, is.ready);
        put(&mut self.unsettled, was.unsettled, is.unsettled);
        put(&mut self.consumers, was.consumers, is.consumers);
        put(&mut self.bytes, was.bytes, is.bytes);
        put(&mut self.in_memory, was.in_memory, is.in_memory);
    }
}

/// What the sums know of a queue.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// It is among those that are looked at next.
    is_noted: AtomicBool,
    /// Its part of the sums.
    part: Mutex<Part>,
}

#[derive(Debug, Default)]
enum Part {
    #[default]
    Nothing,
    Numbers(Box<QueueSum>),
    /// The queue has left the sums.
    Gone,
}

impl Counted {
    /// True once, until the queue has been looked at. Asked under the lock of the queue, before it
    /// changes: then whoever looks has either not begun, or has seen nothing of the change.
    #[inline]
    pub(crate) fn is_news(&self) -> bool {
        !self.is_noted.load(Ordering::Relaxed) && !self.is_noted.swap(true, Ordering::Relaxed)
    }
}

/// Queues by their addresses.
type Queues = HashMap<usize, Weak<Queue>>;

/// The sums over the queues of a virtual host.
#[derive(Debug, Default)]
pub(crate) struct QueueSums {
    /// Queues that may have changed since they were looked at.
    noted: Mutex<Queues>,
    /// Queues of which a sample is due, while samples are taken: those that have changed since the
    /// last ones, and those that did not stand still in them.
    due: Mutex<Option<Queues>>,
    /// One at a time looks.
    looking: Mutex<()>,
    sum: Mutex<QueueSum>,
}

impl QueueSums {
    /// Has a queue looked at.
    pub(crate) fn note(&self, queue: &Weak<Queue>) {
        self.noted.lock().insert(queue.as_ptr().addr(), queue.clone());
    }

    /// Reads the sums. No queue leaves them meanwhile.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&QueueSum) -> T) -> T {
        let _only = self.looking.lock();
        let noted = std::mem::take(&mut *self.noted.lock());
        for queue in noted.into_values().filter_map(|queue| queue.upgrade()) {
            let mut part = queue.counted.part.lock();
            if matches!(*part, Part::Gone) {
                continue;
            }
            queue.counted.is_noted.store(false, Ordering::Relaxed);
            self.put(&mut part, queue.sum());
            if let Some(due) = &mut *self.due.lock() {
                due.insert(address(&queue), Arc::downgrade(&queue));
            }
        }
        read(&self.sum.lock())
    }

    /// Takes samples of the queues that have changed since this was called last, and of those that
    /// moved then; of all the first time. Returns how many move.
    pub(crate) fn take_samples(
        &self,
        all: impl Iterator<Item = Arc<Queue>>,
        now_ms: u64,
        before_ms: u64,
        kept: usize,
    ) -> u64 {
        let due = self.due.lock().replace(Queues::new());
        let due: Vec<Arc<Queue>> = match due {
            Some(due) => due.into_values().filter_map(|queue| queue.upgrade()).collect(),
            None => all.collect(),
        };
        let mut moving = Queues::new();
        for queue in due {
            let sample = queue.sample(now_ms);
            let mut history = queue.history.lock();
            history.rested_until(before_ms);
            history.push(sample, kept);
            if history.is_moving() {
                moving.insert(address(&queue), Arc::downgrade(&queue));
            }
        }
        let count = moving.len() as u64;
        if let Some(due) = &mut *self.due.lock() {
            due.extend(moving);
        }
        count
    }

    /// No more samples are taken.
    pub(crate) fn forget_samples(&self) {
        *self.due.lock() = None;
    }

    /// Takes a queue out for ever. `keep` is given what has left it, while nobody reads.
    pub(crate) fn remove(&self, queue: &Queue, keep: impl FnOnce(&Activity)) {
        let mut part = queue.counted.part.lock();
        if matches!(*part, Part::Gone) {
            return;
        }
        // It asks no more to be looked at.
        queue.counted.is_noted.store(true, Ordering::Relaxed);
        self.noted.lock().remove(&address(queue));
        let last = queue.sum().activity;
        let mut sum = self.sum.lock();
        if let Part::Numbers(was) = std::mem::replace(&mut *part, Part::Gone) {
            sum.replace(&was, &QueueSum::default());
        }
        keep(&last);
    }

    fn put(&self, part: &mut Part, is: QueueSum) {
        let mut sum = self.sum.lock();
        match part {
            Part::Numbers(was) => {
                sum.replace(was, &is);
                **was = is;
            }
            Part::Nothing if is == QueueSum::default() => {}
            Part::Nothing | Part::Gone => {
                sum.replace(&QueueSum::default(), &is);
                *part = Part::Numbers(Box::new(is));
            }
        }
    }
}

fn address(queue: &Queue) -> usize {
    std::ptr::from_ref(queue).addr()
}
