//! What the machine gives to the process.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::Finding;
use crate::{
    config::{Config, value::MemoryMark},
    process,
};

/// Files that the broker has open beside sockets.
const OTHER_FILES: u64 = 512;
/// What a broker wants at least.
const MEMORY_MIN: u64 = 256 << 20;
/// The first moment of 2025: a clock before that was never set.
const CLOCK_MIN: Duration = Duration::from_secs(1_735_689_600);
/// The backlog that listeners ask for.
const BACKLOG: u64 = 4096;

pub(super) fn files(config: &Config) -> Vec<Finding> {
    let sockets = u64::from(config.limits.connections) + u64::from(config.http.connections);
    let wanted = sockets + OTHER_FILES;
    let finding = match process::files_max() {
        None => Finding::ok("open files", "no bound"),
        Some(max) if max >= wanted => Finding::ok("open files", format!("{max} allowed")),
        Some(max) => Finding::warning(
            "open files",
            format!("{max} allowed, and {sockets} connections are configured"),
            format!(
                "set LimitNOFILE={wanted} in the unit (`systemctl edit polymq`), or `ulimit -n \
                 {wanted}`; or lower limits.connections"
            ),
        ),
    };
    vec![finding]
}

pub(super) fn memory(config: &Config) -> Vec<Finding> {
    let Some(allowed) = process::memory_allowed_bytes() else {
        return vec![Finding::warning(
            "memory",
            "the system does not say how much there is",
            "set limits.memory_high to a size",
        )];
    };
    let high = match config.limits.memory_high {
        MemoryMark::Bytes(bytes) => bytes.0,
        MemoryMark::Percent(share) => allowed / 100 * u64::from(share),
    };
    let (shown, mark) = (allowed >> 20, high >> 20);
    vec![if high > allowed / 10 * 9 {
        Finding::warning(
            "memory",
            format!("publishers wait above {mark} MiB, and there are {shown} MiB"),
            "lower limits.memory_high to 60%, so that the system does not end the process first",
        )
    } else if high < MEMORY_MIN {
        Finding::warning(
            "memory",
            format!("publishers wait above {mark} MiB"),
            "give the process more memory, or raise limits.memory_high",
        )
    } else {
        Finding::ok("memory", format!("publishers wait above {mark} of {shown} MiB"))
    }]
}

pub(super) fn clock() -> Vec<Finding> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if since < CLOCK_MIN {
        let advice = "set the clock; tokens, certificates and expiry go by it";
        return vec![Finding::failed("clock", "the clock was never set", advice)];
    }
    // Only where systemd keeps the clock does it say so in a file.
    let keeper = fs::exists("/run/systemd/timesync").unwrap_or(false);
    let is_kept = fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false);
    vec![if keeper && !is_kept {
        let advice = "see `timedatectl`; tokens, certificates and expiry go by the clock";
        Finding::warning("clock", "the clock is not synchronized", advice)
    } else {
        Finding::ok("clock", "set")
    }]
}

/// Settings of the kernel that a broker feels.
pub(super) fn kernel() -> Vec<Finding> {
    let mut findings = Vec::new();
    let number = |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    if let Some(backlog) = number("/proc/sys/net/core/somaxconn").filter(|max| *max < BACKLOG) {
        findings.push(Finding::warning(
            "kernel",
            format!("net.core.somaxconn is {backlog}: a burst of clients is refused"),
            format!("sysctl -w net.core.somaxconn={BACKLOG}"),
        ));
    }
    let pages = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if pages.is_ok_and(|text| text.contains("[always]")) {
        findings.push(Finding::warning(
            "kernel",
            "transparent huge pages are always used: the process holds more memory than it needs",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ));
    }
    if let Some(swappiness) = number("/proc/sys/vm/swappiness").filter(|value| *value > 60) {
        findings.push(Finding::warning(
            "kernel",
            format!("vm.swappiness is {swappiness}: queues may be swapped out"),
            "sysctl -w vm.swappiness=10",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("kernel", "nothing in the way"));
    }
    findings
}
