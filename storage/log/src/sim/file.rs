//! One open file of the simulated disk.

use std::io;

use crate::disk::DiskFile;

use super::{Inner, Inode, SECTOR, SimDisk, power_is_off, set_len};

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
    pub(super) boot: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Inner, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner.lock();
        if inner.boot != self.boot {
            return Err(power_is_off());
        }
        let mut inode = inner.inodes.remove(&self.inode).unwrap_or_default();
        let result = act(&mut inner, &mut inode);
        inner.inodes.insert(self.inode, inode);
        result
    }
}

impl DiskFile for SimFile {
    fn byte_len(&self) -> io::Result<u64> {
        self.with(|_, inode| Ok(inode.present.len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|_, inode| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let from = inode.present.get(start..).and_then(|rest| rest.get(..buf.len()));
            buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.with(|inner, inode| {
            inner.writable()?;
            let is_last = inner.operate()?;
            let mut bytes = parts.concat();
            if is_last {
                let len = bytes.len() as u64 + 1;
                bytes.truncate(usize::try_from(inner.rng.below(len)).unwrap_or(0));
            }
            inner.writes += 1;
            let is_full = inner.fail_write_at == Some(inner.writes);
            if is_full {
                bytes.truncate(bytes.len() / 2);
            }
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let end = start + bytes.len();
            let grows = end.saturating_sub(inode.present.len()) as u64;
            if let Some(capacity) = inner.capacity.filter(|_| grows > 0) {
                // The inode is taken out while it is written to.
                let used = inner.used() + inode.present.len() as u64;
                if used + grows > capacity {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            if end > inode.present.len() {
                set_len(&mut inode.present, end);
            }
            inode.present[start..end].copy_from_slice(&bytes);
            inode.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
            match (is_last, is_full) {
                (true, _) => Err(power_is_off()),
                (false, true) => Err(io::ErrorKind::StorageFull.into()),
                (false, false) => Ok(()),
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|inner, inode| {
            if inner.operate()? {
                return Err(power_is_off());
            }
            inner.syncs += 1;
            if inner.fail_sync_at.is_some_and(|at| inner.syncs == at) {
                let present = inode.present.clone();
                inode.lose_unsynced(&mut inner.rng);
                inode.present = present;
                return Err(io::Error::other("the disk did not answer"));
            }
            let len = inode.present.len();
            set_len(&mut inode.durable, len);
            for sector in std::mem::take(&mut inode.dirty) {
                let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(len));
                inode.durable[start..end].copy_from_slice(&inode.present[start..end]);
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let present = self.byte_len()?;
        if len > present {
            let zeros = vec![0; usize::try_from(len - present).map_err(io::Error::other)?];
            self.write_at(&[&zeros], present)?;
        }
        Ok(())
    }
}
