//! Hostile input: whatever comes, a session neither panics nor grows beyond what was sent.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use polymq_contract::{
    Answer, Command, Delivery, DisconnectCause, Effects, Event, EventBatch, Matched,
    OpenedClientSession, Peer, Protocol, ProtocolSession, PublishOutcome, Transport,
};
use polymq_model::{
    ConsumerId, Durability, Limits, Message, NewMessage, Now, PublisherId, RequestId, Seq,
    UserName, VhostName, message::Body,
};
use proptest::prelude::*;

use crate::{MQTT5, Mqtt};

fn now() -> Now {
    Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 }
}

fn session() -> Box<dyn ProtocolSession> {
    let peer = Peer {
        address: None,
        local: None,
        is_loopback: true,
        tls: None,
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: "test".into(),
        vhost: VhostName::new("/").expect("a name"),
    };
    Mqtt::default().session(&Arc::new(peer), &Arc::new(Limits::default()), now())
}

/// Answers every request with what a broker that permits everything says.
fn answers(effects: &mut Effects, events: &mut EventBatch) {
    for command in std::mem::take(&mut effects.commands) {
        let (request, answer): (RequestId, Answer) = match command {
            Command::Authenticate { request, .. } => {
                let user = UserName::new("u").expect("a name");
                let (impersonator, server_final) = (false, Vec::new());
                (request, Answer::Authenticated { user, impersonator, server_final })
            }
            Command::OpenVhost { request, .. } => (request, Answer::VhostOpened),
            Command::OpenClientSession(open) => {
                let opened = OpenedClientSession {
                    client_id: "c".to_owned(),
                    present: false,
                    subscriptions: Vec::new(),
                    in_flight: Vec::new(),
                    received: vec![1, 2],
                    unsure_before: Seq(0),
                };
                (open.request, Answer::ClientSession(Box::new(opened)))
            }
            Command::KeepInFlight { request, .. }
            | Command::ReleaseReceived { request: Some(request), .. } => (request, Answer::Done),
            Command::Subscribe { request, .. } => (request, Answer::Subscribed { existed: false }),
            Command::Unsubscribe { request, .. } => {
                (request, Answer::Unsubscribed { existed: true })
            }
            Command::Publish(publish) if publish.number > 0 => {
                let (first, last) = (publish.number, publish.number);
                let (publisher, outcome) =
                    (PublisherId(0), PublishOutcome::Routed(Durability::Sync));
                events.push(Event::Confirmed { publisher, first, last, outcome });
                continue;
            }
            _ => continue,
        };
        events.push(Event::Answered { request, answer: Box::new(Ok(answer)) });
    }
}

fn message(qos: u8) -> Message {
    NewMessage {
        format: &MQTT5,
        exchange: "amq.topic",
        key: "a.b",
        props: &[],
        body: Body::Slice(b"x"),
        durable: qos > 0,
        priority: None,
        qos,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 1,
        extra_keys: Vec::new(),
    }
    .build(&mut Vec::new())
}

/// Packets that are mostly right, so that random changes reach deep.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"\x30\x06\0\x03a/b\0".to_vec()),
        Just(b"\x32\x08\0\x03a/b\0\x07\0".to_vec()),
        Just(b"\x34\x08\0\x03a/b\0\x08\0".to_vec()),
        Just(b"\x30\x09\0\x03a/b\x03\x23\0\x01".to_vec()),
        Just(b"\x30\x06\0\0\x03\x23\0\x01".to_vec()),
        Just(b"\x62\x02\0\x08".to_vec()),
        Just(b"\x40\x02\0\x01".to_vec()),
        Just(b"\x50\x02\0\x02".to_vec()),
        Just(b"\x70\x02\0\x02".to_vec()),
        Just(b"\x82\x09\0\x05\0\0\x03a/+\x02".to_vec()),
        Just(b"\x82\x0E\0\x05\0\0\x08$queue/q\x01".to_vec()),
        Just(b"\xA2\x08\0\x06\0\0\x03a/+".to_vec()),
        Just(b"\xC0\0".to_vec()),
        Just(b"\xE0\x02\0\0".to_vec()),
        prop::collection::vec(any::<u8>(), 1..40),
    ]
}

proptest! {
    #![proptest_config(crate::test_config(400))]

    #[test]
    fn no_conversation_makes_a_session_panic(
        connect in any::<bool>(),
        packets in prop::collection::vec(packet(), 0..30),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in 1usize..60,
    ) {
        let mut bytes = Vec::new();
        if connect {
            bytes.extend(b"\x10\x11\0\x04MQTT\x05\x02\0\x3C\x03\x22\0\x02\0\x01c");
        }
        bytes.extend(packets.concat());
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let (mut session, mut effects) = (session(), Effects::default());
        let (mut input, mut events) = (BytesMut::new(), EventBatch::default());
        for (number, chunk) in (1..).zip(bytes.chunks(cuts)) {
            input.extend_from_slice(chunk);
            session.on_bytes(&mut input, now(), &mut effects);
            for _ in 0..8 {
                answers(&mut effects, &mut events);
                session.on_events(&mut events, now(), &mut effects);
                session.on_bytes(&mut input, now(), &mut effects);
            }
            if effects.close.is_some() {
                break;
            }
            let qos = u8::try_from(number % 3).expect("small");
            events.push(Event::Delivered(Delivery {
                consumer: ConsumerId(0),
                redelivered: false,
                acquired: 0,
                failed: 0,
                number,
                seq: Seq(number),
                matched: Matched { qos: 2, ..Matched::default() },
                message: message(qos),
            }));
        }
        prop_assert!(input.len() <= bytes.len());
        prop_assert!(effects.out.len() <= 64 * (bytes.len() + 64));
        session.on_disconnect(DisconnectCause::PeerGone, &mut effects);
    }
}

#[test]
fn a_topic_leads_where_its_messages_go() {
    let told = |topic: &str| Mqtt::default().destination(topic, &Limits::default()).expect("some");
    for (topic, exchange, key, delay_secs) in [
        ("a/b.c", "amq.topic", "a.b/c", 0),
        ("$queue/q", "", "q", 0),
        ("$exchange/x/a/b", "x", "a.b", 0),
        ("$delayed/5/a", "amq.topic", "a", 5),
    ] {
        let to = told(topic).expect("a destination");
        assert_eq!((&*to.exchange, &*to.key), (exchange, key), "{topic}");
        assert_eq!((to.delay.as_secs(), to.declares_queue), (delay_secs, false), "{topic}");
    }
    for topic in ["", "a/#", "a/+", "$share/g/a", "$SYS/x", "$other"] {
        assert!(told(topic).is_err(), "{topic}");
    }
}
