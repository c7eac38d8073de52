//! Small disks of our own, and whether this machine lets us have them.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Longest time that a disk stays frozen, whatever becomes of the test.
const FROZEN_MAX_SECS: u32 = 60;
/// The disk has nothing under way when its counters stand still for this long.
const QUIET: Duration = Duration::from_millis(20);

/// An ext4 file system in a file, mounted until dropped.
#[derive(Debug)]
pub struct Disk {
    dir: tempfile::TempDir,
    options: &'static str,
}

impl Disk {
    /// Makes and mounts one of so many MiB.
    ///
    /// Errors: when this machine does not permit that, or lacks the tools.
    pub fn new(mib: u64) -> Result<Self> {
        Self::formatted(mib, &[], "loop")
    }

    /// As [`Disk::new`] with further words for `mkfs.ext4`, and these options of the mount.
    ///
    /// Errors: when this machine does not permit that, or lacks the tools.
    pub fn formatted(mib: u64, format: &[&str], options: &'static str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("polymq-disk-").tempdir()?;
        let disk = Self { dir, options };
        File::create(disk.image())?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).args(format).arg(disk.image()))?;
        std::fs::create_dir(disk.path())?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", self.options]).arg(self.image()).arg(self.path()))
    }

    fn unmount(&self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))
    }

    /// Unmounts, repairs what an error has left, and mounts again. Nobody may use it.
    ///
    /// Errors: those of the tools.
    pub fn repair(&self) -> Result<()> {
        self.unmount()?;
        let status = Command::new("fsck.ext4").args(["-p", "-f"]).arg(self.image()).output()?;
        // 1 says that something was repaired.
        if status.status.code().is_none_or(|code| code > 1) {
            bail!("fsck.ext4 says {}", String::from_utf8_lossy(&status.stdout));
        }
        self.mount()
    }

    /// Tells the file system that it has found itself damaged: it becomes read-only.
    ///
    /// Errors: where the system cannot be told so.
    pub fn abort(&self) -> Result<()> {
        let options = format!("remount,abort,{}", self.options.trim_start_matches("loop,"));
        run(Command::new("mount").args(["-o", &options]).arg(self.path()))
    }

    /// The name of its block device.
    ///
    /// Errors: when it is not mounted.
    pub fn device(&self) -> Result<String> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let path = self.path();
        let device = mounts.lines().find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            (Some(rest.split(' ').next()?) == path.to_str()).then_some(device)
        });
        device.and_then(|device| device.strip_prefix("/dev/")).map(str::to_owned).context("no disk")
    }

    /// What the disk holds at this moment, without anything that has not reached it: an image.
    /// Whoever writes must have been stopped.
    ///
    /// Errors: those of the system, or when the disk never rests.
    pub fn snapshot(&self) -> Result<PathBuf> {
        let copy = self.dir.path().join("copy");
        let counters = || -> Result<String> {
            let device = Path::new("/sys/block").join(self.device()?);
            let read = |name: &str| std::fs::read_to_string(device.join(name));
            Ok(format!("{}{}", read("stat")?, read("inflight")?))
        };
        for _ in 0..100 {
            let before = counters()?;
            std::thread::sleep(QUIET);
            if counters()? != before {
                continue;
            }
            run(Command::new("cp").args(["--sparse=always"]).arg(self.image()).arg(&copy))?;
            if counters()? == before {
                return Ok(copy);
            }
        }
        bail!("the disk never rests")
    }

    /// Puts a snapshot in the place of what is there, as after a power cut. Nobody may use the
    /// disk.
    ///
    /// Errors: those of the system.
    pub fn go_back_to(&self, snapshot: &Path) -> Result<()> {
        self.unmount()?;
        std::fs::rename(snapshot, self.image())?;
        self.mount()
    }

    /// Stops everything that writes, in the kernel, until the answer is dropped. A helper process
    /// of its own does that too, when this one cannot.
    ///
    /// Errors: where this cannot be done.
    pub fn freeze(&self) -> Result<Frozen> {
        let script = "sleep \"$1\"; fsfreeze -u \"$0\"";
        let helper = Command::new("setsid")
            .args(["sh", "-c", script])
            .arg(self.path())
            .arg(FROZEN_MAX_SECS.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let frozen = Frozen { path: self.path(), helper };
        run(Command::new("fsfreeze").arg("-f").arg(self.path()))?;
        Ok(frozen)
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

    /// Takes or gives back room until so many bytes are left.
    ///
    /// Errors: those of the system.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let filler = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path().join("filler"))?;
        let has = filler.metadata()?.len();
        let wanted = (has + self.free()?).saturating_sub(bytes);
        if wanted > has {
            rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, wanted)?;
        } else {
            filler.set_len(wanted)?;
        }
        Ok(())
    }

    /// Takes all inodes.
    ///
    /// Errors: those of the system, other than that there are none left.
    pub fn fill_with_files(&self) -> Result<()> {
        let dir = self.path().join("files");
        std::fs::create_dir(&dir)?;
        for number in 0.. {
            match File::create(dir.join(format!("{number}"))) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] or [`Disk::fill_with_files`] has taken.
    ///
    /// Errors: those of the system.
    pub fn free_up(&self) -> Result<()> {
        let (filler, files) = (self.path().join("filler"), self.path().join("files"));
        if files.exists() {
            return Ok(std::fs::remove_dir_all(files)?);
        }
        Ok(std::fs::remove_file(filler)?)
    }

    /// Bytes that can be written.
    ///
    /// Errors: those of the system.
    pub fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.path())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// A disk that takes no writes while this lives.
#[derive(Debug)]
pub struct Frozen {
    path: PathBuf,
    helper: Child,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // When the disk is not frozen any more there is nothing to do.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.path).stderr(Stdio::null()).status();
        // It leads a session of its own, and what it sleeps by belongs to that.
        if let Some(pid) = i32::try_from(self.helper.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.helper.wait();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A disk that could not be mounted cannot be unmounted either.
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// What the files below a directory take, holes left out.
pub fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
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
