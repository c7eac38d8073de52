//! Client sessions in the store.

use polymq_contract::{Subscription, Will};
use polymq_model::Seq;
use polymq_store::ShardBatch;

use super::{ClientSession, SessionState};
use crate::{
    core::Core,
    definitions::{self, StoredClient, StoredSubscription, kind},
    stored_message,
    vhost::Vhost,
};

impl Core {
    /// Writes what the session must remember over a restart; nothing for one that has always ended
    /// with its connection.
    ///
    /// One that outlived connections before stays in the store, so that a restart finds what to
    /// end.
    pub(crate) fn store_client_session(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &mut SessionState,
    ) -> Option<ShardBatch> {
        if !state.is_durable() && !state.stored {
            return None;
        }
        state.stored = true;
        let stored = StoredClient {
            owner: session.owner.as_str().to_owned(),
            expiry_secs: state.expiry_secs,
            ends_at_ms: state.ends_at_ms,
            connected: state.connected.is_some(),
            unsure_before: state.unsure_before.0,
            restricted: state.restricted.clone(),
            will: state
                .will
                .as_ref()
                .map(|will| (stored_message::to_definition(&will.message), will.delay_secs)),
        };
        let key = key_of(vhost, session);
        let value = definitions::encode(&stored);
        Some(self.committer.append(|writer| writer.meta_put(&key, &value)).0)
    }

    /// Writes one subscription of a session that is in the store.
    pub(super) fn store_subscription(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
        subscription: &Subscription,
    ) -> Option<ShardBatch> {
        state.stored.then(|| {
            let key = subscription_key(vhost, session, &subscription.filter);
            let value = definitions::encode(&StoredSubscription::of(subscription));
            self.committer.append(|writer| writer.meta_put(&key, &value)).0
        })
    }

    pub(super) fn delete_stored_subscription(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &SessionState,
        filter: &str,
    ) -> Option<ShardBatch> {
        state.stored.then(|| {
            let key = subscription_key(vhost, session, filter);
            self.committer.append(|writer| writer.meta_delete(&key)).0
        })
    }

    /// Removes all records of a session, if it has any.
    pub(super) fn delete_stored_client_session(
        &self,
        vhost: &Vhost,
        session: &ClientSession,
        state: &mut SessionState,
    ) {
        if !std::mem::take(&mut state.stored) {
            return;
        }
        self.committer.append(|writer| {
            writer.meta_delete(&key_of(vhost, session));
            for filter in state.subscriptions.keys() {
                writer.meta_delete(&subscription_key(vhost, session, filter));
            }
        });
    }

    /// Rebuilds the state of a session from the store. Its bindings and queue are restored by the
    /// caller.
    pub(crate) fn restored_client_state(&self, stored: StoredClient, now_ms: u64) -> SessionState {
        let will = stored.will.as_ref().and_then(|(message, delay_secs)| {
            let message = stored_message::from_definition(message, &self.formats)?;
            Some(Will { message, delay_secs: *delay_secs })
        });
        let expires_ms = u64::from(stored.expiry_secs) * 1000;
        let ends_at_ms = match (stored.ends_at_ms, stored.expiry_secs) {
            (_, u32::MAX) => 0,
            // It ends with its connection, which is gone.
            (_, 0) => now_ms.max(1),
            // The broker stopped while the client was connected: its connection was lost just now.
            (0, _) => now_ms + expires_ms,
            (known, _) => known,
        };
        let will_at_ms = will.as_ref().map_or(0, |will| {
            (now_ms + (u64::from(will.delay_secs) * 1000).min(expires_ms)).max(1)
        });
        SessionState {
            expiry_secs: stored.expiry_secs,
            ends_at_ms,
            was_connected: stored.connected,
            unsure_before: Seq(stored.unsure_before),
            restricted: stored.restricted,
            will,
            will_at_ms,
            stored: true,
            ..SessionState::default()
        }
    }
}

fn key_of(vhost: &Vhost, session: &ClientSession) -> String {
    definitions::key(&[kind::CLIENT, vhost.name.as_str(), &session.client_id])
}

fn subscription_key(vhost: &Vhost, session: &ClientSession, filter: &str) -> String {
    definitions::key(&[kind::SUBSCRIPTION, vhost.name.as_str(), &session.client_id, filter])
}
