//! Sessions that may outlive their socket, and how one gets the socket of another.

use std::{any::Any, any::TypeId, collections::HashMap, sync::Arc};

use bytes::BytesMut;
use parking_lot::Mutex;
use polymq_contract::Outbox;

/// A socket on its way to another session, with what was read from it.
pub(crate) struct Handover<S> {
    pub(crate) socket: S,
    pub(crate) input: BytesMut,
}

/// The sessions that take sockets, by the keys they have chosen.
#[derive(Default)]
pub(crate) struct Heirs(Mutex<HashMap<Box<str>, Heir>>);

struct Heir {
    /// Of what type its sockets are.
    kind: TypeId,
    arrived: Option<Box<dyn Any + Send>>,
    outbox: Arc<Outbox>,
}

impl Heirs {
    /// Takes sockets of type `S` under `key` from now on.
    pub(crate) fn enter<S: 'static>(&self, key: Box<str>, outbox: &Arc<Outbox>) {
        let heir = Heir { kind: TypeId::of::<S>(), arrived: None, outbox: Arc::clone(outbox) };
        self.0.lock().insert(key, heir);
    }

    /// Gives a socket to the session with this key, which replaces one that it has not taken yet.
    ///
    /// Errors: nobody has the key; the socket comes back.
    pub(crate) fn give<S: Send + 'static>(
        &self,
        key: &str,
        handover: Handover<S>,
    ) -> Result<(), Handover<S>> {
        let mut heirs = self.0.lock();
        let Some(heir) = heirs.get_mut(key).filter(|heir| heir.kind == TypeId::of::<S>()) else {
            return Err(handover);
        };
        heir.arrived = Some(Box::new(handover));
        let outbox = Arc::clone(&heir.outbox);
        drop(heirs);
        outbox.nudge();
        Ok(())
    }

    /// The socket that has come for this key.
    pub(crate) fn take<S: 'static>(&self, key: &str) -> Option<Handover<S>> {
        let arrived = self.0.lock().get_mut(key)?.arrived.take()?;
        arrived.downcast().ok().map(|handover| *handover)
    }

    /// Takes no more; a socket that is there is closed.
    pub(crate) fn leave(&self, key: &str) {
        let gone = self.0.lock().remove(key);
        drop(gone);
    }
}
