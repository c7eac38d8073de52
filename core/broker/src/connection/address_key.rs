//! Routing keys that are addresses: answers to clients of other protocols.

use polymq_contract::Publish;
use polymq_model::{
    Message,
    address::{ADDRESS_KEY_PREFIX, Address, mailbox_key},
};

/// Moves the message to where its key says, when that is an address.
#[inline]
pub(super) fn address(publish: &mut Publish) {
    let message = &publish.message;
    if message.exchange_bytes().is_empty()
        && message.key_bytes().starts_with(b"amq.address:")
        && let Some(moved) = to_address(message)
    {
        publish.message = moved;
    }
}

/// The message as its key says, when that is an address: an answer to a client of another protocol.
fn to_address(message: &Message) -> Option<Message> {
    match Address::parse(message.key().strip_prefix(ADDRESS_KEY_PREFIX)?) {
        Address::Queue(queue) => Some(message.moved_to("", &queue)),
        Address::Exchange { exchange, key } => {
            Some(message.moved_to(&exchange, key.as_deref().unwrap_or_default()))
        }
        Address::Jid(jid) => Some(message.moved_to("", &mailbox_key(&jid))),
        Address::Opaque(_) => None,
    }
}
