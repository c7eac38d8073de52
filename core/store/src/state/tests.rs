use bytes::BytesMut;

use super::{Admission, Index, Messages, Place, ShardState};
use crate::{
    BatchWriter, Epoch, Held, Hold, LogId, Seq, ShardBatch,
    record::{Checks, RecordError},
};

/// A place that knows only its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl Place for Size {
    fn content_bytes(&self) -> u64 {
        self.0
    }
}

const LOG: LogId = LogId(1);

fn apply(
    state: &mut ShardState<Index<Size>>,
    write: impl FnOnce(&mut BatchWriter<'_>),
) -> Result<(), RecordError> {
    let number = state.last_batch().next();
    let (mut buf, mut records) = (BytesMut::new(), 0);
    write(&mut BatchWriter::new(number, &mut buf, &mut records));
    state.apply(number, &buf, Checks::Checksums, |found| {
        Size((found.publish.props.len() + found.publish.body.len()) as u64)
    })
}

fn with_messages(count: u64) -> ShardState<Index<Size>> {
    let mut state = ShardState::default();
    apply(&mut state, |w| {
        w.log_create(LOG, "q");
        for seq in 0..count {
            w.publish(LOG, Seq(seq), 0, 0, &[b"pp"], b"body");
        }
    })
    .unwrap();
    state
}

#[test]
fn counts_follow_publishes_and_acks() {
    let mut state = with_messages(1_000);
    apply(&mut state, |w| w.ack(LOG, &[(Seq(0), Seq(9)), (Seq(500), Seq(998))])).unwrap();
    let opened = state.opened();
    let log = &opened.logs[0];
    assert_eq!((log.live_count, log.live_bytes), (491, 491 * 6));
    assert_eq!((log.floor, log.next_seq), (Seq(10), Seq(1_000)));
    let cursor = state.log(LOG).unwrap().cursor();
    assert_eq!((cursor.floor, cursor.acked), (Seq(10), vec![(Seq(500), Seq(998))]));
    let live: Vec<_> =
        state.log(LOG).unwrap().messages().from(Seq(498)).map(|(seq, _)| seq.0).collect();
    assert_eq!(live, [498, 499, 999]);
}

#[test]
fn acks_above_the_last_message_are_part_of_the_cursor() {
    let mut state = with_messages(3);
    apply(&mut state, |w| w.ack(LOG, &[(Seq(1), Seq(u64::MAX))])).unwrap();
    let cursor = state.log(LOG).unwrap().cursor();
    assert_eq!((cursor.floor, cursor.acked), (Seq(0), vec![(Seq(1), Seq(2))]));
}

#[test]
fn counts_of_a_message_go_with_it() {
    let mut state = with_messages(2);
    apply(&mut state, |w| {
        w.hold(LOG, Seq(0), 1, 2, 3);
        w.hold(LOG, Seq(1), 4, 5, 6);
        w.hold(LOG, Seq(7), 1, 1, 1);
        w.ack(LOG, &[(Seq(0), Seq(0))]);
    })
    .unwrap();
    let hold = Hold { delivery_count: 4, acquired_count: 5, due_ms: 6 };
    let held: Vec<_> = state.log(LOG).unwrap().holds().collect();
    assert_eq!(held, [Held { seq: Seq(1), hold }]);
}

#[test]
fn purge_never_gives_numbers_back() {
    let mut state = with_messages(5);
    apply(&mut state, |w| w.purge(LOG, Seq(9))).unwrap();
    let log = &state.opened().logs[0];
    assert_eq!((log.live_count, log.floor, log.next_seq), (0, Seq(9), Seq(9)));
}

#[test]
fn records_of_a_deleted_log_change_nothing() {
    let mut state = with_messages(5);
    apply(&mut state, |w| {
        w.log_delete(LOG);
        w.publish(LOG, Seq(5), 0, 0, &[], b"late");
        w.ack(LOG, &[(Seq(0), Seq(1))]);
        w.hold(LOG, Seq(0), 1, 1, 0);
        w.purge(LOG, Seq(3));
    })
    .unwrap();
    assert_eq!((state.live_count(), state.live_bytes()), (0, 0));
    assert!(state.opened().logs.is_empty());
}

#[test]
fn version_of_a_definition_is_the_batch_that_changed_it() {
    let mut state = with_messages(0);
    apply(&mut state, |w| w.meta_put("a", b"1")).unwrap();
    apply(&mut state, |w| w.meta_put("b", b"2")).unwrap();
    apply(&mut state, |w| w.meta_put("a", b"3")).unwrap();
    apply(&mut state, |w| w.meta_delete("b")).unwrap();
    assert_eq!(state.opened().metas, [("a".to_owned(), 4, "3".into())]);
}

#[test]
fn only_the_next_batch_of_this_epoch_is_admitted() {
    let mut state = with_messages(1);
    state.set_epoch(Epoch(2));
    assert_eq!(state.admit(Epoch(2), ShardBatch(2)), Admission::Next);
    assert_eq!(state.admit(Epoch(2), ShardBatch(1)), Admission::Kept);
    assert_eq!(state.admit(Epoch(2), ShardBatch(3)), Admission::Gap);
    assert_eq!(state.admit(Epoch(1), ShardBatch(2)), Admission::Fenced);
}

#[test]
fn message_that_comes_back_finds_its_place() {
    let mut state = with_messages(3);
    apply(&mut state, |w| w.ack(LOG, &[(Seq(1), Seq(1))])).unwrap();
    apply(&mut state, |w| {
        w.publish(LOG, Seq(1), 0, 0, &[], b"again");
        w.publish(LOG, Seq(0), 0, 0, &[], b"a second copy changes nothing");
    })
    .unwrap();
    let sizes: Vec<_> =
        state.log(LOG).unwrap().messages().from(Seq(0)).map(|(_, size)| size.0).collect();
    assert_eq!(sizes, [6, 5, 6]);
    let messages = state.log(LOG).unwrap().messages();
    assert_eq!((messages.count(), messages.bytes()), (3, 17));
}
