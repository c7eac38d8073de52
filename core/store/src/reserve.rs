//! Room on the disk that is kept for the time when there is none, so that what makes room can
//! still be written: acknowledgements, definitions, the first writes of a start. The rule stands
//! here; the file is the engine's.

use std::time::Duration;

use crate::record::{Checks, Record, Records};

/// How much an engine keeps in reserve, in bytes, unless it is told otherwise.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// So long after a batch that found no room an engine says that it is full: acknowledgements may
/// have room that the next message has not.
pub const FULL_FOR: Duration = Duration::from_secs(10);

/// Where an engine keeps its reserve.
pub trait Room {
    /// After this nothing can be written any more.
    type Failure;

    /// True while the reserve is there.
    fn is_taken(&self) -> bool;

    /// Takes so many bytes of the disk; false when it does not have them.
    ///
    /// Errors: those after which nothing can be written any more.
    fn take(&self, bytes: u64) -> Result<bool, Self::Failure>;

    /// Gives everything back; false when there was nothing.
    fn give_up(&self) -> bool;
}

/// Has a reserve of `bytes` when there is plenty of room: twice as much must fit. Returns whether
/// it is there.
///
/// Errors: those after which nothing can be written any more.
pub fn take_reserve<R: Room>(room: &R, bytes: u64) -> Result<bool, R::Failure> {
    if bytes == 0 || room.is_taken() {
        return Ok(bytes > 0);
    }
    // The second time leaves as much free as it takes.
    for bytes in [bytes.saturating_mul(2), bytes] {
        room.give_up();
        if !room.take(bytes)? {
            room.give_up();
            return Ok(false);
        }
    }
    Ok(true)
}

/// True when the records of a batch hold a message that may be refused when there is no room. Any
/// other batch makes room sooner or later, and may use up the reserve.
pub fn may_be_refused(payload: &[u8]) -> bool {
    let is_refusable = |record: &Record<'_>| match record {
        Record::Publish(publish) => !publish.is_depended_on,
        Record::PublishSame { is_depended_on, .. } => !is_depended_on,
        _ => false,
    };
    Records::new(payload, Checks::LengthsOnly).flatten().any(|(_, _, r)| is_refusable(&r))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::BytesMut;
    use polymq_model::{LogId, Seq};

    use super::*;
    use crate::{BatchWriter, ShardBatch};

    /// A disk with so many free bytes beside the reserve.
    struct Disk {
        free: Cell<u64>,
        taken: Cell<u64>,
    }

    impl Room for Disk {
        type Failure = ();

        fn is_taken(&self) -> bool {
            self.taken.get() > 0
        }

        fn take(&self, bytes: u64) -> Result<bool, ()> {
            let left = self.free.get().checked_sub(bytes);
            if let Some(left) = left {
                self.free.set(left);
                self.taken.set(bytes);
            }
            Ok(left.is_some())
        }

        fn give_up(&self) -> bool {
            let had = self.taken.replace(0);
            self.free.set(self.free.get() + had);
            had > 0
        }
    }

    #[test]
    fn reserve_is_taken_only_where_twice_as_much_fits() {
        let disk = Disk { free: Cell::new(19), taken: Cell::new(0) };
        assert_eq!(take_reserve(&disk, 10), Ok(false));
        assert_eq!((disk.free.get(), disk.taken.get()), (19, 0));
        disk.free.set(20);
        assert_eq!(take_reserve(&disk, 10), Ok(true));
        assert_eq!((disk.free.get(), disk.taken.get()), (10, 10));
        disk.free.set(0);
        assert_eq!(take_reserve(&disk, 10), Ok(true), "it is there already");
        assert_eq!(take_reserve(&disk, 0), Ok(false), "none is wanted");
    }

    #[test]
    fn only_messages_that_nothing_depends_on_are_refused() {
        let refused = |write: &dyn Fn(BatchWriter<'_>)| {
            let (mut bytes, mut records) = (BytesMut::new(), 0);
            write(BatchWriter::new(ShardBatch(1), &mut bytes, &mut records));
            may_be_refused(&bytes)
        };
        let (log, seq) = (LogId(1), Seq(0));
        assert!(!refused(&|mut w| w.ack(log, &[(seq, seq)])));
        assert!(refused(&|mut w| {
            w.publish(log, seq, 0, 0, &[], b"body");
        }));
        assert!(!refused(&|w| {
            w.depended_on().publish(log, seq, 0, 0, &[], b"body");
        }));
    }
}
