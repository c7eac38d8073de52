//! Publishes: whole, in pieces, large, and with properties that mean something to the broker.

use polymq_model::delay::Delay;

use super::*;

#[test]
fn publish_of_one_read_becomes_one_command() {
    let mut world = World::open();
    let list = props(&Props {
        content_type: Some(b"text/plain"),
        delivery_mode: Some(2),
        priority: Some(7),
        ..Props::default()
    });
    let mut bytes = publish_frames(1, ("amq.topic", "a.b"), true, &list, &[b"one"]);
    bytes.extend(publish_frames(1, ("", "q"), false, &[0, 0], &[]));
    world.bytes(&bytes);
    let commands = world.commands();
    let [Command::Publish(first), Command::Publish(second)] = &commands[..] else {
        panic!("two publishes expected: {commands:?}")
    };
    assert!(first.mandatory && !second.mandatory);
    assert_eq!((first.number, second.number), (0, 0));
    let message = &first.message;
    assert_eq!((message.exchange(), message.key()), ("amq.topic", "a.b"));
    assert_eq!((message.native_props(), message.body()), (&list[..], &b"one"[..]));
    assert!(message.is_durable());
    assert_eq!((message.priority(), message.qos()), (Some(7), 1));
    assert_eq!(message.arrived_ms(), world.now.unix_ms);
    assert_eq!(second.message.body(), b"");
}

#[test]
fn publish_split_at_every_byte_stays_the_same() {
    let list = props(&Props { message_id: Some(b"m"), ..Props::default() });
    let bytes = publish_frames(1, ("x", "key"), true, &list, &[b"first ", b"second"]);
    for at in 1..bytes.len() {
        let mut world = World::open();
        let (head, tail) = bytes.split_at(at);
        world.bytes(head);
        assert!(world.commands().is_empty());
        world.bytes(tail);
        let publish = world.published();
        assert_eq!(publish.message.body(), b"first second");
        assert_eq!(publish.message.native_props(), list);
        assert_eq!((publish.message.key(), publish.mandatory), ("key", true));
        assert!(world.input.is_empty());
    }
}

#[test]
fn large_body_is_kept_by_reference() {
    let mut world = World::open();
    let body = vec![7; 100_000];
    let mut bytes = publish_frames(1, ("", "q"), false, &[0, 0], &[&body]);
    bytes.extend(publish_frames(1, ("", "q"), false, &[0, 0], &[b"next"]));
    world.bytes(&bytes);
    let commands = world.commands();
    let [Command::Publish(large), Command::Publish(next)] = &commands[..] else {
        panic!("two publishes expected")
    };
    assert_eq!(large.message.large_body().unwrap(), &body);
    assert_eq!(next.message.body(), b"next");
}

#[test]
fn body_of_many_frames_is_put_together() {
    let mut world = World::open();
    let parts: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 120_000]).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &slices));
    assert_eq!(world.published().message.body(), parts.concat());
}

#[test]
fn message_above_the_limit_is_406_before_its_body_comes() {
    let limits = Limits { message_bytes_max: 100, ..Limits::default() };
    let mut world = World::open_with(limits);
    let bytes = publish_frames(1, ("", "q"), false, &[0, 0], &[&[0; 50], &[0; 51]]);
    world.bytes(&bytes[..bytes.len() - 10]);
    let text = world.expect_channel_close(406, (60, 40));
    assert!(text.ends_with("message size 101 is larger than configured max size 100"), "{text}");
    world.bytes(&bytes[bytes.len() - 10..]);
    world.expect_nothing();
    let mut world = World::open_with(Limits { message_bytes_max: 100, ..Limits::default() });
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[&[0; 101]]));
    world.expect_channel_close(406, (60, 40));
}

#[test]
fn key_must_be_text_without_nul() {
    for key in [&b"a\0b"[..], b"\xff"] {
        let mut world = World::open();
        let mut payload = vec![0, 60, 0, 40, 0, 0, 0, u8::try_from(key.len()).unwrap()];
        payload.extend_from_slice(key);
        payload.push(0);
        let mut out = BytesMut::new();
        frame::put(&mut out, frame::METHOD, 1, &payload);
        put_content_header(&mut out, 1, 0, &[0, 0]);
        world.bytes(&out);
        world.expect_channel_close(406, (60, 40));
    }
}

