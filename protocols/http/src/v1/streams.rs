//! Streams of server-sent events of a user at a time.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use parking_lot::Mutex;
use polymq_model::UserName;

use crate::problem::Problem;

/// Streams of one kind, counted by user.
pub(crate) struct Streams {
    max: usize,
    what: &'static str,
    open: Mutex<BTreeMap<UserName, usize>>,
}

/// Streams of what happens to the broker.
pub(crate) static OF_EVENTS: Streams = Streams::new(8, "streams of events");
/// Streams of messages.
pub(super) static OF_MESSAGES: Streams = Streams::new(100, "subscriptions");

/// How many are open, by kind.
pub(crate) fn open_streams() -> [(&'static str, usize); 2] {
    let count = |streams: &Streams| streams.open.lock().values().sum();
    [("events", count(&OF_EVENTS)), ("messages", count(&OF_MESSAGES))]
}

/// A stream of a user, counted until it is dropped.
pub(crate) struct Place {
    of: &'static Streams,
    user: UserName,
}

impl Streams {
    const fn new(max: usize, what: &'static str) -> Self {
        Self { max, what, open: Mutex::new(BTreeMap::new()) }
    }

    /// A place for one more.
    ///
    /// Errors: the user has as many as may be.
    pub(crate) fn enter(&'static self, user: &UserName) -> Result<Place, Problem> {
        let mut open = self.open.lock();
        let count = open.entry(user.clone()).or_default();
        if *count >= self.max {
            let text = format!("a user has at most {} {}", self.max, self.what);
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(Problem::new(status, "too_many_streams", text).retry());
        }
        *count += 1;
        Ok(Place { of: self, user: user.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FEW: Streams = Streams::new(2, "streams");

    #[test]
    fn places_are_of_one_user_and_come_back() {
        let user = |name| UserName::new(name).unwrap();
        let first = FEW.enter(&user("a")).unwrap();
        let _second = FEW.enter(&user("a")).unwrap();
        let Err(problem) = FEW.enter(&user("a")) else { panic!("one too many") };
        assert_eq!(problem.code(), "too_many_streams");
        let _other = FEW.enter(&user("b")).unwrap();
        drop(first);
        FEW.enter(&user("a")).unwrap();
    }
}
