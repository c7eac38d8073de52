//! The clock of connections that pause: one thread that wakes them together, tick by tick.
//!
//! The runtime's timers count in milliseconds, which is too coarse.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// The time between two ticks, less what the system takes to wake the thread.
const PERIOD: Duration = Duration::from_micros(20);
/// Ticks that nobody waited for, after which the thread sleeps until somebody does.
const IDLE_TICKS_MAX: u32 = 16;

/// Wakes who waits for the next tick. Its thread starts with the first who does.
#[derive(Default)]
pub(crate) struct Pacer {
    shared: OnceLock<Option<Arc<Shared>>>,
}

/// The tick that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    called: Condvar,
    /// Ticks so far.
    ticks: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// With the tick that each waits for.
    wakers: Vec<(Tick, Waker)>,
    asleep: bool,
    ended: bool,
}

impl Pacer {
    /// Wakes `waker` when so many ticks have come; `None` when there is no thread to do it.
    pub(crate) fn wait(&self, ticks: u8, waker: &Waker) -> Option<Tick> {
        let shared = self.shared.get_or_init(start).as_ref()?;
        let mut waiting = shared.waiting.lock();
        let tick = Tick(shared.ticks.load(Ordering::Relaxed) + u64::from(ticks));
        waiting.wakers.push((tick, waker.clone()));
        if waiting.asleep {
            waiting.asleep = false;
            shared.called.notify_one();
        }
        Some(tick)
    }

    /// True when the tick has come.
    pub(crate) fn has_come(&self, tick: Tick) -> bool {
        let shared = self.shared.get().and_then(Option::as_ref);
        shared.is_none_or(|shared| shared.ticks.load(Ordering::Acquire) >= tick.0)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        if let Some(Some(shared)) = self.shared.get() {
            shared.waiting.lock().ended = true;
            shared.called.notify_one();
        }
    }
}

fn start() -> Option<Arc<Shared>> {
    let shared = Arc::<Shared>::default();
    let theirs = Arc::clone(&shared);
    thread::Builder::new().name("polymq-pacer".into()).spawn(move || run(&theirs)).ok()?;
    Some(shared)
}

fn run(shared: &Shared) {
    // Without this the system adds 50 us to each sleep. Where it is refused, pauses are longer.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let (mut due, mut idle_ticks) = (Vec::new(), 0);
    loop {
        let mut waiting = shared.waiting.lock();
        while !waiting.ended && idle_ticks >= IDLE_TICKS_MAX && waiting.wakers.is_empty() {
            waiting.asleep = true;
            shared.called.wait(&mut waiting);
        }
        if waiting.ended {
            return;
        }
        drop(waiting);
        thread::sleep(PERIOD);
        let mut waiting = shared.waiting.lock();
        let tick = Tick(shared.ticks.fetch_add(1, Ordering::Release) + 1);
        due.extend(waiting.wakers.extract_if(.., |(at, _)| *at <= tick));
        let is_idle = due.is_empty() && waiting.wakers.is_empty();
        drop(waiting);
        idle_ticks = if is_idle { idle_ticks + 1 } else { 0 };
        due.drain(..).for_each(|(_, waker)| Waker::wake(waker));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        task::Wake,
    };

    use super::*;

    struct Told(Sender<()>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    fn told() -> (Waker, Receiver<()>) {
        let (sender, receiver) = channel();
        (Arc::new(Told(sender)).into(), receiver)
    }

    #[test]
    fn everybody_who_waits_is_woken_once_and_the_tick_has_come() {
        let pacer = Pacer::default();
        for _ in 0..3 {
            let (waker, woken) = told();
            let ticks: Vec<_> = (0..5).map(|ticks| pacer.wait(ticks, &waker).unwrap()).collect();
            drop(waker);
            assert_eq!(woken.iter().count(), 5);
            assert!(ticks.into_iter().all(|tick| pacer.has_come(tick)));
            // Let it go to sleep: the next waiter has to call it.
            while !pacer.shared.get().unwrap().as_ref().unwrap().waiting.lock().asleep {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn who_waits_for_a_later_tick_is_not_woken_by_an_earlier_one() {
        let pacer = Pacer::default();
        let (early, early_woken) = told();
        let (late, late_woken) = told();
        let late = pacer.wait(50, &late).unwrap();
        while late_woken.try_recv().is_err() {
            pacer.wait(1, &early).unwrap();
            early_woken.recv().unwrap();
        }
        assert!(pacer.has_come(late));
    }

    #[test]
    fn thread_ends_with_its_owner() {
        let pacer = Pacer::default();
        let (waker, woken) = told();
        pacer.wait(1, &waker).unwrap();
        woken.recv().unwrap();
        let shared = Arc::downgrade(pacer.shared.get().unwrap().as_ref().unwrap());
        drop(pacer);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
