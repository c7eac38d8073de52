use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use parking_lot::Mutex;

use super::Committer;
use crate::{
    Batch, Capabilities, Close, CursorId, CursorState, Durability, Epoch, Health, LogId,
    MessageRef, Opened, Outcome, OwnerId, Page, ReadLimit, Reply, Seq, ShardBatch, ShardId, Store,
    StoreError,
    record::{Checks, Record, Records},
};

type Submitted = (Batch, Reply<ShardBatch>);

/// An engine whose answers the test gives.
#[derive(Default)]
struct Fake {
    submitted: Mutex<Vec<Submitted>>,
    outcomes: Mutex<Vec<Outcome>>,
    closes: Mutex<Vec<Close>>,
    durabilities: Mutex<Vec<Durability>>,
    engine: Mutex<Option<Sender<Submitted>>>,
    answers_at_once: bool,
}

impl Fake {
    fn committer(self: &Arc<Self>) -> Arc<Committer> {
        let opened = Opened { epoch: Epoch(3), last_batch: ShardBatch(10), ..Opened::default() };
        Committer::new(self.clone(), ShardId(0), &opened)
    }

    fn answer(&self, result: Result<(), StoreError>) -> Batch {
        let (batch, reply) = self.submitted.lock().remove(0);
        reply(result.map(|()| batch.number));
        batch
    }

    fn in_flight(&self) -> usize {
        self.submitted.lock().len()
    }
}

impl Store for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, weaker_classes: false, batch_bytes_max: 0 }
    }
    fn open(&self, _: ShardId, _: OwnerId, reply: Reply<Opened>) {
        reply(Err(StoreError::Closed));
    }
    fn submit(&self, batch: Batch, wanted: Durability, reply: Reply<ShardBatch>) {
        self.durabilities.lock().push(wanted);
        if self.answers_at_once {
            let number = batch.number;
            drop(batch);
            return reply(Ok(number));
        }
        match &*self.engine.lock() {
            Some(engine) => engine.send((batch, reply)).unwrap(),
            None => self.submitted.lock().push((batch, reply)),
        }
    }
    fn outcome(&self, _: ShardId, _: ShardBatch, reply: Reply<Outcome>) {
        let outcome = self.outcomes.lock().pop();
        reply(outcome.ok_or(StoreError::Closed));
    }
    fn read(&self, _: LogId, _: Seq, _: ReadLimit, reply: Reply<Page>) {
        reply(Err(StoreError::Closed));
    }
    fn read_at(&self, _: &[MessageRef], reply: Reply<Page>) {
        reply(Err(StoreError::Closed));
    }
    fn cursor(&self, _: CursorId, reply: Reply<CursorState>) {
        reply(Err(StoreError::Closed));
    }
    fn health(&self) -> Health {
        Health::Ok
    }
    fn close(&self, how: Close, reply: Reply<()>) {
        self.closes.lock().push(how);
        reply(Ok(()));
    }
}

/// What callbacks were called with, in order.
type Calls = Arc<Mutex<Vec<(u32, Result<(), StoreError>)>>>;

fn publish(committer: &Committer, seq: u64) -> ShardBatch {
    let write = |w: &mut crate::BatchWriter<'_>| {
        w.publish(LogId(1), Seq(seq), 0, 0, &[b"p"], b"body");
    };
    committer.append(write).0
}

fn note(committer: &Committer, batch: ShardBatch, name: u32, calls: &Calls) {
    let calls = calls.clone();
    committer.when_durable(batch, move |result| calls.lock().push((name, result)));
}

#[test]
fn while_one_batch_is_in_flight_the_next_fills() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    let first = publish(&committer, 1);
    assert_eq!(first, ShardBatch(11));
    assert!(committer.is_dirty());
    committer.kick();
    assert!(!committer.is_dirty());
    let second = publish(&committer, 2);
    assert_eq!(publish(&committer, 3), second);
    committer.kick();
    assert_eq!(fake.in_flight(), 1);
    note(&committer, second, 2, &calls);
    note(&committer, first, 1, &calls);
    let batch = fake.answer(Ok(()));
    assert_eq!((batch.number, batch.records, batch.epoch), (first, 1, Epoch(3)));
    assert_eq!(*calls.lock(), [(1, Ok(()))]);
    assert_eq!(fake.answer(Ok(())).records, 2);
    assert_eq!(*calls.lock(), [(1, Ok(())), (2, Ok(()))]);
    assert_eq!((committer.durable(), committer.pending_bytes()), (second, 0));
}

