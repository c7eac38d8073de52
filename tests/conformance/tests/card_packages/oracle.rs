//! Well-formed packets that our codec writes are read the same by mqttbytes, and the other way
//! round. Exceptions are the facts in `mqttbytes.rs`.

use bytes::{Bytes, BytesMut};
use mqttbytes::{
    QoS,
    v4::{self, Packet},
    v5,
};
use polymq_mqtt::codec::{
    Header, PacketKind, Reason, Version,
    ack::Ack,
    publish::{Publish, PublishHead},
    subscribe::Subscribe,
    writer::{Properties, put_ack},
};
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};

fn qos(level: u8) -> QoS {
    mqttbytes::qos(level).unwrap()
}

const ACKS: [PacketKind; 4] =
    [PacketKind::Puback, PacketKind::Pubrec, PacketKind::Pubrel, PacketKind::Pubcomp];

/// The header of a packet that is whole, and its body.
fn whole(bytes: &[u8]) -> (Header, &[u8]) {
    let header = Header::decode(bytes).unwrap().unwrap();
    assert_eq!(header.total(), bytes.len());
    (header, &bytes[header.len..])
}

fn config() -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(1);
    ProptestConfig { cases: 300, failure_persistence: None, rng_seed, ..Default::default() }
}

/// Fields of a PUBLISH. Topics hold what both sides accept.
fn fields() -> impl Strategy<Value = (bool, u8, bool, String, u16, Vec<u8>)> {
    let topic = "[a-z0-9/é$ ]{1,40}";
    (any::<bool>(), 0_u8..3, any::<bool>(), topic, 1_u16.., vec(any::<u8>(), 0..300)).prop_map(
        |(dup, qos, retain, topic, packet_id, payload)| {
            let packet_id = if qos == 0 { 0 } else { packet_id };
            (dup && qos > 0, qos, retain, topic, packet_id, payload)
        },
    )
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn our_publish_of_mqtt_3_is_read_by_the_oracle(
        (dup, level, retain, topic, packet_id, payload) in fields(),
    ) {
        let version = Version::V311;
        let (topic, qos, properties) = (topic.as_str(), level, &[]);
        let head = PublishHead { version, dup, qos, retain, packet_id, topic, properties };
        let mut bytes = BytesMut::new();
        head.put(&mut bytes, payload.len());
        bytes.extend_from_slice(&payload);
        let found = v4::read(&mut bytes, 4096).unwrap();
        let payload = Bytes::from(payload);
        let (qos, topic) = (mqttbytes::qos(level).unwrap(), topic.to_owned());
        let expected = v4::Publish { dup, qos, retain, topic, pkid: packet_id, payload };
        prop_assert_eq!(found, Packet::Publish(expected));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn publish_of_mqtt_3_by_the_oracle_is_read_by_us(
        (dup, level, retain, topic, packet_id, payload) in fields(),
    ) {
        let theirs = v4::Publish {
            dup,
            qos: qos(level),
            retain,
            topic: topic.clone(),
            pkid: packet_id,
            payload: Bytes::from(payload.clone()),
        };
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).unwrap();
        let (header, body) = whole(&bytes);
        prop_assert!(header.check(Version::V311).is_ok());
        let found = Publish::decode(header.flags, body, Version::V311).unwrap();
        prop_assert_eq!((found.dup, found.qos, found.retain), (dup, level, retain));
        prop_assert_eq!((found.topic, found.packet_id), (topic.as_str(), packet_id));
        prop_assert_eq!(found.payload, payload);
    }

    #[test]
    fn our_publish_of_mqtt_5_is_read_by_the_oracle(
        (dup, level, retain, topic, packet_id, payload) in fields(),
        users in vec(("[a-z]{0,5}", "[a-z é]{0,9}"), 0..4),
    ) {
        let mut properties = Properties::default();
        users.iter().for_each(|(name, value)| properties.user(name, value));
        let head = PublishHead {
            version: Version::V5,
            dup,
            qos: level,
            retain,
            packet_id,
            topic: &topic,
            properties: properties.as_bytes(),
        };
        let mut bytes = BytesMut::new();
        head.put(&mut bytes, payload.len());
        bytes.extend_from_slice(&payload);
        let v5::Packet::Publish(found) = v5::read(&mut bytes, 65_536).unwrap() else {
            panic!("not a PUBLISH")
        };
        prop_assert_eq!((found.dup, found.qos, found.retain), (dup, qos(level), retain));
        prop_assert_eq!((found.topic, found.pkid), (topic, packet_id));
        prop_assert_eq!(&found.payload[..], payload);
        prop_assert_eq!(found.properties.map_or(Vec::new(), |p| p.user_properties), users);
    }

    #[test]
    fn our_acknowledgements_are_read_by_the_oracle(packet_id in 1_u16..) {
        for kind in ACKS {
            let mut bytes = BytesMut::new();
            put_ack(&mut bytes, kind, packet_id, Reason::SUCCESS, None);
            let found = match v4::read(&mut bytes.clone(), 16).unwrap() {
                Packet::PubAck(ack) => (PacketKind::Puback, ack.pkid),
                Packet::PubRec(ack) => (PacketKind::Pubrec, ack.pkid),
                Packet::PubRel(ack) => (PacketKind::Pubrel, ack.pkid),
                Packet::PubComp(ack) => (PacketKind::Pubcomp, ack.pkid),
                other => panic!("not an acknowledgement: {other:?}"),
            };
            prop_assert_eq!(found, (kind, packet_id));
            let (header, body) = whole(&bytes);
            let ours = Ack::decode(kind, body, Version::V311, 0).unwrap();
            prop_assert_eq!((header.kind, ours.packet_id), (kind, packet_id));
        }
    }

    #[test]
    fn acknowledgements_by_the_oracle_are_read_by_us(packet_id in 1_u16..) {
        let mut bytes = BytesMut::new();
        v4::PubAck::new(packet_id).write(&mut bytes).unwrap();
        v4::PubRec::new(packet_id).write(&mut bytes).unwrap();
        v4::PubRel::new(packet_id).write(&mut bytes).unwrap();
        v4::PubComp::new(packet_id).write(&mut bytes).unwrap();
        prop_assert_eq!(bytes.len(), 16);
        for (kind, bytes) in ACKS.into_iter().zip(bytes.chunks(4)) {
            let (header, body) = whole(bytes);
            prop_assert!(header.kind == kind && header.check(Version::V5).is_ok());
            let found = Ack::decode(kind, body, Version::V5, 0).unwrap();
            prop_assert_eq!(found, Ack { packet_id, reason: Reason::SUCCESS, text: None });
        }
    }

    #[test]
    fn subscribes_by_the_oracle_are_read_by_us(
        packet_id in 1_u16..,
        filters in vec(("[a-z/+]{1,20}", 0_u8..3), 1..5),
        id in 1_usize..268_435_455,
    ) {
        let of_4 = filters
            .iter()
            .map(|(path, level)| v4::SubscribeFilter::new(path.clone(), qos(*level)));
        let mut theirs = v4::Subscribe::new_many(of_4);
        theirs.pkid = packet_id;
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).unwrap();
        let (header, body) = whole(&bytes);
        prop_assert!(header.check(Version::V311).is_ok());
        let found = Subscribe::decode(body, Version::V311, 0).unwrap();
        prop_assert_eq!((found.packet_id, found.id), (packet_id, None));
        let read: Vec<_> = found.filters.iter().map(|f| (f.filter.to_owned(), f.qos)).collect();
        prop_assert_eq!(&read, &filters);

        let of_5 = filters.iter().map(|(path, level)| {
            let mut filter = v5::SubscribeFilter::new(path.clone(), qos(*level));
            filter.set_nolocal(*level == 1).set_preserve_retain(*level == 2);
            filter
        });
        let mut theirs = v5::Subscribe::new_many(of_5);
        theirs.pkid = packet_id;
        theirs.properties =
            Some(v5::SubscribeProperties { id: Some(id), user_properties: Vec::new() });
        let mut bytes = BytesMut::new();
        theirs.write(&mut bytes).unwrap();
        let (header, body) = whole(&bytes);
        prop_assert!(header.check(Version::V5).is_ok());
        let found = Subscribe::decode(body, Version::V5, 0).unwrap();
        prop_assert_eq!((found.packet_id, found.id), (packet_id, u32::try_from(id).ok()));
        for (ours, (path, level)) in found.filters.iter().zip(&filters) {
            prop_assert_eq!((ours.filter, ours.qos), (path.as_str(), *level));
            prop_assert_eq!((ours.no_local, ours.retain_as_published), (*level == 1, *level == 2));
        }
    }
}
