//! A disk that is read and never written: what is changed lives in memory and goes with it. So a
//! store can be opened, recovered and read without a byte of it being touched.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Lock};

/// What is kept of a changed file at a time.
const PAGE: usize = 4096;

/// A directory of the machine, with changes in memory.
pub struct Overlay {
    root: PathBuf,
    /// By path: the file as it is now, or that it is gone.
    files: Mutex<BTreeMap<String, Option<Arc<OverlayFile>>>>,
}

impl Overlay {
    /// Over the directory at `root`, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), files: Mutex::default() }
    }

    fn find(&self, path: &str) -> io::Result<Arc<OverlayFile>> {
        let mut files = self.files.lock();
        match files.get(path) {
            Some(Some(file)) => return Ok(file.clone()),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => {}
        }
        let under = File::open(self.root.join(path))?;
        let len = under.metadata()?.len();
        let changes = Mutex::new(Changes { under_len: len, len, pages: BTreeMap::new() });
        let file = Arc::new(OverlayFile { under: Some(under), changes });
        files.insert(path.to_owned(), Some(file.clone()));
        Ok(file)
    }
}

impl Disk for Overlay {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let changes = Mutex::new(Changes { under_len: 0, len: 0, pages: BTreeMap::new() });
        let file = Arc::new(OverlayFile { under: None, changes });
        self.files.lock().insert(path.to_owned(), Some(file.clone()));
        Ok(file)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.find(path)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        match std::fs::read_dir(self.root.join(dir)) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_file() {
                        names.insert(entry.file_name().to_string_lossy().into_owned(), true);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for (path, file) in self.files.lock().iter() {
            let (of, name) = path.rsplit_once('/').unwrap_or(("", path));
            if of == dir {
                names.insert(name.to_owned(), file.is_some());
            }
        }
        Ok(names.into_iter().filter_map(|(name, exists)| exists.then_some(name)).collect())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.find(path)?;
        self.files.lock().insert(path.to_owned(), None);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        let mut files = self.files.lock();
        files.insert(from.to_owned(), None);
        files.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    /// Keeps a broker from starting meanwhile, and writes nothing into the file.
    fn lock(&self, path: &str, _owner: &str) -> io::Result<Lock> {
        let path = self.root.join(path);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Lock::Taken(Box::new(())));
            }
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(Lock::Taken(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => held_by(&path),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn held_by(path: &Path) -> io::Result<Lock> {
    Ok(Lock::HeldBy(std::fs::read_to_string(path)?.trim().to_owned()))
}

struct OverlayFile {
    under: Option<File>,
    changes: Mutex<Changes>,
}

struct Changes {
    /// Up to here the file below shows through.
    under_len: u64,
    len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl OverlayFile {
    /// One page as the file below has it.
    fn page_below(&self, changes: &Changes, page: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut bytes = Box::new([0; PAGE]);
        let from = page * PAGE as u64;
        let len = changes.under_len.saturating_sub(from).min(PAGE as u64);
        if let (Some(under), Ok(len)) = (&self.under, usize::try_from(len)) {
            under.read_exact_at(&mut bytes[..len], from)?;
        }
        Ok(bytes)
    }
}

/// The parts of pages that `len` bytes from `offset` touch: page, where in it, how many.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (page, within) = (at / PAGE as u64, at % PAGE as u64);
        let count = (PAGE as u64 - within).min(end.saturating_sub(at));
        at += count;
        (count > 0).then_some((page, within as usize, count as usize))
    })
}

impl DiskFile for OverlayFile {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.changes.lock().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let changes = self.changes.lock();
        let end = offset + buf.len() as u64;
        if end > changes.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(under) = self.under.as_ref().filter(|_| end <= changes.under_len) {
            under.read_exact_at(buf, offset)?;
        } else {
            let mut at = 0;
            for (page, within, count) in spans(offset, buf.len()) {
                let below = self.page_below(&changes, page)?;
                buf[at..at + count].copy_from_slice(&below[within..within + count]);
                at += count;
            }
        }
        let (first, last) = (offset / PAGE as u64, end.saturating_sub(1) / PAGE as u64);
        if !buf.is_empty() && changes.pages.range(first..=last).next().is_some() {
            let mut at = 0;
            for (page, within, count) in spans(offset, buf.len()) {
                if let Some(changed) = changes.pages.get(&page) {
                    buf[at..at + count].copy_from_slice(&changed[within..within + count]);
                }
                at += count;
            }
        }
        Ok(())
    }

    fn write_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut changes = self.changes.lock();
        for part in parts {
            let mut rest = *part;
            for (page, within, count) in spans(offset, part.len()) {
                let (now, later) = rest.split_at(count);
                rest = later;
                let is_beyond = page * PAGE as u64 >= changes.under_len;
                // Files that are prepared with zeros are large.
                let is_nothing = is_beyond && now.iter().all(|byte| *byte == 0);
                if is_nothing && !changes.pages.contains_key(&page) {
                    continue;
                }
                if !changes.pages.contains_key(&page) {
                    let below = self.page_below(&changes, page)?;
                    changes.pages.insert(page, below);
                }
                if let Some(bytes) = changes.pages.get_mut(&page) {
                    bytes[within..within + count].copy_from_slice(now);
                }
            }
            offset += part.len() as u64;
            changes.len = changes.len.max(offset);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes.lock();
        changes.len = changes.len.max(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::disk::RealDisk;

    fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            all.insert(name, std::fs::read(entry.path()).unwrap());
        }
        all
    }

    #[test]
    fn what_is_changed_is_read_back_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let real = RealDisk::new(dir.path());
        let file = real.create("kept").unwrap();
        file.write_at(&[&[7; 10_000]], 0).unwrap();
        real.create("other").unwrap();
        let before = contents(dir.path());

        let overlay = Overlay::new(dir.path());
        let file = overlay.open("kept").unwrap();
        file.write_at(&[&[1; 10], &[2; 5000]], 4090).unwrap();
        file.write_at(&[&[3; 3]], 20_000).unwrap();
        assert_eq!(file.byte_len().unwrap(), 20_003);
        let mut all = vec![0; 20_003];
        overlay.open("kept").unwrap().read_at(&mut all, 0).unwrap();
        let parts =
            [vec![7; 4090], vec![1; 10], vec![2; 5000], vec![7; 900], vec![0; 10_000], vec![3; 3]];
        assert_eq!(all, parts.concat());
        assert!(file.read_at(&mut [0; 2], 20_002).is_err());

        overlay.remove("other").unwrap();
        assert!(overlay.open("other").is_err());
        let made = overlay.create("made").unwrap();
        made.write_at(&[b"x"], 0).unwrap();
        overlay.rename("made", "other").unwrap();
        assert!(overlay.create("other").is_err());
        overlay.create("dir/file").unwrap();
        assert_eq!(overlay.list("").unwrap(), ["kept", "other"]);
        assert_eq!(overlay.list("dir").unwrap(), ["file"]);
        assert_eq!(contents(dir.path()), before);
    }
}