#[test]
fn what_belongs_together_is_in_one_batch() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let outer = committer.together();
    let first = publish(&committer, 1);
    let inner = committer.together();
    committer.kick();
    assert_eq!(fake.in_flight(), 0);
    drop(inner);
    committer.kick();
    assert_eq!(fake.in_flight(), 0);
    let second = publish(&committer, 2);
    assert_eq!(first, second);
    drop(outer);
    assert_eq!(fake.answer(Ok(())).records, 2);
    // Nobody has asked for what comes now.
    let together = committer.together();
    publish(&committer, 3);
    drop(together);
    assert_eq!(fake.in_flight(), 0);
}

#[test]
fn a_batch_is_kept_as_its_strictest_record_wants() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let publish_as = |durability| {
        let write = |writer: &mut crate::BatchWriter<'_>| {
            writer.publish(LogId(1), Seq(1), 0, 0, &[], b"x");
        };
        committer.append_as(durability, write);
    };
    let interval = |ms| Durability::SyncInterval { ms };
    for (wanted, kept) in [
        (vec![Durability::Os], Durability::Os),
        (vec![Durability::Os, interval(50), interval(20), Durability::Memory], interval(20)),
        (vec![interval(50), Durability::Sync, Durability::Os], Durability::Sync),
    ] {
        wanted.into_iter().for_each(publish_as);
        committer.kick();
        assert_eq!(fake.durabilities.lock().pop(), Some(kept));
        fake.answer(Ok(()));
    }
    publish_as(Durability::Os);
    committer.want_sync();
    committer.kick();
    assert_eq!(fake.durabilities.lock().pop(), Some(Durability::Sync));
}

#[test]
fn unkicked_records_wait_for_a_ride() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    publish(&committer, 1);
    committer.kick();
    publish(&committer, 2);
    fake.answer(Ok(()));
    assert_eq!(fake.in_flight(), 0);
    assert!(committer.is_dirty());
    committer.kick();
    assert_eq!(fake.in_flight(), 1);
}

#[test]
fn hook_is_called_when_the_open_batch_gets_its_first_record() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    committer.set_on_dirty(Box::new(move || {
        seen.fetch_add(1, Ordering::SeqCst);
    }));
    let (batch, ()) = committer.append(|_| {});
    assert_eq!((batch, calls.load(Ordering::SeqCst)), (ShardBatch(10), 0));
    publish(&committer, 1);
    publish(&committer, 2);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    committer.kick();
    publish(&committer, 3);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn callback_for_a_durable_batch_runs_at_once() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    note(&committer, ShardBatch(10), 1, &calls);
    assert_eq!(*calls.lock(), [(1, Ok(()))]);
}

#[test]
fn full_store_refuses_messages_and_keeps_everything_else() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    let (refused, ()) = committer.append(|w| {
        w.log_create(LogId(1), "q");
        let first = w.publish(LogId(1), Seq(1), 0, 0, &[b"p"], b"body");
        assert!(w.publish_same(LogId(1), Seq(2), 0, first));
        w.ack(LogId(1), &[(Seq(0), Seq(0))]);
    });
    committer.kick();
    let refused_too = publish(&committer, 3);
    note(&committer, refused, 1, &calls);
    note(&committer, refused_too, 2, &calls);
    fake.answer(Err(StoreError::Full));
    assert_eq!(*calls.lock(), [(1, Err(StoreError::Full)), (2, Err(StoreError::Full))]);
    assert_eq!(fake.in_flight(), 0);
    assert!(committer.is_dirty());

    let later = publish(&committer, 4);
    note(&committer, later, 3, &calls);
    committer.kick();
    let kept = fake.answer(Ok(()));
    assert_eq!((kept.number, kept.records), (refused, 2));
    let kinds: Vec<_> = Records::new(&kept.payload, Checks::Checksums).flatten().collect();
    assert!(matches!(kinds[0].2, Record::LogCreate { .. }));
    assert!(matches!(kinds[1].2, Record::Ack { .. }));
    assert_eq!(fake.answer(Ok(())).records, 0);
    assert_eq!(fake.answer(Ok(())).number, later);
    assert_eq!(calls.lock()[2], (3, Ok(())));
    note(&committer, refused, 4, &calls);
    assert_eq!(calls.lock()[3], (4, Err(StoreError::Full)));
    assert_eq!(committer.pending_bytes(), 0);
}

