//! Faults in single system calls of a running broker, by `strace`.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, Home, wait_for_end};

/// Looks for the first line of the tracer for this long.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// After this long everything of a process has stopped.
const STOP_TIME: Duration = Duration::from_millis(50);

/// An injection into a process that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Injection {
    tracer: Child,
    traced: Option<Pid>,
}

impl Injection {
    /// Has `calls` of `broker` misbehave as in the language of `strace -e inject`.
    ///
    /// Errors: when there is no strace, or it may not do that.
    pub fn into(home: &Home, broker: &Broker, calls: &str, how: &str) -> Result<Self> {
        let log = home.file("strace.err");
        let child = Command::new("strace")
            .args(["-f", "-o"])
            .arg(home.file("strace.log"))
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")])
            .args(["-p", &broker.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let traced = i32::try_from(broker.pid()).ok().and_then(Pid::from_raw);
        let injection = Self { tracer: child, traced };
        let began = Instant::now();
        while !std::fs::read_to_string(&log)?.contains("attached") {
            if began.elapsed() > ATTACH_TIMEOUT {
                bail!("strace says {}", std::fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(injection)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let send = |pid: Option<Pid>, signal| pid.map(|pid| kill_process(pid, signal));
        // A call that it has begun to answer when it lets go would fail as one that does not exist,
        // so there is none: whoever is stopped has come back from its call.
        let _ = send(self.traced, Signal::STOP);
        std::thread::sleep(STOP_TIME);
        // On this signal it lets go of the process, which goes on.
        let tracer = i32::try_from(self.tracer.id()).ok().and_then(Pid::from_raw);
        let _ = send(tracer, Signal::INT);
        let _ = wait_for_end(&mut self.tracer);
        let _ = send(self.traced, Signal::CONT);
    }
}
