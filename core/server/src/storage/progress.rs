//! A line on standard error that says how far long work has come, where people look at it.

use std::{
    cell::Cell,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use polymq_store::copy::Progress;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

/// The line. It goes when it is dropped.
pub(super) struct Bar {
    doing: String,
    /// Everything in the unit that counts; 0 when that is told with each step.
    all: u64,
    is_seen: bool,
    started: Instant,
    shown_at: Cell<Option<Instant>>,
}

impl Bar {
    /// One that counts messages.
    pub(super) fn new(doing: &str, all: Progress) -> Self {
        Self::counting(doing, all.messages)
    }

    /// One that counts bytes.
    pub(super) fn of_bytes(doing: &str) -> Self {
        Self::counting(doing, 0)
    }

    fn counting(doing: &str, all: u64) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        let (started, shown_at) = (Instant::now(), Cell::new(None));
        Self { doing: doing.to_owned(), all, is_seen, started, shown_at }
    }

    pub(super) fn show(&self, done: Progress) {
        self.draw(done.messages, self.all, "messages");
    }

    pub(super) fn show_bytes(&self, done: u64, all: u64) {
        self.draw(done >> 20, all >> 20, "MiB");
    }

    fn draw(&self, done: u64, all: u64, unit: &str) {
        let is_due = self.shown_at.get().is_none_or(|at| at.elapsed() >= EVERY);
        if self.is_seen && is_due {
            self.shown_at.set(Some(Instant::now()));
            let line = line(&self.doing, (done, all, unit), self.started.elapsed());
            // Nobody is left to tell when standard error is gone.
            let _ = write!(std::io::stderr().lock(), "\r{line}\x1b[K");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown_at.get().is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(doing: &str, (done, all, unit): (u64, u64, &str), took: Duration) -> String {
    let share = if all == 0 { 1.0 } else { (done as f64 / all as f64).min(1.0) };
    let full = (share * WIDTH as f64) as usize;
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    format!(
        "{doing} [{}{}] {:3.0} %  {done} of {all} {unit}, {rate:.0} a second",
        "#".repeat(full),
        " ".repeat(WIDTH - full),
        share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_says_how_far_it_has_come() {
        let half = line("copying", (500, 1000, "messages"), Duration::from_secs(5));
        let bar = format!("[{}{}]", "#".repeat(15), " ".repeat(15));
        assert_eq!(half, format!("copying {bar}  50 %  500 of 1000 messages, 100 a second"));
        assert!(line("x", (0, 0, "MiB"), Duration::ZERO).contains("100 %"));
    }
}
