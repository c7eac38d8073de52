//! What the kernel says about a tree of processes: CPU time, memory, and ending all of it.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process and its descendants as they were when looked at.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pids: Vec<u32>,
}

impl Tree {
    /// Finds the descendants of `roots`.
    pub fn of(roots: &[u32]) -> Self {
        let mut pids = roots.to_vec();
        let parents = parents();
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(
                parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child),
            );
            next += 1;
        }
        Self { pids }
    }

    /// The process running this code.
    pub fn own() -> Self {
        Self { pids: vec![std::process::id()] }
    }

    /// Whether there is any process to look at.
    pub fn is_known(&self) -> bool {
        !self.pids.is_empty()
    }

    /// User and system time spent so far.
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = self.pids.iter().filter_map(|&pid| ticks(pid)).sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let pages: u64 = self.pids.iter().filter_map(|&pid| resident_pages(pid)).sum();
        pages * rustix::param::page_size() as u64
    }

    /// Stops every process from running until [`Tree::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets every process run again.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends every process at once; paused first, so that none can start another meanwhile.
    pub fn kill(&self) {
        self.pause();
        self.signal(Signal::KILL);
    }

    /// Sends a signal to every process; one that is gone already does not matter.
    fn signal(&self, signal: Signal) {
        for pid in self.pids.iter().filter_map(|&pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Asks one process to stop in an orderly way.
pub fn terminate(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Pairs of process and parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat_field(pid, 4)? as u32))).collect()
}

fn ticks(pid: u32) -> Option<u64> {
    Some(stat_field(pid, 14)? + stat_field(pid, 15)?)
}

/// Reads a numeric field of `/proc/<pid>/stat` by its number in proc(5).
fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    field_after_name(&stat, number)
}

/// The second field is a name that may hold spaces and parentheses, so counting starts behind it.
fn field_after_name(stat: &str, number: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn resident_pages(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_counted_behind_a_name_with_spaces() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 0 1 2 3 4 500 60 0";
        assert_eq!(field_after_name(stat, 4), Some(7));
        assert_eq!(field_after_name(stat, 14), Some(500));
        assert_eq!(field_after_name(stat, 15), Some(60));
        assert_eq!(field_after_name(stat, 99), None);
    }

    #[test]
    fn own_process_uses_memory_and_has_no_unknown_fields() {
        assert!(Tree::own().resident() > 100_000);
        assert!(ticks(std::process::id()).is_some());
    }
}
