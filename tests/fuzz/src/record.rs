//! Stored records, which a disk may have changed.

use bytes::BytesMut;
use polymq_store::{
    BatchWriter, ShardBatch,
    record::{Checks, Publish, Record, Records, publish_at},
};

/// Reads records as from a disk and as from memory.
pub fn record(bytes: &[u8]) {
    walk(bytes, Checks::Checksums);
    walk(bytes, Checks::LengthsOnly);
}

fn walk(bytes: &[u8], checks: Checks) {
    let mut end = 0;
    for item in Records::new(bytes, checks) {
        let Ok((offset, len, record)) = item else { break };
        assert!(offset >= end, "records do not overlap");
        end = offset + usize::try_from(len).expect("a length that fits");
        assert!(end <= bytes.len(), "a record ends within its bytes");
        match record {
            Record::Ack { ranges, .. } => assert!(ranges.count() <= bytes.len()),
            Record::Hold { entries, .. } => assert!(entries.count() <= bytes.len()),
            Record::PublishSame { first, .. } => {
                let first = usize::try_from(first).expect("an offset that fits");
                // It may point anywhere; only the answer matters.
                let _ = publish_at(bytes, first, checks);
            }
            Record::Publish(publish) => {
                let (mut again, mut count) = (BytesMut::new(), 0);
                let mut writer = BatchWriter::new(ShardBatch(1), &mut again, &mut count);
                let (log, seq) = (publish.log, publish.seq);
                let (expiry, flags) = (publish.expiry_ms, publish.flags);
                writer.publish(log, seq, expiry, flags, &[publish.props], publish.body);
                let (_, found) = publish_at(&again, 0, Checks::Checksums).expect("our own record");
                // Whether others depend on it is for the committer to say, not for its content.
                let is_depended_on = publish.is_depended_on;
                assert_eq!(Publish { is_depended_on, ..found }, publish);
            }
            _ => {}
        }
    }
}
