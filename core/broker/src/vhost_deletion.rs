//! Deleting a virtual host: first its connections are told to go, and when the last has gone,
//! everything in it.

use std::sync::{Arc, atomic::Ordering};

use polymq_contract::{Event, Refusal, RefusalKind};
use polymq_model::VhostName;

use crate::{
    BrokerHandle, PolicyKind,
    core::Core,
    definitions::{self, kind},
    vhost::Vhost,
};

impl BrokerHandle {
    /// Deletes a virtual host with everything in it.
    ///
    /// Nobody can open it any more. Its definitions and messages go at the first
    /// [`BrokerHandle::tick`] after its last connection has gone; a broker that is killed before
    /// that has it again.
    ///
    /// Errors: kind `NotFound`; kind `Conflict` when it is protected from deletion.
    pub fn delete_vhost(&self, name: &VhostName) -> Result<(), Refusal> {
        let vhost = self.0.vhost(name.as_str())?;
        if vhost.tenancy.record.read().protected_from_deletion {
            let text = format!("vhost '{name}' is protected from deletion");
            return Err(Refusal::new(RefusalKind::Conflict, text));
        }
        vhost.tenancy.leave();
        for record in self.0.connections.lock().values() {
            if record.vhost.as_ref() == Some(name) {
                let reason = format!("vhost '{name}' is deleted");
                record.outbox.push(Event::Closing { reason: reason.into(), shutdown: false });
            }
        }
        Ok(())
    }
}

impl BrokerHandle {
    /// Removes what is in virtual hosts that are being deleted and have no connections left,
    /// without waiting for the next [`BrokerHandle::tick`].
    pub fn finish_deletions(&self) {
        self.0.finish_deletions();
    }
}

impl Core {
    /// Removes the virtual hosts that are being deleted and have no connections left.
    pub(crate) fn finish_deletions(&self) {
        for vhost in self.all_vhosts() {
            if vhost.tenancy.has_left() {
                self.wipe_vhost(&vhost);
            }
        }
    }

    fn wipe_vhost(&self, vhost: &Arc<Vhost>) {
        let sessions: Vec<_> = vhost.clients.lock().values().cloned().collect();
        for session in sessions {
            self.end_client_session(vhost, &session, &mut session.state.lock());
        }
        let queues: Vec<_> = vhost.topology.load().queues.values().cloned().collect();
        for queue in queues {
            self.remove_queue(vhost, &queue, false, false).ok();
        }
        let emptied: Result<(), Refusal> = vhost.edit(|topology, destinations| {
            let exchanges: Vec<_> = topology.exchanges.values().cloned().collect();
            for exchange in exchanges {
                self.drop_exchange(vhost, topology, destinations, &exchange);
            }
            Ok(())
        });
        debug_assert!(emptied.is_ok(), "dropping exchanges cannot be refused");
        let name = vhost.name.as_str();
        let mut rights = Vec::new();
        let own = |of: &VhostName| *of == vhost.name;
        for (_, user, _) in self.access.permissions().iter().filter(|(of, ..)| own(of)) {
            rights.push(definitions::key(&[kind::PERMISSION, name, user.as_str()]));
        }
        for (_, user, exchange, _) in
            self.access.topic_permissions().iter().filter(|(of, ..)| own(of))
        {
            let user = user.as_str();
            rights.push(definitions::key(&[kind::TOPIC_PERMISSION, name, user, exchange]));
        }
        self.access.remove_vhost(&vhost.name);
        self.committer.append(|writer| {
            for key in vhost.retained.lock().keys() {
                writer.meta_delete(&definitions::key(&[kind::RETAINED, name, key]));
            }
            for policy in [PolicyKind::User, PolicyKind::Operator] {
                for (policy_name, _) in vhost.policies.lock().list(policy) {
                    writer.meta_delete(&definitions::key(&[
                        policy.stored_as(),
                        name,
                        &policy_name,
                    ]));
                }
            }
            rights.iter().for_each(|key| writer.meta_delete(key));
            if let Some(log) = vhost.schedule.end() {
                writer.log_delete(log);
                writer.meta_delete(&definitions::key(&[kind::SCHEDULE, name]));
            }
            writer.meta_delete(&definitions::key(&[kind::VHOST_LIMITS, name]));
            writer.meta_delete(&definitions::key(&[kind::VHOST, name]));
        });
        let sample = self.vhost_sample(vhost);
        self.retired.add(&sample.activity);
        self.retired_traffic.add(sample.bytes_in, sample.bytes_out);
        self.vhosts.write().remove(&vhost.name);
        tracing::info!(event = "vhost_deleted", vhost = name);
    }
}

impl crate::tenants::Tenancy {
    /// From now on nobody gets a seat.
    fn leave(&self) {
        let seats = self.connections.lock();
        self.leaving.store(true, Ordering::SeqCst);
        drop(seats);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    fn has_left(&self) -> bool {
        self.is_leaving() && self.connections.lock().is_empty()
    }
}
