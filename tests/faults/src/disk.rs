//! Small disks of our own, and whether this machine lets us have them.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

/// An ext4 file system in a file, mounted until dropped.
#[derive(Debug)]
pub struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts one of so many MiB.
    ///
    /// Errors: when this machine does not permit that, or lacks the tools.
    pub fn new(mib: u64) -> Result<Self> {
        let disk = Self { dir: tempfile::Builder::new().prefix("polymq-disk-").tempdir()? };
        let image = disk.dir.path().join("image");
        File::create(&image)?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        std::fs::create_dir(disk.path())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Takes all room.
    ///
    /// Errors: those of the system, other than that the disk is full.
    pub fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.path().join("filler"))?;
        // The rest goes to what the file system needs to know of the file, and to small writes.
        let most = self.free()?.saturating_sub(4 << 20).max(1);
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, most)?;
        filler.seek(SeekFrom::End(0))?;
        let mut part = vec![0; 64 << 10];
        while !part.is_empty() {
            if filler.write_all(&part).and_then(|()| filler.sync_data()).is_err() {
                part.truncate(part.len() / 2);
            }
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] has taken.
    ///
    /// Errors: those of the system.
    pub fn free_up(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join("filler"))?)
    }

    /// Bytes that can be written.
    ///
    /// Errors: those of the system.
    pub fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.path())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A disk that could not be mounted cannot be unmounted either.
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// True when the program is there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir: PathBuf| Path::new(&dir).join(program).exists())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{:?} says {told}", command.get_program());
    }
    Ok(())
}
