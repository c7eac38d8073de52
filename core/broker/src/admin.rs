//! What an administrator does with queues and policies.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Limits, Now, VhostName};

use crate::{
    broker::BrokerHandle,
    core::Core,
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
            return Err(Refusal::new(RefusalKind::NotFound, text));
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
            Refusal::new(RefusalKind::NotFound, text)
        })?;
        queue.pause(paused, now.unix_ms);
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
