//! What the system says about this process and its disk.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Has the system write no copy of our memory to the disk when the process ends badly: passwords
/// of clients that log in are in it, and it may be as large as the machine. Whoever wants one
/// raises the limit of the process that runs (`prlimit --core`).
pub(crate) fn leave_no_core_dump() {
    let maximum = getrlimit(Resource::Core).maximum;
    // Only a hard limit below 0 could refuse it.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}

/// Memory that the process holds; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| bytes_of(&text, "VmRSS:"))
}

/// Memory that the process may hold: that of the machine, or of its control group.
pub(crate) fn memory_allowed_bytes() -> Option<u64> {
    let machine =
        fs::read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, "MemTotal:"));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min()
}

/// The value behind `name` in a text of the system that counts in kibibytes.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Files that this process has open.
pub(crate) fn files_open() -> Option<u64> {
    // Linux 6.2 and later tell it as the size of the directory, which costs nothing; an entry for
    // each of thousands of sockets costs milliseconds.
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        open => Some(open),
    }
}

/// Files that it may have open.
pub(crate) fn files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Space on the disk of `path` that this process may use.
pub(crate) fn disk_free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// What the files below a directory take, holes left out.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // What cannot be looked at, or has just gone, takes nothing.
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Microseconds of the clock that never goes back, as service managers count.
pub(crate) fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (secs, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    secs.saturating_mul(1_000_000).saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_holds_some_memory_and_may_hold_more() {
        let (held, allowed) = (resident_bytes().unwrap(), memory_allowed_bytes().unwrap());
        assert!(held > 100_000 && held < allowed, "{held} of {allowed}");
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        let text = "MemTotal:       24105 kB\nMemFree: 1 kB\n";
        assert_eq!(bytes_of(text, "MemTotal:"), Some(24105 * 1024));
        assert_eq!(bytes_of(text, "MemFree:"), Some(1024));
        assert_eq!(bytes_of(text, "VmRSS:"), None);
    }

    #[test]
    fn disk_of_a_folder_has_space_and_that_of_nothing_has_not() {
        assert!(disk_free_bytes(Path::new("/")).is_some());
        assert!(disk_free_bytes(Path::new("/no/such/folder")).is_none());
    }
}
