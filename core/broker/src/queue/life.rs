//! The life of a queue: purged, paused, given other rules, deleted.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::Refusal;
use polymq_model::{Seq, VhostName};

use super::{
    Ended, Position, Queue, QueueCounts, QueueSettings, Rules, bytes_or_any,
    consumer::QueueConsumer,
};
use crate::{
    definitions::{self, kind},
    statistics::{QueueSum, Sample},
    view::{ConsumerView, Seen},
};

impl Queue {
    /// Removes all messages that no consumer has and returns how many there were.
    pub(crate) fn purge(&self) -> u64 {
        let mut state = self.lock();
        let count = state.purge();
        self.settle_records(&mut state);
        count
    }

    /// Ends the queue. Returns its ready messages' number and the consumers to be told, or `None`
    /// when it had ended.
    ///
    /// Errors: kind `Conflict` when a condition does not hold.
    pub(crate) fn delete(
        &self,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Option<(u64, Vec<Ended>)>, Refusal> {
        let mut state = self.lock();
        if state.deleted {
            return Ok(None);
        }
        if if_unused && state.active_consumers() > 0 {
            return Err(self.in_state("in use"));
        }
        if if_empty && state.ready_len() > 0 {
            return Err(self.in_state("not empty"));
        }
        if self.stored {
            self.committer.append(|writer| {
                for lane in state.lanes.iter().filter(|lane| lane.log.0 != 0) {
                    writer.log_delete(lane.log);
                    if lane.level > 0 {
                        writer.meta_delete(&self.level_key(lane.level));
                    }
                }
                if state.paused {
                    writer.meta_delete(&self.pause_key());
                }
            });
        }
        let deleted = state.delete();
        self.report(&mut state);
        Ok(Some(deleted))
    }

    /// Stops deliveries, or lets them go on. Publishes, expiry and limits go on either way.
    pub(crate) fn pause(self: &Arc<Self>, paused: bool, now_ms: u64) {
        let mut state = self.lock();
        if state.deleted || state.paused == paused {
            return;
        }
        state.paused = paused;
        if self.stored {
            let key = self.pause_key();
            self.committer.append(|writer| match paused {
                true => writer.meta_put(&key, &definitions::encode(&definitions::Nothing {})),
                false => writer.meta_delete(&key),
            });
        }
        state.dispatch(now_ms);
        self.finish(state, now_ms);
    }

    /// As [`pause`](Self::pause), for a start.
    pub(crate) fn restore_pause(&self) {
        self.lock().paused = true;
    }

    /// Asks about what the queue was declared with, or has been changed to since. What decides how
    /// it works, apart from its rules, never changes and stands in `settings`.
    pub(crate) fn with_declared<T>(&self, ask: impl FnOnce(&QueueSettings) -> T) -> T {
        match &*self.changed.load() {
            Some(changed) => ask(changed),
            None => ask(&self.settings),
        }
    }

    /// Takes other arguments for those that the queue was declared with.
    pub(crate) fn redeclare(&self, settings: QueueSettings) {
        self.changed.store(Some(Arc::new(settings)));
    }

    /// Has other rules hold from now on, for what waits as well.
    pub(crate) fn set_rules(self: &Arc<Self>, rules: Rules, now_ms: u64) {
        let mut state = self.lock();
        if state.deleted || state.rules == rules {
            return;
        }
        let sooner = |lane: &mut super::lane::Lane, ttl_ms: u64| {
            lane.bring_deadlines_forward(now_ms.saturating_add(ttl_ms).max(1));
        };
        if let Some(ttl_ms) =
            rules.ttl_ms.filter(|ms| state.rules.ttl_ms.is_none_or(|old| *ms < old))
        {
            state.lanes.iter_mut().for_each(|lane| sooner(lane, ttl_ms));
        }
        self.message_bytes_max.store(bytes_or_any(rules.message_bytes_max), Ordering::Relaxed);
        let was_timed = state.is_timed();
        state.rules = rules;
        if !was_timed && state.is_timed() {
            state.consumers.iter_mut().for_each(|(_, consumer)| consumer.begin_timing(now_ms));
        }
        state.expire_heads(now_ms);
        state.drop_over_limit(now_ms);
        state.dispatch(now_ms);
        self.finish(state, now_ms);
    }

    /// What holds now.
    pub(crate) fn rules(&self) -> Rules {
        self.state.lock().rules.clone()
    }

    /// What the queue holds now.
    pub(crate) fn counts(&self) -> QueueCounts {
        self.state.lock().counts()
    }

    /// The numbers of the queue at a moment.
    pub(crate) fn sample(&self, at_ms: u64) -> Sample {
        let state = self.state.lock();
        let (ready, unsettled, activity) = (state.ready_len(), state.unsettled, state.activity);
        Sample { at_ms, activity, ready, unsettled, ..Sample::default() }
    }

    /// Its part of the sums of its virtual host.
    pub(crate) fn sum(&self) -> QueueSum {
        let state = self.state.lock();
        QueueSum::new(state.counts(), state.activity)
    }

    /// What is shown of the queue, read at once.
    pub(crate) fn seen(&self) -> Seen {
        let state = self.state.lock();
        let tag_of = |slot: &usize| state.consumers.get(*slot).map(|c| c.spec.tag.clone());
        let is_exclusive =
            |slot: &&usize| state.consumers.get(**slot).is_some_and(|c| c.spec.exclusive);
        Seen {
            counts: state.counts(),
            paused: state.paused,
            policies: state.rules.policies.clone(),
            exclusive_consumer: state.ring.iter().find(is_exclusive).and_then(tag_of),
            single_active_consumer: state.sole.as_ref().and_then(tag_of),
            active_ms: state.active_ms,
            head: state.head().map(|entry| entry.message.clone()),
            activity: state.activity,
        }
    }

    /// The consumers that messages go to, in the order in which they have come.
    pub(crate) fn consumers(&self, vhost: &VhostName) -> Vec<ConsumerView> {
        let state = self.state.lock();
        let active = state.consumers.iter().filter(|(_, consumer)| consumer.active);
        let view = |(slot, consumer): (usize, &QueueConsumer)| {
            let spec = &consumer.spec;
            ConsumerView {
                vhost: vhost.clone(),
                queue: self.name.clone(),
                tag: spec.tag.clone(),
                connection: spec.group.connection,
                channel: spec.group.channel,
                is_active: !state.single_active || state.sole == Some(slot),
                single_active: state.single_active,
                no_ack: spec.no_ack,
                exclusive: spec.exclusive,
                prefetch: spec.prefetch,
                priority: spec.priority,
                timeout_ms: state.rules.consumer_timeout_of(spec.timeout_ms),
                unsettled: consumer.unsettled.len(),
                delivered: consumer.next_number.saturating_sub(1),
                arguments: spec.arguments.clone(),
            }
        };
        active.map(view).collect()
    }

    /// True while nothing is delivered.
    pub(crate) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// Notes that somebody has used the queue.
    pub(crate) fn touch(self: &Arc<Self>, now_ms: u64) {
        let mut state = self.lock();
        state.touch(now_ms);
        let due_ms = state.next_due_ms(now_ms, self.scheduled_ms.load(Ordering::Relaxed));
        drop(state);
        if let Some(due_ms) = due_ms {
            self.schedule(due_ms);
        }
    }

    /// The next position, for telling redeliveries from first ones.
    pub(crate) fn next_seq(&self) -> Seq {
        let state = self.state.lock();
        state.lanes.first().map_or(Seq(0), |l| Position::new(l.level, Seq(l.next_seq)).number())
    }

    /// The key of the definition that says where a level is stored.
    pub(super) fn level_key(&self, level: u8) -> String {
        let vhost = self.home.vhost_name();
        definitions::key(&[kind::LEVEL, vhost, self.name.as_str(), &level.to_string()])
    }

    fn pause_key(&self) -> String {
        definitions::key(&[kind::PAUSED, self.home.vhost_name(), self.name.as_str()])
    }
}
