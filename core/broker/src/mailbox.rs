//! Mailboxes of XMPP users, and what the protocol keeps for a user beside them.
//!
//! A mailbox is a durable queue that belongs to its user: it comes with the first message or login,
//! and goes with the user. Nobody needs a permission for their own.

use std::sync::Arc;

use polymq_contract::{Refusal, RefusalKind};
use polymq_model::{QueueName, UserName, address::Mailbox};
use polymq_store::ShardBatch;
use serde::{Deserialize, Serialize};

use crate::{
    access::Principal,
    core::Core,
    definitions::{self, kind},
    queue::QueueSettings,
    vhost::Vhost,
};

/// Longest document of a user in bytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// A document as it is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StoredDocument {
    pub(crate) version: u64,
    pub(crate) text: String,
}

/// True when the queue is the mailbox of this user, or the key one of its resources.
pub(crate) fn is_own(who: &Principal, name: &str) -> bool {
    Mailbox::parse(name).is_some_and(|mailbox| mailbox.user == who.user.as_str())
}

impl Core {
    /// Makes the mailbox that a key names, when its user exists, or is the one who asks, and its
    /// domain is ours.
    pub(crate) fn ensure_mailbox(&self, vhost: &Arc<Vhost>, key: &str, is_own: bool) {
        let missing = self.missing_mailbox(vhost, key, is_own);
        let Some((name, mailbox)) = missing.zip(Mailbox::parse(key)) else { return };
        let durability = self.durability;
        let settings = QueueSettings {
            durable: true,
            durability,
            declared_by: Some(mailbox.user.as_str().into()),
            ..QueueSettings::default()
        };
        // A limit of queues may forbid it; the message then finds nobody.
        self.create_queue(vhost, name, settings).ok();
    }

    /// The mailbox that a key names, when it is not there and the next message makes it.
    pub(crate) fn missing_mailbox(
        &self,
        vhost: &Vhost,
        key: &str,
        is_own: bool,
    ) -> Option<QueueName> {
        let mailbox = Mailbox::parse(key)?;
        let is_ours = self.mailbox_domain.get().is_some_and(|ours| **ours == *mailbox.domain);
        let is_missing = is_ours
            && vhost.topology.load().queue(mailbox.queue).is_none()
            && (is_own || self.access.user(&mailbox.user).is_some());
        is_missing.then(|| QueueName::new(mailbox.queue).ok()).flatten()
    }

    /// Deletes the mailboxes and documents of a user.
    pub(crate) fn remove_mailboxes(&self, user: &UserName) {
        for vhost in self.all_vhosts() {
            let topology = vhost.topology.load_full();
            let is_theirs = |name: &str| {
                Mailbox::parse(name).is_some_and(|mailbox| mailbox.user == user.as_str())
            };
            for queue in topology.queues.values().filter(|queue| is_theirs(queue.name.as_str())) {
                self.remove_queue(&vhost, queue, false, false).ok();
            }
        }
        let mut gone = Vec::new();
        self.documents.lock().retain(|key, _| {
            let is_theirs = key.1 == *user;
            if is_theirs {
                gone.push(document_key(key));
            }
            !is_theirs
        });
        self.committer.append(|writer| gone.iter().for_each(|key| writer.meta_delete(key)));
    }

    /// Replaces a document, unless the one that is there is newer.
    ///
    /// Errors: kind `Limit` when it is too long.
    pub(crate) fn write_document(
        &self,
        key: DocumentKey,
        document: StoredDocument,
    ) -> Result<Option<ShardBatch>, Refusal> {
        if document.text.len() > DOCUMENT_BYTES_MAX {
            let text = format!("a document has at most {DOCUMENT_BYTES_MAX} bytes");
            return Err(Refusal::new(RefusalKind::Limit, text));
        }
        let mut documents = self.documents.lock();
        if documents.get(&key).is_some_and(|kept| kept.version > document.version) {
            return Ok(None);
        }
        let stored = document_key(&key);
        let batch = self.committer.append(|writer| match document.text.is_empty() {
            true => writer.meta_delete(&stored),
            false => writer.meta_put(&stored, &definitions::encode(&document)),
        });
        documents.insert(key, document);
        Ok(Some(batch.0))
    }
}

/// Protocol, user and name.
pub(crate) type DocumentKey = (String, UserName, String);

fn document_key((protocol, user, name): &DocumentKey) -> String {
    definitions::key(&[kind::DOCUMENT, protocol, user.as_str(), name])
}
