//! mqttbytes 0.6: what keeps it off the wire.

use bytes::BytesMut;
use mqttbytes::{Error, v4, v5};

use crate::in_child;

fn read_4(bytes: &[u8]) -> Result<v4::Packet, Error> {
    v4::read(&mut BytesMut::from(bytes), 1024)
}

fn read_5(bytes: &[u8]) -> Result<v5::Packet, Error> {
    v5::read(&mut BytesMut::from(bytes), 1024)
}

#[test] // MQTT 5, section 3.14: a remaining length of 0 means reason code 0.
fn ordinary_disconnect_of_mqtt_5_is_refused() {
    assert!(matches!(read_5(&[0xE0, 0]), Err(Error::PayloadRequired)));
}

#[test] // MQTT 5, section 3.14: the properties may be missing.
fn disconnect_with_a_reason_is_swallowed_as_if_it_were_cut() {
    let mut bytes = BytesMut::from(&[0xE0, 1, 4][..]);
    let found = v5::read(&mut bytes, 1024);
    assert!(matches!(found, Err(Error::InsufficientBytes(_))), "{found:?}");
    assert!(bytes.is_empty(), "a server would wait for a packet that it has lost");
}

#[test] // MQTT 5, section 3.15
fn auth_does_not_exist() {
    assert!(matches!(read_5(&[0xF0, 2, 0x18, 0]), Err(Error::InvalidPacketType(15))));
}

#[test] // MQTT 3.1.1, section 3.1.3.5: a password is binary data.
fn password_that_is_not_text_is_refused() {
    let connect = b"\x10\x13\0\x04MQTT\x04\xC2\0\x3C\0\x01c\0\x01u\0\x01\xFF";
    assert!(matches!(read_4(connect), Err(Error::TopicNotUtf8)), "{:?}", read_4(connect));
}

#[test]
fn mqtt_3_1_is_refused() {
    let connect = b"\x10\x0F\0\x06MQIsdp\x03\x02\0\x3C\0\x01c";
    assert!(matches!(read_4(connect), Err(Error::InvalidProtocol)), "{:?}", read_4(connect));
}

#[test]
fn unsubscribe_of_mqtt_5_writes_to_standard_error() {
    let unsubscribe = [0xA2, 6, 0, 1, 0, 0, 1, b'a'];
    match in_child("mqttbytes::unsubscribe_of_mqtt_5_writes_to_standard_error") {
        None => drop(read_5(&unsubscribe)),
        Some(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.contains("unsubscribe.rs"), "{said}");
        }
    }
}

#[test]
fn what_the_specification_calls_malformed_is_accepted() {
    for (bytes, rule) in [
        (&[0x41, 2, 0, 1][..], "[MQTT-2.1.3-1]: reserved flags"),
        (&[0x40, 2, 0, 0], "[MQTT-2.2.1-3]: packet id 0"),
        (&[0x82, 2, 0, 1], "[MQTT-3.8.3-2]: SUBSCRIBE without a filter"),
        (&[0x30, 4, 0, 1, 0, b'x'], "[MQTT-1.5.4-2]: NUL in a topic"),
        (&[0x30, 3, 0, 1, b'#'], "[MQTT-3.3.2-2]: a wildcard in a topic"),
        (&[0x40, 4, 0, 1, 9, 9], "bytes behind the last field"),
    ] {
        assert!(read_4(bytes).is_ok(), "no longer accepted: {rule}: {:?}", read_4(bytes));
    }
}

#[test]
fn topic_that_begins_with_a_long_character_panics() {
    // The panic is theirs; ours to see is that there is one.
    let panicked = std::panic::catch_unwind(|| mqttbytes::matches("é", "é"));
    assert!(panicked.is_err());
}
