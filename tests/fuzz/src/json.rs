//! Message objects of HTTP and of JSON over WebSocket.

use polymq_model::{
    Body, Limits, Message,
    json_form::{BadField, IncomingMessage, NewJsonMessage, Sender, Shown, Style},
};

use crate::{amqp::deliver_everywhere, sight};

/// The time of every case, in ms since 1970.
const NOW_MS: u64 = 1_700_000_000_000;

/// Reads an object; what is a message can be shown to everybody, and is the same when it is sent
/// on.
pub fn message(bytes: &[u8]) {
    let message = match read(bytes) {
        Ok(message) => message,
        Err(why) => return sight::note("wrong", why.as_bytes()),
    };
    sight::note("properties", format!("{:?}", message.properties()).as_bytes());
    assert!(message.native_props().len() <= Limits::default().header_bytes_max);
    deliver_everywhere(&[message]);
}

fn read(bytes: &[u8]) -> Result<Message, String> {
    let wrong = |bad: BadField| format!("{} {}", bad.at, bad.text);
    let incoming: IncomingMessage =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let body = incoming.body().map_err(wrong)?;
    let new = NewJsonMessage {
        exchange: incoming.exchange.as_deref().filter(|name| name.len() < 256).unwrap_or_default(),
        key: incoming.routing_key.as_deref().unwrap_or_default(),
        properties: incoming.properties,
        body: Body::Slice(&body),
        sender: Sender { user: "guest", impersonator: true },
    };
    let built = new.build(NOW_MS, &Limits::default(), &mut Vec::new());
    built.map(|(message, _)| message).map_err(wrong)
}

/// A message of any protocol is one object, and whoever sends that on sends the same message.
pub(crate) fn is_one_message(message: &Message) {
    let shown = Shown::new(message, NOW_MS, Style::Bare).to_json();
    assert!(!shown.contains('\n'), "an object is one line");
    let again: IncomingMessage = serde_json::from_str(&shown).expect("what we show can be read");
    assert_eq!(again.body().expect("a payload"), message.body());
    assert_eq!(again.exchange.as_deref(), Some(message.exchange()));
    assert_eq!(again.routing_key.as_deref(), Some(message.key()));
    let Ok(again) = read(shown.as_bytes()) else { return };
    let (mut first, mut second) = (message.properties().clone(), again.properties().clone());
    // These are of the hop: what is left of an expiry, and what a protocol leaves unsaid.
    for props in [&mut first, &mut second] {
        (props.ttl_ms, props.durable, props.qos) = (None, None, 0);
    }
    // As texts, because NaN is not equal to itself.
    assert_eq!(format!("{second:?}"), format!("{first:?}"));
}
