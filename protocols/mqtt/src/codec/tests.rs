#![expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    ack::{Ack, Auth, Disconnect},
    connect::Connect,
    property::{id, read_stored},
    publish::{Publish, PublishHead},
    reader::var_int,
    subscribe::{Subscribe, Unsubscribe},
    writer::{Properties, put_ack, put_var_int, reason_string, var_int_len},
    *,
};

#[test] // MQTT 5, section 1.5.5, table 1-1.
fn variable_byte_integers_have_the_bounds_of_the_specification() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ] {
        let mut out = Vec::new();
        put_var_int(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(var_int_len(value), bytes.len());
        let read = var_int(bytes).unwrap().unwrap();
        assert_eq!((read.value as usize, read.len, read.minimal), (value, bytes.len(), true));
    }
}

#[test] // MQTT 5, section 1.5.5: at most four bytes, and no more than needed.
fn variable_byte_integers_that_are_too_long_are_refused() {
    assert!(var_int(&[0x80, 0x80, 0x80, 0x80, 0x01]).is_err());
    assert!(var_int(&[0x80, 0x80, 0x80, 0x80]).is_err());
    assert_eq!(var_int(&[0x80, 0x80, 0x80]).unwrap(), None);
    assert!(!var_int(&[0x80, 0x00]).unwrap().unwrap().minimal);
    assert!(Reader::new(&[0x80, 0x00]).var_int().is_err());
}

#[test] // [MQTT-1.5.4-1] and [MQTT-1.5.4-2].
fn strings_that_are_not_text_are_refused() {
    for bytes in [&[0, 3, 0xED, 0xA0, 0x80][..], &[0, 1, 0xFF], &[0, 2, 0xC0, 0x80], &[0, 1, 0]] {
        assert!(Reader::new(bytes).text().is_err(), "{bytes:?}");
    }
    // [MQTT-1.5.4-3]: a byte order mark is text like any other.
    assert_eq!(Reader::new(&[0, 3, 0xEF, 0xBB, 0xBF]).text(), Ok("\u{FEFF}"));
}

#[test] // [MQTT-2.1.3-1]
fn reserved_flags_are_refused_except_where_version_3_1_permits_them() {
    for first in [0x11, 0x41, 0x60, 0x80, 0xA0, 0xC1, 0xE2, 0xF1] {
        let header = Header::decode(&[first, 0]).unwrap().unwrap();
        assert!(header.check(Version::V5).is_err(), "{first:x}");
    }
    let resent = Header::decode(&[0x8A, 0]).unwrap().unwrap();
    assert!(resent.check(Version::V31).is_ok());
    assert!(resent.check(Version::V311).is_err());
    assert!(Header::decode(&[0x00, 0]).is_err());
}

#[test] // MQTT 5, section 2.2.2.
fn properties_out_of_place_or_doubled_are_refused() {
    let mut doubled = Properties::default();
    doubled.u8(id::PAYLOAD_FORMAT, 1);
    doubled.u8(id::PAYLOAD_FORMAT, 1);
    let mut elsewhere = Properties::default();
    elsewhere.u32(id::SESSION_EXPIRY, 1);
    let mut server_only = Properties::default();
    server_only.var_int(id::SUBSCRIPTION_ID, 3);
    for properties in [doubled, elsewhere, server_only] {
        let reader = PropertyReader::new(properties.as_bytes(), Place::Publish, 10);
        assert_eq!(reader.check_all().unwrap_err().reason, Reason::PROTOCOL_ERROR);
    }
    let unknown = PropertyReader::new(&[0x7E, 0], Place::Publish, 10).check_all();
    assert_eq!(unknown.unwrap_err().reason, Reason::MALFORMED_PACKET);
}

#[test]
fn user_properties_are_counted() {
    let mut many = Properties::default();
    for _ in 0..3 {
        many.user("a", "b");
    }
    assert!(PropertyReader::new(many.as_bytes(), Place::Publish, 3).check_all().is_ok());
    let refused = PropertyReader::new(many.as_bytes(), Place::Publish, 2).check_all();
    assert_eq!(refused.unwrap_err().reason, Reason::QUOTA_EXCEEDED);
}

