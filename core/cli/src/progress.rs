//! A bar that shows how far long work is, to whoever sits before a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::Instant,
};

/// Characters between the brackets.
const WIDTH: u64 = 24;

/// A bar on standard error; nothing where that is no terminal.
pub(crate) struct Bar {
    is_shown: bool,
    started: Instant,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), started: Instant::now() }
    }

    /// Shows that `done` of `total` are done.
    pub(crate) fn show(&mut self, what: &str, done: u64, total: Option<u64>) -> io::Result<()> {
        if !self.is_shown {
            return Ok(());
        }
        let line = line(what, done, total, self.started.elapsed().as_secs_f64());
        write!(io::stderr(), "\r\x1b[K{line}")
    }

    /// Leaves the bar as it is.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.is_shown { writeln!(io::stderr()) } else { Ok(()) }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, seconds: f64) -> String {
    let rate = if seconds > 0.5 { done as f64 / seconds } else { 0.0 };
    let rate = if rate >= 1.0 { format!(", {rate:.0}/s") } else { String::new() };
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{what}: {done}{rate}");
    };
    let done = done.min(total);
    let full = usize::try_from(done.saturating_mul(WIDTH) / total).unwrap_or(0);
    let (full, empty) = ("#".repeat(full), "-".repeat((WIDTH as usize).saturating_sub(full)));
    let percent = done.saturating_mul(100) / total;
    format!("{what} [{full}{empty}] {percent:>3} %  {done} of {total}{rate}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_the_work_is_far() {
        let text = line("running", 500, Some(1000), 2.0);
        let bar =
            format!("running [{}{}]  50 %  500 of 1000, 250/s", "#".repeat(12), "-".repeat(12));
        assert_eq!(text, bar);
        assert!(line("running", 9, Some(3), 0.0).contains("100 %"));
        assert_eq!(line("running", 7, None, 0.0), "running: 7");
        assert_eq!(line("running", 7, Some(0), 0.0), "running: 7");
    }
}
