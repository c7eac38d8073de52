//! How many connections come from where, so that nobody takes all there are.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;

/// Open connections by where they come from: an address of IPv4, or the first half of one of IPv6,
/// as that is what a household or a machine is given.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<HashMap<IpAddr, usize>>);

impl Sources {
    /// Counts one more from an address, unless there are `max` already. What it counts as is given
    /// back to [`Sources::leave`].
    pub(crate) fn enter(&self, address: IpAddr, max: usize) -> Option<IpAddr> {
        let source = source_of(address);
        let mut counts = self.0.lock();
        let count = counts.entry(source).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(source)
    }

    /// One has gone.
    pub(crate) fn leave(&self, source: IpAddr) {
        if let Entry::Occupied(mut count) = self.0.lock().entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn source_of(address: IpAddr) -> IpAddr {
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
        let sources = Sources::default();
        for (first, second, other) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ] {
            let source = sources.enter(address(first), 1).expect("room");
            assert_eq!(sources.enter(address(second), 1), None);
            let other = sources.enter(address(other), 1).expect("room for others");
            sources.leave(source);
            sources.leave(other);
        }
        assert!(sources.0.lock().is_empty(), "nothing is remembered of who has gone");
    }
}