fn publish_props(world: &mut World, list: &Props<'_>) {
    let list = props(list);
    world.bytes(&publish_frames(1, ("", "q"), false, &list, &[b"x"]));
}

#[test]
fn expiration_becomes_a_deadline_or_406() {
    for (text, after) in [
        ("1500", Some(1500)),
        ("0", Some(0)),
        ("99999999999999999999", None),
        ("+5", None),
        ("x", None),
    ] {
        let mut world = World::open();
        let expiration = Some(text.as_bytes());
        publish_props(&mut world, &Props { expiration, ..Props::default() });
        match after {
            None => {
                world.expect_channel_close(406, (60, 40));
            }
            Some(after) => {
                let message = world.published().message;
                assert_eq!(message.deadline_ms(), world.now.unix_ms + after);
            }
        }
    }
}

#[test]
fn user_id_of_somebody_else_is_406() {
    let mut world = World::open();
    publish_props(&mut world, &Props { user_id: Some(b"guest"), ..Props::default() });
    world.published();
    publish_props(&mut world, &Props { user_id: Some(b"root"), ..Props::default() });
    let text = world.expect_channel_close(406, (60, 40));
    assert!(text.ends_with("user_id property set to 'root' but authenticated user was 'guest'"));
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn reserved_headers_are_removed_and_others_kept_as_they_are() {
    let mut world = World::open();
    let table = headers(&[
        ("x-death", Value::List(vec![])),
        ("a", Value::I32(1)),
        ("x-death", text("again")),
        ("x-mine", text("kept")),
    ]);
    publish_props(
        &mut world,
        &Props { headers: Some(&table), app_id: Some(b"app"), ..Props::default() },
    );
    let kept = headers(&[("a", Value::I32(1)), ("x-mine", text("kept"))]);
    let expected = props(&Props { headers: Some(&kept), app_id: Some(b"app"), ..Props::default() });
    assert_eq!(world.published().message.native_props(), expected);
}

#[test]
fn cc_and_bcc_add_keys_and_bcc_disappears() {
    let mut world = World::open();
    let table = headers(&[
        ("CC", Value::List(vec![text("x")])),
        ("BCC", Value::List(vec![text("y"), text("z")])),
    ]);
    publish_props(&mut world, &Props { headers: Some(&table), ..Props::default() });
    let message = world.published().message;
    let keys: Vec<&str> = message.extra_keys().iter().map(|key| &**key).collect();
    assert_eq!(keys, ["x", "y", "z"]);
    let kept = headers(&[("CC", Value::List(vec![text("x")]))]);
    assert_eq!(message.native_props(), props(&Props { headers: Some(&kept), ..Props::default() }));
    let wrong = headers(&[("CC", text("x"))]);
    publish_props(&mut world, &Props { headers: Some(&wrong), ..Props::default() });
    world.expect_channel_close(406, (60, 40));
}

#[test]
fn a_delay_is_taken_out_of_the_headers() {
    let mut world = World::open();
    let publish = |world: &mut World, pairs: &[(&str, Value)]| {
        let table = headers(pairs);
        publish_props(world, &Props { headers: Some(&table), ..Props::default() });
    };
    let mine = ("mine", Value::I32(1));
    publish(&mut world, &[("x-delay", text("5000")), mine.clone()]);
    let published = world.published();
    assert_eq!(published.delay, Some(Delay::For(5000)));
    let kept = headers(std::slice::from_ref(&mine));
    let expected = props(&Props { headers: Some(&kept), ..Props::default() });
    assert_eq!(published.message.native_props(), expected);
    // A message that has been delayed may be published as it came.
    let again = [("x-delay", Value::I64(-5000)), mine];
    publish(&mut world, &again);
    let published = world.published();
    assert_eq!(published.delay, None);
    let kept = headers(&again);
    let expected = props(&Props { headers: Some(&kept), ..Props::default() });
    assert_eq!(published.message.native_props(), expected);
    publish(&mut world, &[("x-delay", text("soon"))]);
    world.expect_channel_close(406, (60, 40));
}

#[test]
fn retain_and_carried_quality_of_service_are_read() {
    let mut world = World::open();
    let table = headers(&[("x-retain", Value::Bool(true)), ("x-mq-qos", Value::I64(2))]);
    publish_props(&mut world, &Props { headers: Some(&table), ..Props::default() });
    let message = world.published().message;
    assert!(message.retain());
    assert_eq!(message.qos(), 2);
}

#[test]
fn direct_reply_to_becomes_the_name_of_the_reply_consumer() {
    let mut world = World::open();
    let reply = Props { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Props::default() };
    let consume = |no_ack| {
        basic::AMQPMethod::Consume(basic::Consume {
            queue: "amq.rabbitmq.reply-to".into(),
            consumer_tag: "".into(),
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: true,
            arguments: Default::default(),
        })
    };
    world.basic(1, consume(true));
    let request = world.request();
    let reply_name = Some("amq.rabbitmq.reply-to.abc".to_owned());
    world.answer(request, Ok(Answer::Consuming { reply_name }));
    world.expect_nothing();
    publish_props(&mut world, &reply);
    let expected =
        props(&Props { reply_to: Some(b"amq.rabbitmq.reply-to.abc"), ..Props::default() });
    assert_eq!(world.published().message.native_props(), expected);
    world.basic(1, consume(true));
    world.expect_channel_close(406, (60, 20));

    let mut world = World::open();
    publish_props(&mut world, &reply);
    world.expect_channel_close(406, (60, 40));
    let mut world = World::open();
    world.basic(1, consume(false));
    world.expect_channel_close(406, (60, 20));
}

#[test]
fn refused_publish_closes_its_channel() {
    let mut world = World::open();
    world.bytes(&publish_frames(1, ("missing", "k"), false, &[0, 0], &[b"x"]));
    let publisher = world.published().publisher;
    let refusal = Box::new(Refusal::new(RefusalKind::NotFound, "no exchange 'missing'"));
    world.event(Event::PublishRefused { publisher, number: 0, refusal });
    let text = world.expect_channel_close(404, (60, 40));
    assert_eq!(text, "NOT_FOUND - no exchange 'missing'");
}

#[test]
fn broker_knows_which_channel_commands_come_from() {
    let mut world = World::open();
    world.open_channel(2);
    let channels = |world: &mut World| -> Vec<_> {
        let commands = std::mem::take(&mut world.effects.commands);
        let named = |command: &Command| match command {
            Command::EnterChannel { publisher, .. } => Some((true, publisher.0 & 0xFFFF)),
            Command::LeaveChannel { publisher } => Some((false, publisher.0 & 0xFFFF)),
            _ => None,
        };
        commands.iter().filter_map(named).collect()
    };
    let publish = |channel| publish_frames(channel, ("x", "k"), false, &[0, 0], &[b"x"]);
    world.bytes(&[publish(1), publish(1), publish(2), publish(1)].concat());
    assert_eq!(channels(&mut world), [(true, 1), (true, 2), (true, 1)]);
    let publisher = polymq_model::PublisherId(1 << 16 | 1);
    let refusal = Box::new(Refusal::new(RefusalKind::NotFound, "no exchange 'x'"));
    world.event(Event::PublishRefused { publisher, number: 0, refusal });
    assert_eq!(channels(&mut world), [(false, 1)]);
}

#[test]
fn mandatory_message_comes_back() {
    let mut world = World::open();
    world.bytes(&publish_frames(1, ("x", "nowhere"), true, &[0, 0], &[b"back"]));
    let publish = world.published();
    let (publisher, message) = (publish.publisher, publish.message);
    world.event(Event::Returned { publisher, message });
    let (method, list, body) = world.content();
    let expected = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "x".into(),
        routing_key: "nowhere".into(),
    };
    assert_eq!(method, basic::AMQPMethod::Return(expected));
    assert_eq!((&list[..], &body[..]), (&[0, 0][..], &b"back"[..]));
}
