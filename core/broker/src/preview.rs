//! What somebody may see and do, and what a change would come to, for whoever asks before.

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{Message, Now, VhostName};

use crate::{
    BrokerHandle,
    access::{Configure, Principal, Read, Write},
    definitions::{self, kind},
    publishing::TOPIC_EXCHANGE,
};

impl BrokerHandle {
    /// Whether somebody has any right to an object, which `kind` says what it is: a `queue` or an
    /// `exchange`.
    pub fn may_see(&self, who: &Principal, vhost: &VhostName, kind: &str, name: &str) -> bool {
        let access = &self.0.access;
        access.permit::<Read>(who, vhost, kind, name).is_ok()
            || access.permit::<Write>(who, vhost, kind, name).is_ok()
            || access.permit::<Configure>(who, vhost, kind, name).is_ok()
    }

    /// Whether somebody may publish to an exchange.
    pub fn may_write_exchange(&self, who: &Principal, vhost: &VhostName, exchange: &str) -> bool {
        self.0.access.permit::<Write>(who, vhost, "exchange", exchange).is_ok()
    }

    /// Forgets the last value of a topic, in dot form.
    ///
    /// Errors: kind `NotFound`; kind `Denied` without the right to write the topics.
    pub fn forget_retained(
        &self,
        who: &Principal,
        vhost: &VhostName,
        key: &str,
        now: Now,
    ) -> Result<(), Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        self.0.access.permit::<Write>(who, &vhost.name, "exchange", TOPIC_EXCHANGE)?;
        let mut retained = vhost.retained.lock();
        if !retained.forget(key, now.unix_ms) {
            let text = format!("no retained message '{key}' in vhost '{}'", vhost.name);
            return Err(Refusal::new(RefusalKind::NotFound, text));
        }
        let key = definitions::key(&[kind::RETAINED, vhost.name.as_str(), key]);
        self.0.committer.append(|writer| writer.meta_delete(&key));
        Ok(())
    }

    /// A delayed message by its schedule id. Blocks while the store is read.
    ///
    /// Errors: kind `NotFound`; kind `StoreFailed`.
    pub fn scheduled_message(&self, vhost: &VhostName, id: u64) -> Result<Message, Refusal> {
        let vhost = self.0.vhost(vhost.as_str())?;
        self.0.find_scheduled(&vhost, id)
    }
}
