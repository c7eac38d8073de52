//! What was written is what is read.

use super::{ALL, Engine, LOG, Session};
use crate::{Close, LogId, MessageRef, ReadLimit, Seq, wait};

pub(super) fn order(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    assert!(session.opened.logs.is_empty());
    session.write_messages(0..500);
    session.write(|w| {
        for seq in 500..1_000 {
            w.publish(LOG, Seq(seq), seq, 2, &[b"pro", b"ps"], &seq.to_le_bytes());
        }
    });
    for how in [Close::Clean, Close::Abandon, Close::Clean] {
        for (seq, message) in (0..).zip(session.messages(LOG)) {
            assert_eq!((message.log, message.seq, message.expiry_ms), (LOG, Seq(seq), seq));
            assert_eq!((message.flags, &message.props[..]), (2, &b"props"[..]));
            assert_eq!(message.body[..], seq.to_le_bytes());
        }
        assert_eq!(session.seqs(LOG).len(), 1_000);
        let last = session.last;
        session = session.reopen(engine, how);
        assert_eq!(session.opened.last_batch, last);
        assert_eq!(session.opened.logs[0].name, "queue");
        assert_eq!(session.opened.logs[0].next_seq, Seq(1_000));
    }
}

pub(super) fn gaps(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    let seqs = [3, 4, 9, 1_000, 1_000_000, u64::from(u32::MAX) + 7];
    session.write_messages(seqs.into_iter());
    for _ in 0..2 {
        assert_eq!(session.seqs(LOG), seqs);
        let page = session.read(LOG, Seq(10), ALL);
        assert_eq!(page.messages[0].seq, Seq(1_000));
        let log = &session.opened.logs;
        assert!(log.is_empty() || log[0].floor == Seq(3));
        session = session.reopen(engine, Close::Clean);
    }
}

pub(super) fn sizes(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    let sizes = [0, 1, 7, 8, 9, 4_000, 4_096, 65_534, 65_535, 65_536, 1_000_000];
    session.write(|w| w.log_create(LOG, ""));
    for (seq, size) in (0..).zip(sizes) {
        session.write(|w| {
            w.publish(LOG, Seq(seq * 2), 0, 0, &[&vec![1; size]], b"");
            w.publish(LOG, Seq(seq * 2 + 1), 0, 0, &[], &vec![2; size]);
        });
    }
    for _ in 0..2 {
        for (pair, size) in session.messages(LOG).chunks(2).zip(sizes) {
            assert_eq!((&pair[0].props[..], &pair[0].body[..]), (&vec![1; size][..], &b""[..]));
            assert_eq!((&pair[1].props[..], &pair[1].body[..]), (&b""[..], &vec![2; size][..]));
        }
        session = session.reopen(engine, Close::Clean);
        let expected: usize = sizes.iter().map(|size| size * 2).sum();
        assert_eq!(session.opened.logs[0].live_bytes, expected as u64);
    }
}

pub(super) fn shared_bodies(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write(|w| {
        for log in 1..=3 {
            w.log_create(LogId(log), &format!("queue {log}"));
        }
        w.publish(LOG, Seq(0), 0, 0, &[b"other"], b"other");
        let first = w.publish(LOG, Seq(1), 5, 6, &[b"props"], b"shared");
        assert!(w.publish_same(LogId(2), Seq(70), 7, first));
        assert!(w.publish_same(LogId(3), Seq(0), 0, first));
    });
    session.write(|w| w.ack(LOG, &[(Seq(0), Seq(1))]));
    for _ in 0..2 {
        assert!(session.messages(LOG).is_empty());
        let second = &session.messages(LogId(2))[0];
        assert_eq!((second.log, second.seq, second.expiry_ms), (LogId(2), Seq(70), 7));
        assert_eq!((second.flags, &second.props[..]), (6, &b"props"[..]));
        let third = &session.messages(LogId(3))[0];
        assert_eq!((third.expiry_ms, &third.body[..]), (0, &b"shared"[..]));
        session = session.reopen(engine, Close::Abandon);
        assert_eq!(session.opened.logs[1].live_bytes, 11);
    }
}

pub(super) fn bounded_reads(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write(|w| {
        w.log_create(LOG, "queue");
        for seq in 0..100 {
            w.publish(LOG, Seq(seq), 0, 0, &[b"12345"], b"67890");
        }
    });
    let read = |from, messages_max, bytes_max| {
        let page = session.read(LOG, Seq(from), ReadLimit { messages_max, bytes_max });
        (page.messages.len(), page.next)
    };
    assert_eq!(read(0, 10, u64::MAX), (10, Some(Seq(10))));
    assert_eq!(read(95, 10, u64::MAX), (5, None));
    assert_eq!(read(90, 10, u64::MAX), (10, None));
    assert_eq!(read(0, u32::MAX, 50), (5, Some(Seq(5))));
    assert_eq!(read(0, u32::MAX, 59), (5, Some(Seq(5))));
    assert_eq!(read(7, 0, 0), (1, Some(Seq(8))), "a read makes progress");
    assert_eq!(read(100, 10, 10), (0, None));
    assert_eq!(session.read(LogId(77), Seq(0), ALL).messages.len(), 0);
}

pub(super) fn named_reads(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write_messages(0..10);
    session.write(|w| w.ack(LOG, &[(Seq(4), Seq(4))]));
    let wanted = [7, 4, 99, 0].map(|seq| MessageRef { log: LOG, seq: Seq(seq) });
    let page = wait(|reply| session.store.read_at(&wanted, reply)).unwrap();
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq.0).collect();
    assert_eq!((seqs, page.next), (vec![7, 0], None));
}

pub(super) fn definitions(engine: &dyn Engine) {
    let mut session = Session::start(engine);
    session.write(|w| w.meta_put("vhost/é", b"1"));
    session.write(|w| {
        w.meta_put("queue/a", &[7; 100_000]);
        w.meta_put("queue/b", b"");
    });
    session.write(|w| w.meta_put("vhost/é", b"2"));
    session.write(|w| w.meta_delete("queue/b"));
    for how in [Close::Abandon, Close::Clean] {
        session = session.reopen(engine, how);
        let metas = &session.opened.metas;
        assert_eq!(metas[0], ("queue/a".to_owned(), 2, vec![7; 100_000].into()));
        assert_eq!(metas[1], ("vhost/é".to_owned(), 3, "2".into()));
        assert_eq!(metas.len(), 2);
    }
}
