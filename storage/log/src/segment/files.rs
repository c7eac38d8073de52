//! Which segments there are, and a bounded number of them open.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    disk::{Disk, DiskFile},
    error::Failure,
    format::{FLAG_SEGMENT, FileHeader, HEADER, StoreUuid},
    names::seg_name,
    part::FilePart,
    segment::table::{self, Table},
};

/// Segments that are kept open.
const OPEN_MAX: usize = 64;
/// Tables that are kept in memory; each is at most 16 KiB for a segment of 64 MiB.
const TABLES_MAX: usize = 256;

/// One segment. It may be deleted when nobody has this any more and no manifest names it.
#[derive(Debug)]
pub(crate) struct SegFile {
    number: u32,
    bytes: u64,
    /// Counts the bytes of segments that are needed no longer.
    released: OnceLock<Arc<AtomicU64>>,
}

impl SegFile {
    pub(crate) fn new(number: u32, bytes: u64) -> Self {
        Self { number, bytes, released: OnceLock::new() }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for SegFile {
    fn drop(&mut self) {
        if let Some(released) = self.released.get() {
            released.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    pub(crate) uuid: StoreUuid,
    released: Arc<AtomicU64>,
    known: Mutex<BTreeMap<u32, (Weak<SegFile>, u64)>>,
    open: Mutex<Lru<u32, Arc<dyn DiskFile>>>,
    /// Those that were opened and said who they are.
    own: Mutex<BTreeSet<u32>>,
    tables: Mutex<Lru<(u32, u64), Arc<Table>>>,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, uuid: StoreUuid) -> Self {
        Self {
            disk,
            uuid,
            released: Arc::default(),
            known: Mutex::default(),
            own: Mutex::default(),
            open: Mutex::new(Lru::new(OPEN_MAX)),
            tables: Mutex::new(Lru::new(TABLES_MAX)),
        }
    }

    /// Makes a file known; the same number is the same file.
    pub(crate) fn adopt(&self, file: Arc<SegFile>) -> Arc<SegFile> {
        let mut known = self.known.lock();
        if let Some(file) = known.get(&file.number).and_then(|(file, _)| file.upgrade()) {
            return file;
        }
        let _ = file.released.set(self.released.clone());
        known.insert(file.number, (Arc::downgrade(&file), file.bytes));
        file
    }

    /// True when the manifest, or whoever reads, needs this file.
    pub(crate) fn is_known(&self, number: u32) -> bool {
        self.known.lock().contains_key(&number)
    }

    /// The bytes of segments that could be deleted.
    pub(crate) fn released_bytes(&self) -> u64 {
        self.released.load(Ordering::Relaxed)
    }

    /// Files nobody needs any more.
    pub(crate) fn unneeded(&self) -> Vec<u32> {
        let known = self.known.lock();
        known.iter().filter(|(_, (f, _))| f.strong_count() == 0).map(|(n, _)| *n).collect()
    }

    /// Forgets a file that no manifest names any more.
    pub(crate) fn forget(&self, number: u32) {
        if let Some((_, bytes)) = self.known.lock().remove(&number) {
            let _ = self.released.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                Some(all.saturating_sub(bytes))
            });
        }
        self.open.lock().retain(|open| *open != number);
        self.own.lock().remove(&number);
        self.tables.lock().retain(|(file, _)| *file != number);
    }

    pub(crate) fn open(&self, number: u32) -> Result<Arc<dyn DiskFile>, Failure> {
        if let Some(file) = self.open.lock().get(&number) {
            return Ok(file);
        }
        let name = seg_name(number);
        let file = self
            .disk
            .open(&name)
            .map_err(|error| Failure::Damaged(format!("{name} cannot be opened: {error}")))?;
        self.open.lock().put(number, file.clone());
        Ok(file)
    }

    /// True when the file says that it is this one of this store. Another one may have been put
    /// in its place.
    pub(crate) fn has_own_header(&self, number: u32) -> bool {
        let mut header = [0; HEADER];
        let read = self.open(number).is_ok_and(|file| file.read_at(&mut header, 0).is_ok());
        read && FileHeader::decode(&header, self.uuid, number)
            .is_ok_and(|header| header.flags & FLAG_SEGMENT != 0)
    }

    /// The file of a part, once it is certain that it is its own: by its header, or by the table.
    pub(crate) fn open_part(&self, part: &FilePart) -> Result<Arc<dyn DiskFile>, Failure> {
        let number = part.file.number();
        if !self.own.lock().contains(&number) {
            if self.has_own_header(number) {
                self.own.lock().insert(number);
            } else {
                self.table_bytes(part)?;
            }
        }
        self.open(number)
    }

    /// Where the records of a part stand, one entry per 64 KiB.
    pub(crate) fn table(&self, part: &FilePart) -> Result<Arc<Table>, Failure> {
        let key = (part.file.number(), part.offset);
        if let Some(table) = self.tables.lock().get(&key) {
            return Ok(table);
        }
        let bytes = self.table_bytes(part)?;
        let table = Arc::new(table::entries(&bytes).ok_or_else(|| table::damaged(part))?);
        self.tables.lock().put(key, table.clone());
        Ok(table)
    }

    /// The whole table of a part, checked.
    pub(crate) fn table_bytes(&self, part: &FilePart) -> Result<Vec<u8>, Failure> {
        let file = self.open(part.file.number())?;
        let mut bytes = vec![0; part.table_bytes as usize];
        file.read_at(&mut bytes, part.offset + part.bytes).map_err(|_| table::damaged(part))?;
        if !table::is_valid(&bytes, self.uuid, part) {
            return Err(table::damaged(part));
        }
        Ok(bytes)
    }
}

/// A map that forgets what was not used for the longest time.
struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    used: u64,
    max: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Lru<K, V> {
    fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), used: 0, max }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.used += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.used;
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.len() >= self.max
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, (used, _))| *used)
        {
            let oldest = *oldest.0;
            self.entries.remove(&oldest);
        }
        self.used += 1;
        self.entries.insert(key, (self.used, value));
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }
}
