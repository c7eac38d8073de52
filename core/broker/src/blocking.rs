//! Publishers wait while memory or disk is short, and while their virtual host holds too much.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::Event;
use polymq_model::ConnectionId;

use crate::{
    core::{ConnectionRecord, Core},
    vhost::Vhost,
};

/// How often the bytes of virtual hosts are added up, in ms.
const MEASURE_EVERY_MS: u64 = 1000;
/// Publishers go on when so much of the high mark is used, in percent.
const RELEASED_AT_PERCENT: u64 = 90;

impl Core {
    /// Blocks all publishers with a reason, or lets them go on.
    pub(crate) fn set_alarm(&self, reason: Option<Arc<str>>) {
        let is_raised = reason.is_some();
        self.alarm.write().clone_from(&reason);
        if self.alarmed.swap(is_raised, Ordering::SeqCst) != is_raised {
            self.tell_publishers();
        }
    }

    /// Blocks the publishers of virtual hosts that hold more than their high mark, and lets those
    /// go on that have come down. Wakes the connections on which publishes wait.
    pub(crate) fn tick_blocking(&self, now_ms: u64) {
        let measured_ms = self.measured_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(measured_ms) >= MEASURE_EVERY_MS || now_ms < measured_ms {
            self.measured_ms.store(now_ms, Ordering::Relaxed);
            let changed = self.all_vhosts().iter().filter(|vhost| vhost.measure()).count();
            if changed > 0 {
                self.tell_publishers();
            }
        }
        if self.parked_bytes.load(Ordering::Relaxed) > 0 {
            for record in self.connections.lock().values().filter(|record| record.has_parked) {
                record.outbox.nudge();
            }
        }
    }

    /// A connection publishes for the first time.
    pub(crate) fn tell_new_publisher(&self, id: ConnectionId) {
        if let Some(record) = self.connections.lock().get_mut(&id) {
            record.publishes = true;
            self.tell_publisher(record);
        }
    }

    fn tell_publishers(&self) {
        for record in self.connections.lock().values_mut().filter(|record| record.publishes) {
            self.tell_publisher(record);
        }
    }

    /// Tells a publisher that it is blocked, or is no more, unless it knows.
    fn tell_publisher(&self, record: &mut ConnectionRecord) {
        let of_vhost = || self.vhosts.read().get(record.vhost.as_ref()?)?.tenancy.blocked_reason();
        let reason = self.alarm.read().clone().or_else(of_vhost);
        if reason.is_some() == record.is_blocked {
            return;
        }
        record.is_blocked = reason.is_some();
        record.outbox.push(match reason {
            Some(reason) => Event::Blocked { reason: (&*reason).into() },
            None => Event::Unblocked,
        });
    }
}

impl Vhost {
    /// Compares what the queues hold with the high mark. True when that changes whether publishers
    /// are blocked.
    fn measure(&self) -> bool {
        let mark = self.tenancy.limits.read().bytes_high;
        let was_blocked = self.tenancy.is_blocked();
        let Some(mark) = mark else { return self.tenancy.block(None) };
        let bytes = self.queue_sums.read(|queues| queues.bytes);
        let limit = if was_blocked { mark / 100 * RELEASED_AT_PERCENT } else { mark };
        self.tenancy.block((bytes > limit).then(|| {
            let name = &self.name;
            format!("vhost '{name}' holds {bytes} bytes, its high mark is {mark}").into()
        }))
    }
}
