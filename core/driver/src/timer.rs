//! The one timer of a connection, moved as rarely as possible.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

/// Wakes the task at the earliest time it was asked for. A deadline that moves back, as that of a
/// heartbeat does with each frame, is left to fire early and set again then: this costs one
/// needless turn per period instead of a visit to the timer wheel per read.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl Timer {
    /// True when `at` has come; otherwise the task is woken no later than then.
    pub(crate) fn poll(&mut self, at: Option<Instant>, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(at) = at else {
            return false;
        };
        if at <= now {
            return true;
        }
        if self.armed.is_some_and(|armed| armed <= at && now < armed) {
            return false;
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        sleep.as_mut().reset(at.into());
        // Outside the runtime's budget, so that `Pending` means that the waker is registered.
        match pin!(tokio::task::unconstrained(sleep.as_mut())).poll(cx) {
            Poll::Ready(()) => {
                self.armed = None;
                true
            }
            Poll::Pending => {
                self.armed = Some(at);
                false
            }
        }
    }
}
