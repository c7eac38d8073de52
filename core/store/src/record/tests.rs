use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

use super::{Checks, Record, Records, aligned, publish_at};
use crate::{BatchWriter, LogId, Seq, ShardBatch};

fn written(write: impl FnOnce(&mut BatchWriter<'_>)) -> BytesMut {
    let (mut buf, mut records) = (BytesMut::new(), 0);
    write(&mut BatchWriter::new(ShardBatch(5), &mut buf, &mut records));
    let found = Records::new(&buf, Checks::Checksums).map(Result::unwrap).count();
    assert_eq!(found as u32, records);
    buf
}

fn first(buf: &[u8]) -> Record<'_> {
    Records::new(buf, Checks::Checksums).next().unwrap().unwrap().2
}

#[test]
fn layout_is_the_documented_one() {
    let buf = written(|w| {
        w.publish(LogId(0x0403_0201), Seq(7), 9, 0xFF, &[b"ab", b"c"], b"body");
    });
    assert_eq!(buf.len(), 40);
    assert_eq!(buf[4..8], 39_u32.to_le_bytes());
    assert_eq!(buf[8..12], [1, 0x3E, 3, 0]);
    assert_eq!(buf[12..16], [1, 2, 3, 4]);
    assert_eq!(buf[16..24], 7_u64.to_le_bytes());
    assert_eq!(buf[24..32], 9_u64.to_le_bytes());
    assert_eq!(&buf[32..], b"abcbody\0");
    assert_eq!(super::crc32c(b"123456789"), 0xE306_9283, "CRC-32C as everybody computes it");
}

#[test]
fn properties_of_any_length_read_back() {
    for len in [0, 1, 0xFFFE, 0xFFFF, 0x1_0000, 200_000] {
        let props = vec![3; len];
        let buf = written(|w| {
            w.publish(LogId(1), Seq(2), 0, 2, &[&props], b"body");
        });
        let Record::Publish(publish) = first(&buf) else { panic!("not a message") };
        assert_eq!((publish.props, publish.body, publish.flags), (&props[..], &b"body"[..], 2));
    }
}

#[test]
fn second_message_points_to_the_first_of_its_batch_only() {
    let mut reference = None;
    let buf = written(|w| {
        let first = w.publish(LogId(1), Seq(1), 0, 0, &[], b"shared");
        assert!(w.publish_same(LogId(2), Seq(9), 4, first));
        reference = Some(first);
    });
    let (_, _, same) = Records::new(&buf, Checks::Checksums).nth(1).unwrap().unwrap();
    let Record::PublishSame { log, seq, expiry_ms, first, own, .. } = same else { panic!() };
    assert_eq!((log, seq, expiry_ms, first, own), (LogId(2), Seq(9), 4, 0, 40));
    assert_eq!(publish_at(&buf, 0, Checks::Checksums).unwrap().1.body, b"shared");
    let (mut next, mut records) = (BytesMut::new(), 0);
    let mut later = BatchWriter::new(ShardBatch(6), &mut next, &mut records);
    assert!(!later.publish_same(LogId(2), Seq(10), 0, reference.unwrap()));
    assert_eq!(records, 0);
}

#[test]
fn many_ranges_take_several_records() {
    let ranges: Vec<_> = (0..200).map(|n| (Seq(n * 10), Seq(n * 10 + 3))).collect();
    let buf = written(|w| w.ack(LogId(1), &ranges));
    let mut found = Vec::new();
    for item in Records::new(&buf, Checks::Checksums) {
        let Record::Ack { ranges, .. } = item.unwrap().2 else { panic!("not an ack") };
        found.extend(ranges);
    }
    assert_eq!(found, ranges);
}

#[test]
fn unknown_type_is_skipped_unless_it_must_be_understood() {
    for (flags, is_skipped) in [(0, true), (super::FLAG_MUST_UNDERSTAND, false)] {
        let mut buf = BytesMut::new();
        super::put(&mut buf, super::Head { kind: 99, flags, ..super::Head::default() }, &[], b"x");
        let found = Records::new(&buf, Checks::Checksums).next().unwrap();
        assert_eq!(found.is_ok_and(|(_, _, record)| record == Record::Skipped), is_skipped);
    }
}

fn some_records() -> BytesMut {
    written(|w| {
        w.log_create(LogId(1), "q");
        let first = w.publish(LogId(1), Seq(1), 5, 2, &[b"props"], &[8; 50]);
        w.publish_same(LogId(1), Seq(2), 0, first);
        w.ack(LogId(1), &[(Seq(1), Seq(1))]);
        w.hold(LogId(1), Seq(2), 1, 2, 3);
        w.floor(LogId(1), Seq(1));
        w.purge(LogId(1), Seq(2));
        w.meta_put("key", b"value");
        w.meta_delete("key");
        w.log_delete(LogId(1));
    })
}

fn walk(bytes: &[u8], checks: Checks) -> usize {
    let mut count = 0;
    for (offset, len, record) in Records::new(bytes, checks).flatten() {
        assert!(offset + aligned(len as usize) <= bytes.len());
        match record {
            Record::Ack { ranges, .. } => count += ranges.count(),
            Record::Hold { entries, .. } => count += entries.count(),
            Record::PublishSame { first, .. } => {
                count += usize::from(publish_at(bytes, first as usize, checks).is_ok());
            }
            _ => count += 1,
        }
    }
    count
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        walk(&bytes, Checks::Checksums);
        walk(&bytes, Checks::LengthsOnly);
    }

    #[test]
    fn damaged_records_are_read_without_a_panic(
        hits in vec((0_usize..600, any::<u8>()), 1..8),
        cut in 0_usize..600,
    ) {
        let mut bytes = some_records().to_vec();
        for (at, value) in hits {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        walk(&bytes, Checks::LengthsOnly);
    }

    #[test]
    fn flipped_bit_outside_the_padding_is_noticed(at in 0_usize..100, bit in 0_u8..8) {
        let mut buf = BytesMut::new();
        let (_, len) = super::put(
            &mut buf,
            super::Head { kind: 1, ..super::Head::default() },
            &[b"some properties"],
            b"and a body that is long enough for this",
        );
        let at = at % len as usize;
        buf[at] ^= 1 << bit;
        prop_assert!(Records::new(&buf, Checks::Checksums).next().unwrap().is_err());
    }

    #[test]
    fn messages_read_back_in_order(
        messages in vec((any::<u32>(), any::<u64>(), some_bytes(), some_bytes()), 0..20),
    ) {
        let buf = written(|w| {
            for (log, seq, props, body) in &messages {
                w.publish(LogId(*log), Seq(*seq), 1, 0, &[props], body);
            }
        });
        let found: Vec<_> = Records::new(&buf, Checks::Checksums)
            .map(|item| match item.unwrap().2 {
                Record::Publish(p) => (p.log.0, p.seq.0, p.props.to_vec(), p.body.to_vec()),
                other => panic!("not a message: {other:?}"),
            })
            .collect();
        prop_assert_eq!(found, messages);
    }
}
