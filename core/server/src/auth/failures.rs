//! Counts failed logins of a user from an address, and of an address, so that passwords cannot be
//! tried at speed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use polymq_driver::source_of;

const WINDOW: Duration = Duration::from_secs(60);
/// Between lines of the log.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Pairs of user and address that are counted at a time; the oldest windows go first.
const ENTRIES_MAX: usize = 10_000;
/// A longer name is cut: it is nobody's, and must not cost memory.
const USER_BYTES_MAX: usize = 64;

/// Failures within the running minute, per user and address, and per address.
pub(crate) struct LoginFailures {
    /// 0 for no bound.
    per_user_max: AtomicU32,
    /// 0 for no bound.
    per_address_max: AtomicU32,
    counts: Mutex<HashMap<Key, (Instant, u32)>>,
    /// When the log was told last, and failures since then.
    unsaid: Mutex<(Option<Instant>, u32)>,
}

/// What failures are counted of.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// Of a user from an address, if it has one.
    User(String, Option<IpAddr>),
    /// Of an address as a whole.
    Address(IpAddr),
}

impl LoginFailures {
    pub(crate) fn new(per_user_max: u32, per_address_max: u32) -> Self {
        let (per_user_max, per_address_max) = (per_user_max.into(), per_address_max.into());
        Self { per_user_max, per_address_max, counts: Mutex::default(), unsaid: Mutex::default() }
    }

    /// Other bounds from now on, also on what was counted before.
    pub(crate) fn set_bounds(&self, per_user_max: u32, per_address_max: u32) {
        self.per_user_max.store(per_user_max, Ordering::Relaxed);
        self.per_address_max.store(per_address_max, Ordering::Relaxed);
    }

    /// Whether this user may try again from this address.
    pub(crate) fn allows(&self, user: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let counts = self.counts.lock();
        let is_below = |key: Key, max: &AtomicU32| {
            let max = max.load(Ordering::Relaxed);
            max == 0
                || counts.get(&key).is_none_or(|(since, count)| {
                    *count < max || now.duration_since(*since) >= WINDOW
                })
        };
        is_below(key(user, address), &self.per_user_max)
            && address.is_none_or(|from| is_below(source(from), &self.per_address_max))
    }

    /// Counts a failure and returns how many of the user there are in this window.
    pub(crate) fn note(&self, user: &str, address: Option<IpAddr>, now: Instant) -> u32 {
        if let Some(from) = address.filter(|_| self.per_address_max.load(Ordering::Relaxed) > 0) {
            self.add(source(from), now);
        }
        self.add(key(user, address), now)
    }

    fn add(&self, key: Key, now: Instant) -> u32 {
        let mut counts = self.counts.lock();
        if counts.len() >= ENTRIES_MAX {
            counts.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if counts.len() >= ENTRIES_MAX {
                // Somebody tries more names than we count; forgetting is better than growing. There
                // are fewer addresses, and theirs is what still holds them up.
                counts.retain(|key, _| matches!(key, Key::Address(_)));
            }
            if counts.len() >= ENTRIES_MAX {
                counts.clear();
            }
        }
        let (since, count) = counts.entry(key).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count
    }

    /// Counts a failure for the log. Returns how many a line stands for when one is due.
    pub(crate) fn to_say(&self, now: Instant) -> Option<u32> {
        let mut unsaid = self.unsaid.lock();
        unsaid.1 = unsaid.1.saturating_add(1);
        let is_due = unsaid.0.is_none_or(|last| now.duration_since(last) >= SAY_EVERY);
        is_due.then(|| std::mem::replace(&mut *unsaid, (Some(now), 0)).1)
    }

    /// Forgets the failures of a user who has logged in. Those of the address stay, or whoever has
    /// one password could guess others between his logins.
    pub(crate) fn forget(&self, user: &str, address: Option<IpAddr>) {
        self.counts.lock().remove(&key(user, address));
    }
}

fn source(address: IpAddr) -> Key {
    Key::Address(source_of(address))
}

fn key(user: &str, address: Option<IpAddr>) -> Key {
    let mut end = user.len().min(USER_BYTES_MAX);
    while !user.is_char_boundary(end) {
        end -= 1;
    }
    Key::User(user[..end].to_owned(), address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn too_many_failures_close_the_door_for_a_minute() {
        let (failures, now) = (LoginFailures::new(3, 0), Instant::now());
        for _ in 0..3 {
            assert!(failures.allows("ann", HERE, now));
            failures.note("ann", HERE, now);
        }
        assert!(!failures.allows("ann", HERE, now));
        assert!(failures.allows("bob", HERE, now));
        assert!(failures.allows("ann", None, now));
        assert!(failures.allows("ann", HERE, now + WINDOW));
    }

    #[test]
    fn too_many_names_from_one_address_close_it_for_everybody() {
        let (failures, now) = (LoginFailures::new(0, 3), Instant::now());
        for name in ["a", "b", "c"] {
            assert!(failures.allows("ann", HERE, now));
            failures.note(name, HERE, now);
        }
        assert!(!failures.allows("ann", HERE, now));
        failures.forget("ann", HERE);
        assert!(!failures.allows("ann", HERE, now), "a login does not open it");
        let elsewhere = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
        assert!(failures.allows("ann", elsewhere, now));
        assert!(failures.allows("ann", None, now));
        assert!(failures.allows("ann", HERE, now + WINDOW));
    }

    #[test]
    fn another_bound_holds_for_what_was_counted_before() {
        let (failures, now) = (LoginFailures::new(1, 0), Instant::now());
        failures.note("ann", HERE, now);
        assert!(!failures.allows("ann", HERE, now));
        failures.set_bounds(2, 1);
        assert!(failures.allows("ann", HERE, now), "addresses were not counted before");
        failures.note("bob", HERE, now);
        assert!(!failures.allows("ann", HERE, now));
        failures.set_bounds(0, 0);
        assert!(failures.allows("ann", HERE, now));
    }

    #[test]
    fn success_forgets_failures() {
        let (failures, now) = (LoginFailures::new(1, 0), Instant::now());
        failures.note("ann", HERE, now);
        failures.forget("ann", HERE);
        assert!(failures.allows("ann", HERE, now));
    }

    #[test]
    fn names_beyond_counting_do_not_cost_memory() {
        let (failures, now) = (LoginFailures::new(1, 0), Instant::now());
        for number in 0..=ENTRIES_MAX {
            failures.note(&format!("{number}{}", "é".repeat(100)), HERE, now);
        }
        assert!(failures.counts.lock().len() <= ENTRIES_MAX);
    }

    #[test]
    fn the_log_has_one_line_a_second_with_what_it_stands_for() {
        let (failures, now) = (LoginFailures::new(0, 0), Instant::now());
        assert_eq!(failures.to_say(now), Some(1));
        assert_eq!(failures.to_say(now), None);
        assert_eq!(failures.to_say(now + SAY_EVERY / 2), None);
        assert_eq!(failures.to_say(now + SAY_EVERY), Some(3));
        assert_eq!(failures.to_say(now + SAY_EVERY * 3), Some(1));
    }

    #[test]
    fn zero_is_no_bound() {
        let (failures, now) = (LoginFailures::new(0, 0), Instant::now());
        failures.note("ann", HERE, now);
        assert!(failures.allows("ann", HERE, now));
    }
}
