//! What an administrator does with queues and policies.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{ConnectionId, Limits, Now, VhostName};

use crate::{
    access::{Principal, Role},
    broker::BrokerHandle,
    core::Core,
    declare::no_queue,
    definitions,
    policies::{PolicyKind, PolicyRecord},
    queue::{QueueSettings, Rules},
    topology::Exchange,
    vhost::Vhost,
};

impl BrokerHandle {
    /// Creates or replaces a policy. It takes effect at once, on what exists as well.
    ///
    /// Errors: kind `NotFound` for the virtual host, kind `Invalid` with everything that is wrong.
    pub fn put_policy(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
        name: &str,
        record: PolicyRecord,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let value = definitions::encode(&record);
        vhost.policies.lock().put(policy, name, record)?;
        let key = definitions::key(&[policy.stored_as(), vhost.name.as_str(), name]);
        self.0.committer.append(|writer| writer.meta_put(&key, &value));
        self.0.apply_policies(&vhost, now.unix_ms);
        Ok(())
    }

    /// Removes a policy.
    ///
    /// Errors: kind `NotFound`.
    pub fn remove_policy(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
        name: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        if !vhost.policies.lock().remove(policy, name) {
            let text = format!("no policy '{name}' in vhost '{}'", vhost.name);
            return Err(Refusal::missing("policy", name, text));
        }
        let key = definitions::key(&[policy.stored_as(), vhost.name.as_str(), name]);
        self.0.committer.append(|writer| writer.meta_delete(&key));
        self.0.apply_policies(&vhost, now.unix_ms);
        Ok(())
    }

    /// The policies of a virtual host, by name.
    ///
    /// Errors: kind `NotFound`.
    pub fn policies(
        &self,
        vhost: &VhostName,
        policy: PolicyKind,
    ) -> Result<Vec<(String, PolicyRecord)>, Refusal> {
        Ok(self.0.vhost(vhost.as_str())?.policies.lock().list(policy))
    }

    /// Stops the deliveries of a queue, or lets them go on; publishes, expiry and limits go on
    /// either way. It lasts over a restart.
    ///
    /// Errors: kind `NotFound`.
    pub fn pause_queue(
        &self,
        vhost: &VhostName,
        queue: &str,
        paused: bool,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        let queue = vhost.topology.load().queue(queue).cloned().ok_or_else(|| {
            let text = format!("no queue '{queue}' in vhost '{}'", vhost.name);
            Refusal::missing("queue", queue, text)
        })?;
        queue.pause(paused, now.unix_ms);
        Ok(())
    }

    /// Ends a consumer: it is told in its protocol's terms, and what it has not settled goes back
    /// to its places. Whoever owns it may do that, and an administrator.
    ///
    /// Errors: kind `NotFound`; kind `Denied` for somebody else's; kind `Reserved` for that of a
    /// client session, which would only lose its connection.
    pub fn cancel_consumer(
        &self,
        who: &Principal,
        (vhost, queue): (&VhostName, &str),
        (connection, channel, tag): (ConnectionId, u32, &str),
        now: Now,
    ) -> Result<(), Refusal> {
        let core = &self.0;
        let vhost = core.vhost(vhost.as_str())?;
        let found = vhost.topology.load().queue(queue).cloned();
        let queue = found.ok_or_else(|| no_queue(&vhost, queue))?;
        let owner = self.connection_ref(connection).and_then(|connection| connection.user);
        if owner.as_ref() != Some(&who.user)
            && !core.access.tags_of(who).include(Role::Administrator)
        {
            let text = "a consumer is ended by its own user or by an administrator";
            return Err(Refusal::new(RefusalKind::Denied, text));
        }
        if queue.settings.of_client {
            let text = format!("{queue} belongs to a client session; close its connection instead");
            return Err(Refusal::new(RefusalKind::Reserved, text));
        }
        let left = queue.cancel_of((connection, channel), tag, now.unix_ms).ok_or_else(|| {
            let text = format!("no consumer '{tag}' of that connection and channel in {queue}");
            Refusal::missing("consumer", tag, text)
        })?;
        if queue.settings.auto_delete && left == 0 {
            // It is used again when somebody was quicker.
            let _ = core.remove_queue(&vhost, &queue, true, false);
        }
        Ok(())
    }
}

impl Core {
    /// What holds for a queue that was declared like this.
    pub(crate) fn rules_of(&self, vhost: &Vhost, name: &str, declared: &QueueSettings) -> Rules {
        let timeout = self.limits_now.load().consumer_timeout;
        let timeout_ms = timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        vhost.policies.lock().rules_of(name, declared, timeout_ms)
    }

    /// Has other limits hold from now on. What is there already stays, except that consumers have
    /// another time to settle what is out.
    pub(crate) fn set_limits(&self, limits: Arc<Limits>) {
        let before = self.limits_now.swap(Arc::clone(&limits));
        if before.consumer_timeout != limits.consumer_timeout {
            for vhost in self.all_vhosts() {
                self.apply_policies(&vhost, self.clock_ms());
            }
        }
    }

    /// Has the policies of a virtual host hold for everything in it.
    fn apply_policies(&self, vhost: &Arc<Vhost>, now_ms: u64) {
        // The edit comes first: whoever declares something meanwhile either sees the new policies
        // or is done before the topology is looked at below.
        let edited: Result<(), Refusal> = vhost.edit(|topology, _| {
            let exchanges: Vec<_> = topology.exchanges.values().cloned().collect();
            for exchange in exchanges {
                let alternate = vhost.policies.lock().alternate_of(exchange.name.as_str());
                if exchange.policy_alternate != alternate {
                    let changed = Exchange { policy_alternate: alternate, ..(*exchange).clone() };
                    topology.exchanges.insert(exchange.name.clone(), Arc::new(changed));
                }
            }
            Ok(())
        });
        edited.ok();
        let topology = vhost.topology.load_full();
        for queue in topology.queues.values() {
            let name = queue.name.as_str();
            let rules = queue.with_declared(|declared| self.rules_of(vhost, name, declared));
            queue.set_rules(rules, now_ms);
        }
        // Routes that were looked up meanwhile know sizes of before.
        let touched: Result<(), Refusal> = vhost.edit(|_, _| Ok(()));
        touched.ok();
    }
}
