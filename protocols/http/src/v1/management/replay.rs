//! Streams of events whose reader was lost: what it may have missed, and where it was, are kept for
//! a minute, so that it goes on there when it comes back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use polymq_broker::Principal;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::clock;

/// How long a stream waits for its reader, and events for being asked for again.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);
/// Bytes of the last events of one stream.
const RECENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of what one stream has sent last of its topics, once its reader is lost.
pub(super) const ROWS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Streams without readers, of one user and of all.
const LEFT_OF_USER_MAX: usize = 8;
const LEFT_MAX: usize = 1000;
/// Bytes of all streams without readers.
const LEFT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a reader that is still there may take to leave for one that comes back.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The last events of a stream, as they were written.
#[derive(Debug)]
pub(super) struct Recent {
    /// The number of the next event.
    next: u64,
    events: VecDeque<(Instant, String)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { next: 1, events: VecDeque::new(), bytes: 0 }
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Keeps the next event.
    pub(super) fn push(&mut self, event: String) {
        let now = Instant::now();
        self.next += 1;
        self.bytes += event.len();
        self.events.push_back((now, event));
        let is_over = |at: &Instant| now.duration_since(*at) > KEPT_FOR;
        while self.events.front().is_some_and(|(at, _)| is_over(at))
            || self.bytes > RECENT_BYTES_MAX
        {
            let Some((_, event)) = self.events.pop_front() else { break };
            self.bytes -= event.len();
        }
    }

    /// The events behind a number; `None` when they are not all there.
    fn after(&self, number: u64) -> Option<String> {
        let first = self.next - self.events.len() as u64;
        let from = number.checked_add(1)?;
        if from < first || from > self.next {
            return None;
        }
        let skipped = usize::try_from(from - first).ok()?;
        Some(self.events.iter().skip(skipped).map(|(_, event)| event.as_str()).collect())
    }
}

/// A topic as its reader has it.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Its rows as JSON; `None` when they are too many to be kept.
    pub(super) rows: Option<String>,
    /// The number of its last row, where rows only come.
    pub(super) last: u64,
}

/// A stream without a reader.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) recent: Recent,
    pub(super) topics: Vec<Remembered>,
}

impl Left {
    fn bytes(&self) -> usize {
        let rows = self.topics.iter().filter_map(|topic| topic.rows.as_ref());
        self.recent.bytes + rows.map(String::len).sum::<usize>()
    }
}

/// Asks a reader to leave its stream to another.
pub(super) type Asked = mpsc::Receiver<oneshot::Sender<Left>>;

enum Reading {
    Somebody(mpsc::Sender<oneshot::Sender<Left>>),
    Nobody(Left, Instant),
}

struct Stream {
    who: Principal,
    topics: Vec<String>,
    reading: Reading,
}

/// The streams of events, with their readers or without.
#[derive(Default)]
pub(crate) struct Replays(Mutex<Streams>);

#[derive(Default)]
struct Streams {
    /// By the first part of their ids.
    all: BTreeMap<u64, Stream>,
    /// Somebody sweeps.
    is_swept: bool,
}

/// A stream that goes on, and the events that its reader has missed.
pub(super) struct GoingOn {
    pub(super) start: u64,
    pub(super) left: Left,
    pub(super) missed: String,
}

impl Replays {
    /// A number for a new stream. None is given twice, and hardly one that was given before a
    /// restart.
    pub(super) fn new_start() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = clock::now().unix_ms;
        let next = |last: u64| now.max(last + 1);
        let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| Some(next(l)));
        next(before.unwrap_or_else(|last| last))
    }

    /// Somebody reads a stream; what it is asked comes out of the receiver.
    pub(super) fn enter(&self, start: u64, who: Principal, topics: Vec<String>) -> Asked {
        let (sender, asked) = mpsc::channel(1);
        let stream = Stream { who, topics, reading: Reading::Somebody(sender) };
        self.0.lock().all.insert(start, stream);
        asked
    }

    /// The stream of an id, for the same login and topics. A reader that is still there, as one
    /// whose connection was cut without a word, leaves it.
    pub(super) async fn take(
        &self,
        id: &str,
        who: &Principal,
        topics: &[String],
    ) -> Option<GoingOn> {
        let (start, number) = id.split_once('-')?;
        let (start, number): (u64, u64) = (start.parse().ok()?, number.parse().ok()?);
        let sender = {
            let streams = self.0.lock();
            let stream = streams.all.get(&start)?;
            if !stream.who.is_same_login(who) || stream.topics != topics {
                return None;
            }
            match &stream.reading {
                Reading::Somebody(sender) => Some(sender.clone()),
                Reading::Nobody(..) => None,
            }
        };
        let mut left = None;
        if let Some(sender) = sender {
            let (reply, replied) = oneshot::channel();
            // It may have left by itself, and then the stream is without a reader.
            if sender.send(reply).await.is_ok() {
                left = timeout(LEAVE_TIMEOUT, replied).await.ok()?.ok();
            }
        }
        let left = match left {
            Some(left) => left,
            None => self.without_reader(start)?,
        };
        let missed = left.recent.after(number)?;
        Some(GoingOn { start, left, missed })
    }

    fn without_reader(&self, start: u64) -> Option<Left> {
        match self.0.lock().all.remove(&start)?.reading {
            Reading::Nobody(left, _) => Some(left),
            Reading::Somebody(_) => None,
        }
    }

    /// The reader of a stream is lost, and may come back for [`KEPT_FOR`]. Others that wait longer
    /// go when they are too many, or take too much together. True for whoever has to call
    /// [`sweep`](Self::sweep) from now on.
    pub(super) fn keep(&self, start: u64, left: Left) -> bool {
        let mut streams = self.0.lock();
        let Streams { all, is_swept } = &mut *streams;
        let Some(stream) = all.get_mut(&start) else { return false };
        stream.reading = Reading::Nobody(left, Instant::now());
        make_room(all);
        !std::mem::replace(is_swept, true)
    }

    /// Forgets streams whose readers have not come back. False when none is left that waits.
    pub(super) fn sweep(&self) -> bool {
        let mut streams = self.0.lock();
        let mut waiting = 0;
        streams.all.retain(|_, stream| match &stream.reading {
            Reading::Somebody(_) => true,
            Reading::Nobody(_, at) => {
                let waits = at.elapsed() < KEPT_FOR;
                waiting += usize::from(waits);
                waits
            }
        });
        streams.is_swept = waiting > 0;
        streams.is_swept
    }

    /// The stream is over.
    pub(super) fn forget(&self, start: u64) {
        self.0.lock().all.remove(&start);
    }
}

