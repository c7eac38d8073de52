//! TLS handshakes that are under way: so many at most, and the oldest goes first. One that is meant
//! is done in a few round trips, so it is those that stall which are old.

use std::{collections::BTreeMap, future::Future, pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ending::Ending;

/// Each takes some tens of KiB.
const UNDER_WAY_MAX: usize = 1024;

/// Handshakes by the order of their beginning.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    cuts: BTreeMap<u64, Arc<Notify>>,
}

/// The place of one handshake, given back when it is dropped.
struct Place<'a> {
    of: &'a Handshakes,
    number: u64,
    cut: Arc<Notify>,
}

impl Handshakes {
    /// Runs a handshake, unless it is the oldest of too many before it is done.
    pub(crate) async fn run<T>(
        &self,
        handshake: impl Future<Output = Result<T, Ending>>,
    ) -> Result<T, Ending> {
        let place = self.begin(UNDER_WAY_MAX);
        let (handshake, cut) = (pin!(handshake), pin!(place.cut.notified()));
        tokio::select! {
            done = handshake => done,
            () = cut => Err(Ending::Handshake),
        }
    }

    fn begin(&self, max: usize) -> Place<'_> {
        let mut under_way = self.under_way.lock();
        under_way.last += 1;
        let (number, cut) = (under_way.last, Arc::new(Notify::new()));
        under_way.cuts.insert(number, Arc::clone(&cut));
        if under_way.cuts.len() > max
            && let Some((_, oldest)) = under_way.cuts.pop_first()
        {
            oldest.notify_one();
        }
        Place { of: self, number, cut }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.under_way.lock().cuts.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn oldest_of_too_many_is_cut() {
        let handshakes = Handshakes::default();
        let first = handshakes.begin(2);
        let second = handshakes.begin(2);
        drop(second);
        let _third = handshakes.begin(2);
        assert_eq!(handshakes.under_way.lock().cuts.len(), 2);
        let _fourth = handshakes.begin(2);
        first.cut.notified().await;
        assert_eq!(handshakes.under_way.lock().cuts.len(), 2);
    }
}
