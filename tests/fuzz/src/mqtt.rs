//! Targets for MQTT 3.1, 3.1.1 and 5.

use bytes::BytesMut;
use polymq_mqtt::{
    Mqtt,
    codec::{
        Header, PacketKind, Reader, Reason, Version,
        ack::{Ack, Auth, Disconnect},
        connect::Connect,
        property::{Place, PropertyReader, read_stored},
        publish::{Publish, PublishHead},
        reader::var_int,
        subscribe::{Subscribe, Unsubscribe},
        writer::{put_ack, put_var_int},
    },
};

use crate::{
    amqp::deliver_everywhere,
    conversation::{Conversation, in_pieces},
    seeds,
};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
/// User properties and the like that a packet may hold here.
const ENTRIES_MAX: usize = 1024;

/// Bytes from somebody who has not logged in.
pub fn stranger(bytes: &[u8]) {
    in_pieces(|| Conversation::alone(&Mqtt::default()), bytes);
    in_pieces(|| Conversation::new(&Mqtt::default()), bytes);
}

fn connected(level: u8) -> Conversation {
    let mut client = Conversation::new(&Mqtt::default());
    client.feed(&seeds::mqtt_connect(level));
    client.settle();
    client
}

/// A client of this level that subscribes to everything.
pub fn subscriber(level: u8) -> Conversation {
    let mut client = connected(level);
    client.feed(&seeds::mqtt_subscribe(level));
    client.settle();
    client
}

fn level(byte: u8) -> u8 {
    3 + byte % 3
}

/// Any bytes on a connection that is logged in; the first one chooses its version.
pub fn session(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let client = in_pieces(|| connected(level(*mode)), rest);
    deliver_everywhere(&client.published);
}

/// One such connection, fed in one piece.
pub fn connect_and_feed(bytes: &[u8]) -> Conversation {
    let (mode, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut client = connected(level(*mode));
    client.feed(rest);
    client.settle();
    client
}

/// Whole packets with any content, valid ones in any order among them.
///
/// Each piece of the input is the first byte, a length and a body; the length is right.
pub fn packets(bytes: &[u8]) {
    let Some((mode, mut rest)) = bytes.split_first() else { return };
    let mut packets = Vec::new();
    while let [first, len, tail @ ..] = rest {
        let (body, after) = tail.split_at(usize::from(*len).min(tail.len()));
        packets.push(*first);
        put_var_int(&mut packets, body.len());
        packets.extend_from_slice(body);
        rest = after;
    }
    let client = in_pieces(|| connected(level(*mode)), &packets);
    deliver_everywhere(&client.published);
}

/// Packets without a session: decode, encode, decode gives the same.
pub fn codec(bytes: &[u8]) {
    var_ints(bytes);
    let mut stored = Reader::new(bytes);
    while read_stored(&mut stored).is_ok() {}
    for place in [Place::Connect, Place::Will, Place::Publish, Place::Ack, Place::Auth] {
        let _ = PropertyReader::new(bytes, place, ENTRIES_MAX).check_all();
    }
    let Ok(Some(header)) = Header::decode(bytes) else { return };
    let Some(body) = bytes.get(header.len..header.total()) else { return };
    let _ = Connect::decode(body, ENTRIES_MAX);
    let _ = Auth::decode(body, ENTRIES_MAX);
    for version in VERSIONS {
        let _ = header.check(version);
        publish(header.flags, body, version);
        acks(body, version);
        let _ = Disconnect::decode(body, version, ENTRIES_MAX);
        if let Ok(found) = Subscribe::decode(body, version, ENTRIES_MAX) {
            assert!(found.filters.len() <= body.len() / 3, "a filter has three bytes or more");
        }
        if let Ok(found) = Unsubscribe::decode(body, version, ENTRIES_MAX) {
            assert!(found.filters.len() <= body.len() / 2, "a filter has two bytes or more");
        }
    }
}

fn var_ints(bytes: &[u8]) {
    let Ok(Some(found)) = var_int(bytes) else { return };
    let mut encoded = Vec::new();
    put_var_int(&mut encoded, usize::try_from(found.value).unwrap_or(0));
    assert_eq!(found.minimal, encoded.len() == found.len);
    if found.minimal {
        assert_eq!(Some(encoded.as_slice()), bytes.get(..found.len));
    }
}

fn publish(flags: u8, body: &[u8], version: Version) {
    let Ok(first) = Publish::decode(flags, body, version) else { return };
    let Publish { dup, qos, retain, topic, packet_id, properties, payload } = first;
    let head = PublishHead { version, dup, qos, retain, packet_id, topic, properties };
    let mut encoded = BytesMut::new();
    head.put(&mut encoded, payload.len());
    encoded.extend_from_slice(payload);
    assert_eq!(encoded.len(), head.packet_len(payload.len()));
    let header = Header::decode(&encoded).ok().flatten().expect("our own header");
    assert_eq!(header.total(), encoded.len());
    let body = encoded.get(header.len..).unwrap_or_default();
    assert_eq!(Publish::decode(header.flags, body, version), Ok(first));
}

fn acks(body: &[u8], version: Version) {
    for kind in [PacketKind::Puback, PacketKind::Pubrec, PacketKind::Pubrel, PacketKind::Pubcomp] {
        let Ok(first) = Ack::decode(kind, body, version, ENTRIES_MAX) else { continue };
        let mut encoded = BytesMut::new();
        put_ack(&mut encoded, kind, first.packet_id, first.reason, None);
        let header = Header::decode(&encoded).ok().flatten().expect("our own header");
        let body = encoded.get(header.len..).unwrap_or_default();
        assert_eq!(Ack::decode(kind, body, version, ENTRIES_MAX), Ok(first));
        assert!(version == Version::V5 || first.reason == Reason::SUCCESS);
    }
}
