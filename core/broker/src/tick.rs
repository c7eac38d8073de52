//! What happens with time: expiry, wills, sessions that end, statistics.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, NewMessage, Now, format::PLAIN_FORMAT, message::Body};

use crate::{core::Core, counters::PROTOCOLS, queue::Looked, vhost::Vhost};

/// Seconds between two rounds of statistics under `$SYS`.
pub(crate) const STATISTICS_EVERY_MS: u64 = 10_000;

impl Core {
    /// Does what is due. Called about every 100 ms; cheap when nothing is.
    pub(crate) fn tick(&self, now: Now) {
        self.set_clock(now.unix_ms);
        for vhost in self.all_vhosts() {
            self.tick_client_sessions(&vhost, now);
            self.tick_queues(&vhost, now);
            self.release_due(&vhost, now);
        }
        self.end_logins(now.unix_ms);
        self.end_bans(now.unix_ms);
        self.finish_deletions();
        self.cut_connections(now.unix_ms);
        self.tick_blocking(now.unix_ms);
        self.tick_traces(now.unix_ms);
        if self.committer.is_dirty() {
            self.committer.kick();
        }
    }

    fn tick_queues(&self, vhost: &Arc<Vhost>, now: Now) {
        for queue in vhost.take_due_queues(now.unix_ms) {
            let looked = queue.look(now.unix_ms);
            let is_done = match looked {
                Looked::Done => false,
                Looked::Unused => true,
                Looked::Left => queue.settings.auto_delete,
            };
            if is_done {
                self.remove_queue(vhost, &queue, true, false).ok();
            }
        }
    }

    /// Publishes the statistics of the broker as retained messages under `$SYS/broker/`.
    pub(crate) fn publish_statistics(&self, uptime_secs: u64, version: &str, now: Now) {
        for facts in self.connection_facts() {
            self.collect_deliveries_of(&facts);
        }
        let sum = |name: &str| -> u64 {
            PROTOCOLS
                .iter()
                .flat_map(|protocol| self.counters.protocol(protocol).read())
                .filter(|(counter, _)| *counter == name)
                .map(|(_, value)| value)
                .sum()
        };
        let connections = self.connections.lock().len();
        for vhost in self.all_vhosts() {
            let retained = vhost.retained.lock().len();
            let sessions = vhost.clients.lock().len();
            let values = [
                ("version", format!("PolyMQ {version}")),
                ("uptime", format!("{uptime_secs} seconds")),
                ("clients.connected", connections.to_string()),
                ("clients.total", sessions.to_string()),
                ("messages.received", sum("messages_received").to_string()),
                ("messages.sent", sum("messages_delivered").to_string()),
                ("bytes.received", sum("bytes_received").to_string()),
                ("retained messages.count", retained.to_string()),
            ];
            for (name, value) in values {
                let message = statistic(&format!("$SYS.broker.{name}"), value.as_bytes(), now);
                self.publish_own(&vhost, message, None, now);
            }
        }
    }

    /// Removes retained messages that have expired.
    pub(crate) fn expire_retained(&self, now: Now) {
        use crate::definitions::{self, kind};
        for vhost in self.all_vhosts() {
            let expired = vhost.retained.lock().expire(now.unix_ms);
            if expired.is_empty() {
                continue;
            }
            self.committer.append(|writer| {
                for key in &expired {
                    writer.meta_delete(&definitions::key(&[
                        kind::RETAINED,
                        vhost.name.as_str(),
                        key,
                    ]));
                }
            });
        }
    }

    /// Errors: kind `Limit` when there are too many connections or the broker stops.
    pub(crate) fn check_connection_count(&self) -> Result<(), Refusal> {
        let max = self.limits_now.load().connections_max;
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Refusal::new(RefusalKind::Limit, "the broker is stopping"));
        }
        if self.connections.lock().len() >= max {
            let text = format!("the broker has {max} connections, its limit");
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        Ok(())
    }
}

fn statistic(key: &str, body: &[u8], now: Now) -> Message {
    NewMessage {
        format: &PLAIN_FORMAT,
        exchange: crate::publishing::TOPIC_EXCHANGE,
        key,
        props: &[],
        body: Body::Slice(body),
        durable: false,
        priority: None,
        qos: 0,
        retain: true,
        deadline_ms: 0,
        arrived_ms: now.unix_ms,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}
