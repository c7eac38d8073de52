//! A simulated disk: what was not synced is lost in a power cut, in part, in any order.
//!
//! Per file it keeps what is durable and what was written since, in sectors; per directory the
//! entries that were changed since its last sync. One seed, one run.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Lock};

mod file;
mod seeded;

use file::SimFile;
pub use seeded::{Rng, SimClock};

const SECTOR: usize = 512;

/// A disk of one machine. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    rng: Rng,
    inodes: BTreeMap<u64, Inode>,
    /// What a process sees, by path.
    entries: BTreeMap<String, u64>,
    durable_entries: BTreeMap<String, u64>,
    changes: Vec<Change>,
    dirs: BTreeSet<String>,
    next_inode: u64,
    /// Counts up with each power cut; handles of an older boot are dead.
    boot: u64,
    is_locked: bool,
    operations: u64,
    cut_at: Option<u64>,
    fail_sync_at: Option<u64>,
    syncs: u64,
    fail_write_at: Option<u64>,
    writes: u64,
    capacity: Option<u64>,
    is_read_only: bool,
}

#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    present: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
}

enum Change {
    Add(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

impl Change {
    fn dir(&self) -> &str {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => dir_of(path),
        }
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                rng: Rng::new(seed),
                inodes: BTreeMap::new(),
                entries: BTreeMap::new(),
                durable_entries: BTreeMap::new(),
                changes: Vec::new(),
                dirs: BTreeSet::from([String::new()]),
                next_inode: 1,
                boot: 1,
                is_locked: false,
                operations: 0,
                cut_at: None,
                fail_sync_at: None,
                syncs: 0,
                fail_write_at: None,
                writes: 0,
                capacity: None,
                is_read_only: false,
            })),
        }
    }

    /// Cuts the power during the `nth` operation from now that changes the disk.
    pub fn cut_after(&self, nth: u64) {
        let mut inner = self.inner.lock();
        inner.cut_at = Some(inner.operations + nth);
    }

    /// True when the power is off.
    pub fn is_off(&self) -> bool {
        let inner = self.inner.lock();
        inner.cut_at.is_some_and(|at| inner.operations >= at)
    }

    /// Fails the `nth` sync from now with an I/O error. Its sectors count as clean afterwards, and
    /// are on the disk or not.
    pub fn fail_sync_after(&self, nth: u64) {
        let mut inner = self.inner.lock();
        inner.fail_sync_at = Some(inner.syncs + nth);
    }

    /// Finds no space for the second half of the `nth` write from now.
    pub fn fill_during_write(&self, nth: u64) {
        let mut inner = self.inner.lock();
        inner.fail_write_at = Some(inner.writes + nth);
    }

    /// The bytes all files may take together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.lock().capacity = bytes;
    }

    /// Whether it takes no writes, and no files either.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.inner.lock().is_read_only = is_read_only;
    }

    /// The bytes all files take.
    pub fn used(&self) -> u64 {
        self.inner.lock().used()
    }

    /// Brings the power back: of what was not synced some sectors and entries are there.
    pub fn power_cycle(&self) {
        let mut guard = self.inner.lock();
        let Inner { rng, inodes, entries, durable_entries, changes, .. } = &mut *guard;
        for change in changes.drain(..) {
            if rng.chance(50) {
                apply_change(durable_entries, &change);
            }
        }
        entries.clone_from(durable_entries);
        inodes.retain(|inode, _| entries.values().any(|used| used == inode));
        for inode in inodes.values_mut() {
            inode.lose_unsynced(rng);
        }
        guard.boot += 1;
        guard.is_locked = false;
        guard.cut_at = None;
        guard.fail_sync_at = None;
        guard.fail_write_at = None;
    }

    /// Ends the process: the page cache stays.
    pub fn kill_process(&self) {
        let mut inner = self.inner.lock();
        inner.boot += 1;
        inner.is_locked = false;
        inner.fail_sync_at = None;
        inner.fail_write_at = None;
    }

    /// Flips bits of a byte of a file, durably.
    pub fn damage(&self, path: &str, offset: usize) {
        let mut inner = self.inner.lock();
        let Some(inode) = inner.entries.get(path).copied() else { return };
        if let Some(inode) = inner.inodes.get_mut(&inode) {
            for image in [&mut inode.present, &mut inode.durable] {
                if let Some(byte) = image.get_mut(offset) {
                    *byte ^= 0x5A;
                }
            }
        }
    }

    /// Puts a file with these contents there, durably.
    pub fn overwrite(&self, path: &str, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        let inode = inner.next_inode;
        inner.next_inode += 1;
        let (durable, present) = (bytes.to_vec(), bytes.to_vec());
        inner.inodes.insert(inode, Inode { durable, present, dirty: BTreeSet::new() });
        inner.entries.insert(path.to_owned(), inode);
        inner.durable_entries.insert(path.to_owned(), inode);
    }

    /// Loses a file, durably.
    pub fn lose(&self, path: &str) {
        let mut inner = self.inner.lock();
        inner.entries.remove(path);
        inner.durable_entries.remove(path);
    }

    /// Every file and its contents, as a process sees them.
    pub fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner.lock();
        let contents = |(path, inode): (&String, &u64)| {
            let present = inner.inodes.get(inode).map(|inode| inode.present.clone());
            (path.clone(), present.unwrap_or_default())
        };
        inner.entries.iter().map(contents).collect()
    }
}