fn make_room(streams: &mut BTreeMap<u64, Stream>) {
    let waiting = streams.iter().filter_map(|(start, stream)| match &stream.reading {
        Reading::Nobody(left, at) => Some((*at, *start, left.bytes(), stream.who.user.clone())),
        Reading::Somebody(_) => None,
    });
    let mut waiting: Vec<_> = waiting.collect();
    // Those that have waited longest are at the end, and go.
    waiting.sort_unstable_by_key(|(at, start, ..)| std::cmp::Reverse((*at, *start)));
    let (mut sum, mut of_user) = (0, BTreeMap::new());
    for (place, (_, start, bytes, user)) in waiting.into_iter().enumerate() {
        sum += bytes;
        let count: &mut usize = of_user.entry(user).or_default();
        *count += 1;
        if sum > LEFT_BYTES_MAX || place >= LEFT_MAX || *count > LEFT_OF_USER_MAX {
            streams.remove(&start);
        }
    }
}

#[cfg(test)]
mod tests {
    use polymq_model::UserName;

    use super::*;

    fn who(name: &str) -> Principal {
        Principal::of_user(UserName::new(name).unwrap())
    }

    fn left(bytes: usize) -> Left {
        let topics = vec![Remembered { rows: Some(" ".repeat(bytes)), last: 0 }];
        Left { recent: Recent::new(), topics }
    }

    #[test]
    fn events_behind_a_number_are_all_there_or_not_told() {
        let mut recent = Recent::new();
        for event in ["a", "b", "c"] {
            recent.push(event.to_owned());
        }
        assert_eq!(recent.after(1).as_deref(), Some("bc"));
        assert_eq!(recent.after(3).as_deref(), Some(""));
        assert_eq!(recent.after(4), None, "nobody has seen an event that never was");
        recent.push(" ".repeat(RECENT_BYTES_MAX));
        assert_eq!(recent.after(2), None);
        assert_eq!(recent.after(3).map(|text| text.len()), Some(RECENT_BYTES_MAX));
        recent.push(" ".repeat(RECENT_BYTES_MAX + 1));
        assert_eq!(recent.after(4), None);
        assert_eq!(recent.after(5).as_deref(), Some(""));
    }

    #[tokio::test]
    async fn a_stream_waits_for_its_own_reader() {
        let replays = Replays::default();
        let topics = vec!["jobs".to_owned()];
        drop(replays.enter(7, who("a"), topics.clone()));
        assert!(replays.keep(7, left(1)));
        assert!(replays.sweep());
        assert!(replays.take("7-0", &who("b"), &topics).await.is_none());
        assert!(replays.take("7-0", &who("a"), &["log".to_owned()]).await.is_none());
        assert!(replays.take("7-x", &who("a"), &topics).await.is_none());
        assert!(replays.take("7-0", &who("a"), &topics).await.is_some());
        assert!(replays.take("7-0", &who("a"), &topics).await.is_none(), "it goes on once");
        drop(replays.enter(7, who("a"), topics));
        assert!(!replays.keep(7, left(1)), "somebody sweeps already");
        if let Some(stream) = replays.0.lock().all.get_mut(&7)
            && let Reading::Nobody(_, at) = &mut stream.reading
        {
            *at -= KEPT_FOR;
        }
        assert!(!replays.sweep());
        assert!(replays.0.lock().all.is_empty());
    }

    #[tokio::test]
    async fn a_reader_that_is_still_there_leaves_its_stream() {
        let replays = Replays::default();
        let mut asked = replays.enter(7, who("a"), Vec::new());
        let old = async { asked.recv().await.unwrap().send(left(3)).unwrap() };
        let seen = who("a");
        let (going_on, ()) = tokio::join!(replays.take("7-0", &seen, &[]), old);
        assert_eq!(going_on.unwrap().left.bytes(), 3);
    }

    #[test]
    fn what_has_waited_longest_makes_room() {
        let replays = Replays::default();
        let starts = || replays.0.lock().all.keys().copied().collect::<Vec<_>>();
        for start in 0..6 {
            drop(replays.enter(start, who("a"), Vec::new()));
            replays.keep(start, left(ROWS_BYTES_MAX));
        }
        assert_eq!(starts(), [2, 3, 4, 5]);
        for start in 10..30 {
            drop(replays.enter(start, who("b"), Vec::new()));
            replays.keep(start, left(0));
        }
        assert_eq!(starts().len(), 4 + LEFT_OF_USER_MAX, "those of others stay");
    }
}