#[test]
fn full_store_refuses_no_message_that_has_left_another_place() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    publish(&committer, 1);
    {
        let _together = committer.together();
        committer.append(|w| {
            let first = w.publish(LogId(2), Seq(7), 0, 2, &[b"moved"], b"letter");
            assert!(w.publish_same(LogId(3), Seq(8), 9, first));
            w.ack(LogId(1), &[(Seq(0), Seq(0))]);
        });
        // Nobody's half is written while the other half is not there.
        committer.kick();
        assert_eq!(fake.in_flight(), 0);
    }
    assert!(!committer.is_refused());
    fake.answer(Err(StoreError::Full));
    assert!(committer.is_refused());
    committer.kick();
    let kept = fake.answer(Ok(()));
    assert!(!committer.is_refused());
    let records: Vec<_> = Records::new(&kept.payload, Checks::Checksums).flatten().collect();
    assert_eq!((kept.records, records.len()), (3, 3));
    for (at, log, seq, expiry_ms) in [(0, 2, 7, 0), (1, 3, 8, 9)] {
        let Record::Publish(letter) = records[at].2 else { panic!("{:?}", records[at]) };
        assert_eq!((letter.log, letter.seq, letter.expiry_ms), (LogId(log), Seq(seq), expiry_ms));
        assert_eq!((letter.flags, letter.props, letter.body), (2, &b"moved"[..], &b"letter"[..]));
    }
    assert!(matches!(records[2].2, Record::Ack { .. }));
    assert_eq!(committer.pending_bytes(), 0);
}

#[test]
fn a_refusal_splits_nothing_that_belongs_together() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    publish(&committer, 1);
    committer.kick();
    let together = committer.together();
    publish(&committer, 2);
    fake.answer(Err(StoreError::Full));
    committer.append(|w| w.ack(LogId(9), &[(Seq(0), Seq(0))]));
    drop(together);
    committer.kick();
    assert_eq!(fake.answer(Ok(())).records, 0);
    assert_eq!(fake.answer(Ok(())).records, 2);
    assert_eq!(committer.pending_bytes(), 0);
}

#[test]
fn unknown_outcome_is_asked_for_and_never_confirmed_blindly() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    let batch = publish(&committer, 1);
    note(&committer, batch, 1, &calls);
    committer.kick();
    fake.outcomes.lock().push(Outcome::NotCommitted);
    fake.answer(Err(StoreError::Unknown));
    assert!(calls.lock().is_empty());
    fake.outcomes.lock().push(Outcome::Committed);
    assert_eq!(fake.answer(Err(StoreError::Unknown)).number, batch);
    assert_eq!(*calls.lock(), [(1, Ok(()))]);
}

#[test]
fn fatal_answer_fails_what_waits_and_what_comes() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    note(&committer, publish(&committer, 1), 1, &calls);
    committer.kick();
    note(&committer, publish(&committer, 2), 2, &calls);
    fake.answer(Err(StoreError::Fenced));
    note(&committer, publish(&committer, 3), 3, &calls);
    committer.kick();
    assert_eq!(fake.in_flight(), 0);
    let names: Vec<_> = calls.lock().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, [1, 2, 3]);
    assert!(calls.lock().iter().all(|(_, result)| *result == Err(StoreError::Fenced)));
    assert_eq!(committer.failed(), Some(StoreError::Fenced));
}

#[test]
fn engine_that_drops_its_reply_is_not_waited_for() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    note(&committer, publish(&committer, 1), 1, &calls);
    committer.kick();
    fake.submitted.lock().clear();
    assert!(matches!(calls.lock()[..], [(1, Err(StoreError::Fatal(_)))]));
}

#[test]
fn close_writes_everything_first() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    publish(&committer, 1);
    committer.kick();
    note(&committer, publish(&committer, 2), 1, &calls);
    let seen = calls.clone();
    committer.close(move |result| seen.lock().push((2, result)));
    fake.answer(Ok(()));
    assert!(fake.closes.lock().is_empty());
    fake.answer(Ok(()));
    assert_eq!(*fake.closes.lock(), [Close::Clean]);
    assert_eq!(*calls.lock(), [(1, Ok(())), (2, Ok(()))]);
    note(&committer, publish(&committer, 3), 3, &calls);
    assert_eq!(calls.lock()[2], (3, Err(StoreError::Closed)));
}

