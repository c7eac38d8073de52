//! The disk as the log sees it, so that a simulated one fits.
//!
//! Paths are relative to the data directory and use `/`. One directory level is all there is.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::direct::Direct;

/// A directory tree that survives the process.
pub trait Disk: Send + Sync {
    /// Creates a file that must not exist.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files in a directory, `""` for the top, in ascending order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Moves a file, over an existing one if need be.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes a directory unless it exists. `""` is the top.
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the lock file, and writes `owner` into it.
    fn lock(&self, path: &str, owner: &str) -> io::Result<Lock>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn byte_len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; the file must be long enough.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes `parts` one behind the other from `offset`.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// As [`write_at`](Self::write_at), where [`sync_data`](Self::sync_data) comes right behind.
    fn write_before_sync(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_at(parts, offset)
    }
    /// Makes the contents durable; the length too where reading needs it.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and attributes durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Reserves space for `len` bytes that read as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// The answer to taking a lock file.
pub enum Lock {
    /// Taken, until this is dropped.
    Taken(Box<dyn Send>),
    /// Somebody else has it; what they wrote into it.
    HeldBy(String),
}

/// A directory of the machine.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The directory at `root`; created when the store is opened.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(path))?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path(dir))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir);
        std::fs::create_dir_all(&path)?;
        // The entry of the new directory stands in its parent.
        match path.parent() {
            Some(parent) if parent == Path::new("") => File::open(".")?.sync_all(),
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn lock(&self, path: &str, owner: &str) -> io::Result<Lock> {
        let path = self.path(path);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                // The lock counts; who has it is for people, and a full disk has no room for that.
                match file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())) {
                    Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
                    Ok(()) | Err(_) => Ok(Lock::Taken(Box::new(file))),
                }
            }
            Err(TryLockError::WouldBlock) => {
                Ok(Lock::HeldBy(std::fs::read_to_string(&path)?.trim().to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile {
    file: File,
    direct: Direct,
}

impl RealFile {
    fn new(file: File) -> Self {
        Self { file, direct: Direct::default() }
    }
}

impl DiskFile for RealFile {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Writing nothing is not an error; the system would say that it has written nothing.
        io::IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match rustix::io::pwritev(&self.file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += written as u64;
            io::IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn write_before_sync(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        if self.direct.write(&self.file, parts, offset)? {
            return Ok(());
        }
        self.write_at(parts, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // Some file systems cannot reserve; then a full disk shows at the write.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(len),
            result => Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, RealDisk};

    #[test]
    fn parts_are_written_one_behind_the_other_and_empty_ones_are_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = RealDisk::new(dir.path()).create("file").unwrap();
        file.write_at(&[b""], 0).unwrap();
        file.write_at(&[], 0).unwrap();
        file.write_at(&[b"", b"ab", b"", b"cd", b""], 1).unwrap();
        let mut bytes = [9; 5];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0abcd");
    }

    #[test]
    fn what_is_written_past_the_cache_and_through_it_is_one_file() {
        // Not in memory, where there is no cache to go past.
        let dir = tempfile::TempDir::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = RealDisk::new(dir.path());
        let file = disk.create("file").unwrap();
        file.allocate(5 * 4096).unwrap();
        file.write_at(&[&[1; 4096 * 2]], 0).unwrap();
        disk.rename("file", "other").unwrap();
        disk.create("file").unwrap();
        file.write_before_sync(&[&[2; 100], &[3; 3996]], 4096).unwrap();
        file.write_at(&[&[4; 10]], 4096 + 4090).unwrap();
        file.write_before_sync(&[&[5; 4096]], 3 * 4096).unwrap();
        file.write_before_sync(&[&[6; 7]], 4 * 4096).unwrap();
        file.sync_data().unwrap();
        let pages = [
            vec![1; 4096],
            [vec![2; 100], vec![3; 3990], vec![4; 6]].concat(),
            [vec![4; 4], vec![0; 4092]].concat(),
            vec![5; 4096],
            vec![6; 7],
        ];
        let expected = pages.concat();
        let mut bytes = vec![9; expected.len()];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == expected);
    }
}