#[test]
fn acknowledgements_are_as_short_as_they_can_be() {
    let mut out = BytesMut::new();
    put_ack(&mut out, PacketKind::Puback, 7, Reason::SUCCESS, None);
    put_ack(&mut out, PacketKind::Pubrel, 8, Reason::PACKET_ID_NOT_FOUND, None);
    put_ack(
        &mut out,
        PacketKind::Pubrec,
        9,
        Reason::QUOTA_EXCEEDED,
        Some(&reason_string(Some("no"))),
    );
    let expected = [
        &[0x40, 2, 0, 7][..],
        &[0x62, 3, 0, 8, 0x92],
        &[0x50, 9, 0, 9, 0x97, 5, 0x1F, 0, 2, b'n', b'o'],
    ];
    assert_eq!(out, expected.concat());
}

#[test] // MQTT 5, section 3.1.2.1: an answer in the version that the client can read.
fn unknown_versions_are_told_apart() {
    let version = |bytes: &[u8]| Connect::decode(bytes, 10).unwrap_err().version;
    assert_eq!(version(b"\0\x04MQTT\x06"), Some(Version::V5));
    assert_eq!(version(b"\0\x04MQTT\x03"), Some(Version::V311));
    assert_eq!(version(b"\0\x04MQTT\x84"), Some(Version::V311));
    assert_eq!(version(b"\0\x06MQIsdp\x04"), Some(Version::V311));
    assert_eq!(version(b"\0\x04HTTP\x04"), None);
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

proptest! {
    #![proptest_config(crate::test_config(500))]

    #[test]
    fn variable_byte_integers_come_back(value in 0usize..=268_435_455) {
        let mut out = Vec::new();
        put_var_int(&mut out, value);
        prop_assert_eq!(out.len(), var_int_len(value));
        prop_assert_eq!(Reader::new(&out).var_int().unwrap() as usize, value);
    }

    #[test]
    fn publishes_come_back(
        version in any_version(),
        qos in 0u8..3,
        dup: bool,
        retain: bool,
        topic in "[a-z/é]{1,40}",
        packet_id in 1u16..,
        names in prop::collection::vec(("[a-c]{0,3}", "[x-z€]{0,9}"), 0..4),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut properties = Properties::default();
        for (name, value) in &names {
            properties.user(name, value);
        }
        let packet_id = if qos == 0 { 0 } else { packet_id };
        let dup = dup && qos > 0;
        let is_5 = version == Version::V5;
        let head = PublishHead {
            version, dup, qos, retain, packet_id, topic: &topic,
            properties: if is_5 { properties.as_bytes() } else { &[] },
        };
        let mut out = BytesMut::new();
        head.put(&mut out, payload.len());
        out.extend_from_slice(&payload);
        prop_assert_eq!(out.len(), head.packet_len(payload.len()));
        let header = Header::decode(&out).unwrap().unwrap();
        prop_assert_eq!(header.total(), out.len());
        let read = Publish::decode(header.flags, &out[header.len..], version).unwrap();
        prop_assert_eq!((read.qos, read.dup, read.retain), (qos, dup, retain));
        prop_assert_eq!((read.topic, read.packet_id), (topic.as_str(), packet_id));
        prop_assert_eq!(read.properties, head.properties);
        prop_assert_eq!(read.payload, payload.as_slice());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        version in any_version(),
        flags in 0u8..16,
    ) {
        let _ = Header::decode(&bytes);
        let _ = Connect::decode(&bytes, 8);
        let _ = Publish::decode(flags, &bytes, version);
        let _ = Subscribe::decode(&bytes, version, 8);
        let _ = Unsubscribe::decode(&bytes, version, 8);
        let _ = Disconnect::decode(&bytes, version, 8);
        let _ = Auth::decode(&bytes, 8);
        for kind in [PacketKind::Puback, PacketKind::Pubrel] {
            let _ = Ack::decode(kind, &bytes, version, 8);
        }
        let mut reader = Reader::new(&bytes);
        while read_stored(&mut reader).is_ok() {}
    }

    #[test]
    fn connects_with_damaged_bytes_never_panic(
        at in 0usize..80,
        value: u8,
        keep in 0usize..80,
    ) {
        let mut bytes = [
            &b"\0\x04MQTT\x05\xEE\0\x3C\x05\x11\0\0\0\x0A\0\x02id"[..],
            b"\x05\x18\0\0\0\x01\0\x01w\0\x03bye\0\x01u\0\x01p",
        ]
        .concat();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        bytes.truncate(keep);
        let _ = Connect::decode(&bytes, 8);
    }
}
