//! Faults in single system calls of a running broker, by `strace`.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, Home, stop_threads, wait_for_end};

/// Looks for the first line of the tracer for this long.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// An injection into a process that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Injection {
    tracer: Child,
    /// Number of the process that is traced.
    traced: u32,
}

impl Injection {
    /// Has `calls` of `broker` misbehave as in the language of `strace -e inject`.
    ///
    /// Errors: when there is no strace, or it may not do that.
    pub fn into(home: &Home, broker: &Broker, calls: &str, how: &str) -> Result<Self> {
        Self::into_files(home, broker, calls, how, &[])
    }

    /// As [`Injection::into`], where only calls about these files of the data directory misbehave.
    ///
    /// Errors: when there is no strace, or it may not do that.
    pub fn into_files(
        home: &Home,
        broker: &Broker,
        calls: &str,
        how: &str,
        files: &[&str],
    ) -> Result<Self> {
        let files = files.iter().map(|file| home.data().join(file));
        let files = files.flat_map(|file| ["-P".into(), file.into_os_string()]);
        let log = home.file("strace.err");
        // The tracer takes one thread after the other, and none may do meanwhile what another one
        // could not.
        broker.pause()?;
        let child = Command::new("strace")
            .args(["-f", "-o"])
            .arg(home.file("strace.log"))
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")])
            .args(files)
            .args(["-p", &broker.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                broker.go_on()?;
                return Err(error.into());
            }
        };
        // What is dropped lets the broker go on.
        let injection = Self { tracer: child, traced: broker.pid() };
        let began = Instant::now();
        while !std::fs::read_to_string(&log)?.contains("attached") {
            if began.elapsed() > ATTACH_TIMEOUT {
                bail!("strace says {}", std::fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        broker.go_on()?;
        Ok(injection)
    }
}

/// The words that start a tracer, which starts the broker and ends it as a thread enters its call
/// number `when` of these calls. `files` of the data directory are what the calls are about, `*` in
/// them for any number; none for all files.
pub fn killer(home: &Home, calls: &str, files: &[&str], when: u32) -> Vec<String> {
    let (log, data) = (home.file("strace.log"), home.data());
    let inject = format!("inject={calls}:signal=KILL:when={when}");
    let (log, trace) = (log.to_string_lossy(), format!("trace={calls}"));
    let mut words: Vec<_> =
        ["strace", "-D", "-f", "-o", &log, "-e", &trace, "-e", &inject].map(str::to_owned).into();
    for file in files {
        // Numbers grow, and a run does not get further than this.
        let numbers = if file.contains('*') { 1..3000 } else { 1..2 };
        for number in numbers {
            let path = data.join(file.replace('*', &number.to_string()));
            words.extend(["-P".to_owned(), path.to_string_lossy().into_owned()]);
        }
    }
    words
}

impl Drop for Injection {
    fn drop(&mut self) {
        let send = |process: u32, signal| {
            let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
            pid.map(|pid| kill_process(pid, signal))
        };
        // A call that it has begun to answer when it lets go would fail as one that does not exist,
        // so there is none: whoever is stopped has come back from its call.
        let _ = stop_threads(self.traced);
        // On this signal it lets go of the process, which goes on.
        let _ = send(self.tracer.id(), Signal::INT);
        let _ = wait_for_end(&mut self.tracer);
        let _ = send(self.traced, Signal::CONT);
    }
}