impl Inode {
    fn lose_unsynced(&mut self, rng: &mut Rng) {
        let keeps_length = self.present.len() == self.durable.len() || rng.chance(50);
        let len = if keeps_length { self.present.len() } else { self.durable.len() };
        set_len(&mut self.durable, len);
        // Some cuts lose everything, some nothing, most something in between.
        let percent = [0, 10, 50, 90, 100][usize::try_from(rng.below(5)).unwrap_or(0)];
        for sector in std::mem::take(&mut self.dirty) {
            let start = (sector * SECTOR).min(len);
            let end = (start + SECTOR).min(len).min(self.present.len());
            if start < end && rng.chance(percent) {
                let torn = if rng.chance(5) { start + (end - start) / 2 } else { end };
                self.durable[start..torn].copy_from_slice(&self.present[start..torn]);
            }
        }
        self.present.clone_from(&self.durable);
    }
}

/// Like `resize`, at the speed of a copy in builds without optimisation too.
fn set_len(image: &mut Vec<u8>, len: usize) {
    match len.checked_sub(image.len()) {
        Some(more) => image.extend_from_slice(&vec![0; more]),
        None => image.truncate(len),
    }
}

fn apply_change(entries: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Add(path, inode) => {
            entries.insert(path.clone(), *inode);
        }
        Change::Remove(path) => {
            entries.remove(path);
        }
        Change::Rename(from, to, inode) => {
            entries.remove(from);
            entries.insert(to.clone(), *inode);
        }
    }
}

impl Inner {
    /// Counts an operation that changes the disk; at the cut it happens in part, or not.
    fn operate(&mut self) -> io::Result<bool> {
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            return Err(power_is_off());
        }
        self.operations += 1;
        Ok(self.cut_at.is_some_and(|at| self.operations >= at))
    }

    fn writable(&self) -> io::Result<()> {
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.writable()?;
        let is_last = self.operate()?;
        if !is_last || self.rng.chance(50) {
            apply_change(&mut self.entries, &change);
            self.changes.push(change);
        }
        if is_last { Err(power_is_off()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.entries
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.present.len() as u64)
            .sum()
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        if inner.entries.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !inner.dirs.contains(dir_of(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = inner.next_inode;
        inner.next_inode += 1;
        inner.inodes.insert(inode, Inode::default());
        inner.change(Change::Add(path.to_owned(), inode))?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: inner.boot }))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.lock();
        let inode = *inner.entries.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: inner.boot }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let inner = self.inner.lock();
        if !inner.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = inner.entries.keys().filter(|path| dir_of(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if !inner.entries.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Remove(path.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let inode = *inner.entries.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.change(Change::Rename(from.to_owned(), to.to_owned(), inode))
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.lock().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.operate()? {
            return Err(power_is_off());
        }
        let (done, rest) = std::mem::take(&mut inner.changes)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.dir() == dir);
        inner.changes = rest;
        for change in done {
            apply_change(&mut inner.durable_entries, &change);
        }
        Ok(())
    }

    fn lock(&self, _path: &str, _owner: &str) -> io::Result<Lock> {
        let mut inner = self.inner.lock();
        if inner.is_locked {
            return Ok(Lock::HeldBy("process 1".to_owned()));
        }
        inner.is_locked = true;
        Ok(Lock::Taken(Box::new(SimLock { disk: self.clone(), boot: inner.boot })))
    }
}

struct SimLock {
    disk: SimDisk,
    boot: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner.lock();
        if inner.boot == self.boot {
            inner.is_locked = false;
        }
    }
}
