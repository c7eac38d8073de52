//! Who is let in: how many connections one address may have, and how fast new ones may come.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use polymq_model::Limits;

/// Addresses whose rate is known at a time.
const RATES_MAX: usize = 100_000;
/// What may come at once, as what comes in this time.
const BURST: Duration = Duration::from_secs(1);

/// The bounds on new connections of those who share it. Cloning shares it.
///
/// An address stands for itself in IPv4, and for its first half in IPv6, as that is what a
/// household or a machine is given.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: RwLock<Bounds>,
    open: Mutex<HashMap<IpAddr, usize>>,
    rates: Mutex<HashMap<IpAddr, Instant>>,
    rate: Mutex<Option<Instant>>,
}

/// What is allowed, which may change.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    per_address_max: Option<usize>,
    /// Between two connections of an address, in the long run.
    interval_per_address: Option<Duration>,
    /// The same between any two.
    interval: Option<Duration>,
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        let interval = |per_second: Option<u32>| {
            per_second.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(1) / rate)
        };
        Self {
            per_address_max: limits.connections_per_address_max,
            interval_per_address: interval(limits.connection_rate_per_address_max),
            interval: interval(limits.connection_rate_max),
        }
    }
}

/// A connection that counts as one of its address until this is dropped.
#[derive(Debug)]
pub struct Entered {
    door: Door,
    source: Option<IpAddr>,
}

impl Door {
    /// A door with these limits, through which nobody has come.
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            bounds: RwLock::new(Bounds::new(limits)),
            open: Mutex::default(),
            rates: Mutex::default(),
            rate: Mutex::default(),
        }))
    }

    /// Other bounds from now on. Who came while an address was not bounded is not counted.
    pub fn set(&self, limits: &Limits) {
        *self.0.bounds.write() = Bounds::new(limits);
    }

    fn bounds(&self) -> Bounds {
        *self.0.bounds.read()
    }

    /// Lets a connection in; `None` when its address has as many as it may.
    pub fn enter(&self, from: Option<IpAddr>) -> Option<Entered> {
        let door = self.clone();
        let (Some(max), Some(from)) = (self.bounds().per_address_max, from) else {
            return Some(Entered { door, source: None });
        };
        let source = source_of(from);
        let mut open = self.0.open.lock();
        let count = open.entry(source).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Entered { door, source: Some(source) })
    }

    /// False when an address opens connections faster than it may.
    pub fn admits(&self, from: IpAddr, now: Instant) -> bool {
        let Some(interval) = self.bounds().interval_per_address else { return true };
        let mut rates = self.0.rates.lock();
        if rates.len() >= RATES_MAX {
            rates.retain(|_, next| *next > now);
            if rates.len() >= RATES_MAX {
                // They come from everywhere; forgetting is better than growing.
                rates.clear();
            }
        }
        let next = rates.entry(source_of(from)).or_insert(now);
        let after = (*next).max(now) + interval;
        let is_slow = after <= now + BURST.max(interval);
        if is_slow {
            *next = after;
        }
        is_slow
    }

    /// How long a connection waits before it is served, because all together come too fast.
    pub fn delay(&self, now: Instant) -> Duration {
        let Some(interval) = self.bounds().interval else { return Duration::ZERO };
        let mut next = self.0.rate.lock();
        let after = next.unwrap_or(now).max(now) + interval;
        *next = Some(after);
        after.saturating_duration_since(now + BURST.max(interval))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        if let Entry::Occupied(mut count) = self.door.0.open.lock().entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What an address counts as.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn halves_of_ipv6_and_mapped_addresses_count_together() {
        let limits = Limits { connections_per_address_max: Some(1), ..Limits::default() };
        let door = Door::new(&limits);
        for (first, second, other) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ] {
            let _entered = door.enter(Some(address(first))).expect("room");
            assert!(door.enter(Some(address(second))).is_none());
            door.enter(Some(address(other))).expect("room for others");
        }
        assert!(door.0.open.lock().is_empty(), "nothing is remembered of who has gone");
    }

    #[test]
    fn an_address_comes_as_fast_as_it_may_and_others_are_not_held_up() {
        let limits = Limits { connection_rate_per_address_max: Some(10), ..Limits::default() };
        let (door, start) = (Door::new(&limits), Instant::now());
        let (fast, slow) = (address("192.0.2.1"), address("192.0.2.2"));
        let admitted = (0..100).filter(|_| door.admits(fast, start)).count();
        assert_eq!(admitted, 10, "what may come in a second");
        assert!(door.admits(slow, start));
        let later = start + Duration::from_millis(500);
        let admitted = (0..100).filter(|_| door.admits(fast, later)).count();
        assert_eq!(admitted, 5, "half a second later");
        assert!(Door::new(&Limits::default()).admits(fast, start));
    }

    #[test]
    fn less_than_one_a_second_is_not_needed_and_one_is_possible() {
        let limits = Limits { connection_rate_per_address_max: Some(1), ..Limits::default() };
        let (door, start) = (Door::new(&limits), Instant::now());
        assert!(door.admits(address("192.0.2.1"), start));
        assert!(!door.admits(address("192.0.2.1"), start));
        assert!(door.admits(address("192.0.2.1"), start + Duration::from_secs(1)));
    }

    #[test]
    fn all_together_wait_for_their_turn() {
        let limits = Limits { connection_rate_max: Some(10), ..Limits::default() };
        let (door, start) = (Door::new(&limits), Instant::now());
        let delays: Vec<_> = (0..12).map(|_| door.delay(start).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200]);
        assert_eq!(door.delay(start + Duration::from_secs(5)), Duration::ZERO);
        assert_eq!(Door::new(&Limits::default()).delay(start), Duration::ZERO);
    }
}