#[test]
fn close_of_a_failed_store_leaves_no_clean_mark() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    publish(&committer, 1);
    let seen = calls.clone();
    committer.close(move |result| seen.lock().push((1, result)));
    fake.answer(Err(StoreError::Full));
    assert_eq!(*fake.closes.lock(), [Close::Abandon]);
    assert_eq!(*calls.lock(), [(1, Err(StoreError::Full))]);
}

#[test]
fn callbacks_that_append_do_not_pile_up_on_the_stack() {
    let fake = Arc::new(Fake { answers_at_once: true, ..Fake::default() });
    let committer = fake.committer();
    fn again(committer: &Arc<Committer>, left: u64, done: &Arc<AtomicU64>) {
        let Some(left) = left.checked_sub(1) else { return };
        let batch = publish(committer, left);
        let (next, done) = (committer.clone(), done.clone());
        committer.when_durable(batch, move |result| {
            result.unwrap();
            done.fetch_add(1, Ordering::Relaxed);
            again(&next, left, &done);
        });
        committer.kick();
    }
    let done = Arc::new(AtomicU64::new(0));
    again(&committer, 50_000, &done);
    assert_eq!(done.load(Ordering::Relaxed), 50_000);
}

#[test]
fn panic_in_a_callback_is_counted_and_the_next_one_runs() {
    let fake = Arc::new(Fake::default());
    let committer = fake.committer();
    let calls = Calls::default();
    committer.when_durable(ShardBatch(1), |_| panic!("a bug of the caller"));
    note(&committer, ShardBatch(1), 1, &calls);
    assert_eq!((calls.lock().len(), committer.stats().callback_panics), (1, 1));
}

/// Keeps batches and checks that they come in order, one at a time.
fn engine(batches: &Receiver<Submitted>, in_flight: &AtomicUsize) -> (u64, u64) {
    let (mut last, mut records) = (10, 0);
    for (batch, reply) in batches {
        assert_eq!(in_flight.fetch_add(1, Ordering::SeqCst), 0);
        assert_eq!(batch.number.0, last + 1);
        last = batch.number.0;
        let found = Records::new(&batch.payload, Checks::Checksums).map(Result::unwrap).count();
        assert_eq!(found as u64, u64::from(batch.records));
        records += found as u64;
        in_flight.fetch_sub(1, Ordering::SeqCst);
        let number = batch.number;
        drop(batch);
        reply(Ok(number));
    }
    (last, records)
}

#[test]
fn many_threads_get_one_callback_each_in_their_own_order() {
    const THREADS: u64 = 4;
    const APPENDS: u64 = 5_000;
    let fake = Arc::new(Fake::default());
    let (sender, batches) = channel();
    *fake.engine.lock() = Some(sender);
    let committer = fake.committer();
    let writer = thread::spawn(move || engine(&batches, &AtomicUsize::new(0)));
    // One list for all threads: callbacks run one at a time, so its order is theirs.
    let order: Arc<Mutex<Vec<(ShardBatch, u64, u64)>>> = Arc::default();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (committer, order) = (&committer, &order);
            scope.spawn(move || {
                for n in 0..APPENDS {
                    let batch = publish(committer, n);
                    let order = order.clone();
                    committer.when_durable(batch, move |result| {
                        result.unwrap();
                        order.lock().push((batch, thread, n));
                    });
                    if n % 3 == 0 {
                        committer.kick();
                    }
                }
            });
        }
    });
    let (done, closed) = channel();
    committer.close(move |result| done.send(result).unwrap());
    closed.recv().unwrap().unwrap();
    *fake.engine.lock() = None;
    let (last, records) = writer.join().unwrap();
    assert_eq!(records, THREADS * APPENDS);
    assert_eq!(committer.durable(), ShardBatch(last));
    let order = order.lock();
    assert_eq!(order.len() as u64, THREADS * APPENDS);
    let mut next = [0; THREADS as usize];
    // A thread that asks late, after its batch and later ones were written, is answered late: only
    // the order of each thread's own callbacks holds.
    for (_, thread, n) in order.iter() {
        let next = &mut next[usize::try_from(*thread).unwrap()];
        assert_eq!(*n, *next, "callbacks of one thread come in its order, once each");
        *next += 1;
    }
}
