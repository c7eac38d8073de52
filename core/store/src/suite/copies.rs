//! A store that is copied into another holds the same.

use super::{Factory, LOG, SHARD, Session};
use crate::{
    Close, Committer, LogId, Seq,
    copy::{Progress, Writer, summarise, visit},
};

/// Panics when a copy from one engine into another of the kind is not the same.
pub(super) fn copies(factory: Factory<'_>) {
    let (from, to) = (factory(), factory());
    let mut source = Session::start(from.as_ref());
    source.write_messages((1..=5_000).filter(|seq| seq % 7 != 0));
    source.write(|w| {
        w.ack(LOG, &[(Seq(1), Seq(99)), (Seq(200), Seq(250)), (Seq(4_990), Seq(5_000))]);
        w.hold(LOG, Seq(300), 2, 3, 77);
        w.log_create(LogId(2), "empty");
        w.log_create(LogId(3), "all gone");
        w.publish(LogId(3), Seq(41), 0, 0, &[b"p"], b"gone");
        w.ack(LogId(3), &[(Seq(41), Seq(41))]);
        w.log_create(LogId(9), "deleted");
        w.log_delete(LogId(9));
        w.meta_put("a", b"one");
        w.meta_put("b", &vec![7; 100_000]);
    });
    let source = source.reopen(from.as_ref(), Close::Clean);
    let all = Progress::of_all(&source.opened);
    let before = summarise(source.store.as_ref(), &source.opened, &mut |_| {}).unwrap();

    let destination = Session::start(to.as_ref());
    let committer = Committer::new(destination.store.clone(), SHARD, &destination.opened);
    let mut writer = Writer::new(committer.clone());
    let mut seen = Progress::default();
    visit(source.store.as_ref(), &source.opened, &mut writer, &mut |now| seen = now).unwrap();
    writer.finish(source.opened.next_log).unwrap();
    assert_eq!(seen, all);
    drop(committer);

    let destination = destination.reopen(to.as_ref(), Close::Clean);
    let after = summarise(destination.store.as_ref(), &destination.opened, &mut |_| {}).unwrap();
    assert_eq!(before, after);
    assert_eq!(destination.opened.next_log, source.opened.next_log);
    assert_eq!(before.logs[0].messages, all.messages);
    // The checksum tells a difference.
    let mut source = source;
    source.write(|w| w.ack(LOG, &[(Seq(300), Seq(300))]));
    let source = source.reopen(from.as_ref(), Close::Clean);
    let changed = summarise(source.store.as_ref(), &source.opened, &mut |_| {}).unwrap();
    assert_ne!(before.logs[0].checksum, changed.logs[0].checksum);
}
