//! Every mistake has its reply code, class and method; soft ones cost the channel only.

use amq_protocol::protocol::tx;

use super::*;

fn channel_close() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
        reply_code: 200,
        reply_text: "".into(),
        class_id: 0,
        method_id: 0,
    }))
}

fn channel_close_ok() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

#[test]
fn frame_of_4_gib_is_refused_by_its_header() {
    let mut world = World::open();
    world.bytes(&[1, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]);
    world.expect_connection_close(501, (0, 0));
    // What follows cannot be told apart from the rest of that frame.
    world.bytes(b"anything");
    world.expect_nothing();
}

#[test]
fn wrong_frame_end_and_unknown_frame_type_are_501() {
    let mut world = World::open();
    world.bytes(&[8, 0, 0, 0, 0, 0, 0, 0xCD]);
    world.expect_connection_close(501, (0, 0));
    let mut world = World::open();
    world.bytes(&[4]);
    world.expect_connection_close(501, (0, 0));
}

#[test]
fn truncated_method_is_501_and_unknown_method_503() {
    let mut world = World::open();
    world.raw_method(1, &[0, 50, 0, 10, 0]);
    world.expect_connection_close(501, (50, 10));
    let mut world = World::open();
    world.raw_method(1, &[0, 50, 0, 99]);
    world.expect_connection_close(503, (50, 99));
    let mut world = World::open();
    world.raw_method(1, &[0]);
    world.expect_connection_close(501, (0, 0));
}

#[test]
fn method_of_the_server_is_503() {
    let mut world = World::open();
    // queue.declare-ok
    world.raw_method(1, &[0, 50, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    world.expect_connection_close(503, (50, 11));
}

#[test]
fn channel_must_be_opened_once_before_use() {
    let mut world = World::open();
    world.send(2, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})));
    world.expect_connection_close(504, (90, 10));
    let mut world = World::open();
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    world.expect_connection_close(504, (20, 10));
    let mut world = World::open();
    world.bytes(&[3, 0, 2, 0, 0, 0, 0, 0xCE]);
    world.expect_connection_close(505, (0, 0));
}

#[test]
fn channel_above_the_negotiated_maximum_is_530() {
    let mut world = World::open();
    world.send(2048, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    world.expect_connection_close(530, (20, 10));
}

#[test]
fn channel_method_on_channel_0_is_504_and_content_505() {
    let mut world = World::open();
    world.send(0, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
    world.expect_connection_close(504, (20, 10));
    let mut world = World::open();
    world.bytes(&[3, 0, 0, 0, 0, 0, 0, 0xCE]);
    world.expect_connection_close(505, (0, 0));
}

#[test]
fn content_out_of_order_is_505() {
    let mut world = World::open();
    world.bytes(&[3, 0, 1, 0, 0, 0, 1, b'x', 0xCE]);
    world.expect_connection_close(505, (0, 0));

    let mut world = World::open();
    let frames = publish_frames(1, ("", "q"), false, &[0, 0], &[b"hello"]);
    world.bytes(&frames[..frames.len() - 13]);
    world.send(1, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})));
    world.expect_connection_close(505, (60, 40));

    let mut world = World::open();
    world.bytes(&frames[..frames.len() - 13]);
    let close =
        channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    world.expect_connection_close(505, (60, 40));
}

#[test]
fn heartbeat_with_a_payload_is_501_and_on_a_channel_505() {
    let mut world = World::open();
    world.bytes(&[8, 0, 0, 0, 0, 0, 1, b'x', 0xCE]);
    world.expect_connection_close(501, (0, 0));
    let mut world = World::open();
    world.bytes(&[8, 0, 1, 0, 0, 0, 0, 0xCE]);
    world.expect_connection_close(505, (0, 0));
}

#[test]
fn content_header_of_another_class_is_505() {
    let mut world = World::open();
    let mut frames = publish_frames(1, ("", "q"), false, &[0, 0], &[]);
    let class = frames.len() - 1 - 2 - 8 - 2 - 1;
    frames[class] = 50;
    world.bytes(&frames);
    world.expect_connection_close(505, (60, 40));
}

#[test]
fn body_beyond_its_announced_size_is_501() {
    let mut world = World::open();
    let mut frames = publish_frames(1, ("", "q"), false, &[0, 0], &[b"hello"]);
    let size = frames.len() - 13 - 1 - 2 - 1;
    assert_eq!(frames[size], 5);
    frames[size] = 4;
    world.bytes(&frames);
    world.expect_connection_close(501, (60, 40));
}

#[test]
fn reserved_property_flags_are_502() {
    for flags in [[0, 1], [0, 2]] {
        let mut world = World::open();
        world.bytes(&publish_frames(1, ("", "q"), false, &flags, &[]));
        world.expect_connection_close(502, (60, 40));
    }
}

#[test]
fn immediate_and_byte_prefetch_and_flow_off_are_540() {
    let mut world = World::open();
    world.raw_method(1, &[0, 60, 0, 40, 0, 0, 0, 0, 2]);
    world.expect_connection_close(540, (60, 40));
    let mut world = World::open();
    world.raw_method(1, &[0, 60, 0, 10, 0, 0, 0, 1, 0, 0, 0]);
    world.expect_connection_close(540, (60, 10));
    let mut world = World::open();
    let flow = channel::Flow { active: false };
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::Flow(flow)));
    world.expect_connection_close(540, (20, 20));
    let mut world = World::open();
    let recover = basic::Recover { requeue: false };
    world.basic(1, basic::AMQPMethod::Recover(recover));
    world.expect_connection_close(540, (60, 110));
}

#[test]
fn flow_on_is_confirmed() {
    let mut world = World::open();
    let flow = channel::Flow { active: true };
    world.send(1, AMQPClass::Channel(channel::AMQPMethod::Flow(flow)));
    let ok = channel::FlowOk { active: true };
    assert_eq!(world.method(), (1, AMQPClass::Channel(channel::AMQPMethod::FlowOk(ok))));
}

/// A `queue.declare` of queue `q` with the given content of its arguments.
fn declare(arguments: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    payload.extend_from_slice(&u32::try_from(arguments.len()).unwrap().to_be_bytes());
    payload.extend_from_slice(arguments);
    payload
}

/// Arrays inside each other, inside out.
fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (0..levels).rev() {
        let size = u32::try_from(level * 5).unwrap();
        let at = bytes.len();
        bytes.push(b'A');
        bytes.extend_from_slice(&size.to_be_bytes());
        assert!(bytes.len() > at);
    }
    [b"\x01x".as_slice(), &bytes].concat()
}

#[test]
fn table_nested_100_000_levels_is_refused() {
    let limits = Limits { amqp_frame_bytes_max: 1 << 20, ..Limits::default() };
    let mut world = World::with(peer(), limits);
    world.bytes(b"AMQP\x00\x00\x09\x01");
    world.start_ok("PLAIN", b"\x00a\x00b", &[]);
    let request = world.request();
    world.answer(request, authenticated("a"));
    world.tune_ok(10, 1 << 20, 0);
    world.connection_open("/");
    let request = world.request();
    world.answer(request, Ok(Answer::VhostOpened));
    world.ask_for_channel(1);
    world.done();
    world.all();
    world.raw_method(1, &declare(&nested(100_000)));
    world.expect_connection_close(502, (50, 10));
}

#[test]
fn stranger_cannot_nest_tables_either() {
    let mut world = World::new();
    world.bytes(b"AMQP\x00\x00\x09\x01");
    world.method();
    let table = nested(1000);
    let mut payload = vec![0, 10, 0, 11];
    payload.extend_from_slice(&u32::try_from(table.len()).unwrap().to_be_bytes());
    payload.extend_from_slice(&table);
    world.raw_method(0, &payload);
    world.expect_connection_close(502, (10, 11));
}

#[test]
fn headers_of_a_publish_are_bounded_as_well() {
    let mut world = World::open();
    let table = nested(40);
    let list = props(&Props { headers: Some(&table), ..Props::default() });
    world.bytes(&publish_frames(1, ("", "q"), false, &list, &[]));
    world.expect_connection_close(502, (60, 40));
}

#[test]
fn refusals_have_the_codes_of_the_table() {
    for (kind, code) in [
        (RefusalKind::NotFound, 404),
        (RefusalKind::Denied, 403),
        (RefusalKind::Reserved, 403),
        (RefusalKind::Conflict, 406),
        (RefusalKind::Invalid, 406),
        (RefusalKind::Limit, 406),
        (RefusalKind::TooLarge, 406),
        (RefusalKind::Locked, 405),
        (RefusalKind::NotAvailable, 406),
    ] {
        let mut world = World::open();
        world.raw_method(1, &declare(&[]));
        world.refuse(kind);
        world.expect_channel_close(code, (50, 10));
        assert!(world.closed().is_none());
        world.open_channel(2);
    }
    for (kind, code) in [(RefusalKind::StoreFailed, 541), (RefusalKind::NotAvailable, 540)] {
        let mut world = World::open();
        // queue.purge takes no arguments, so what is not available is the method.
        world.raw_method(1, &[0, 50, 0, 30, 0, 0, 1, b'q', 0]);
        world.refuse(kind);
        world.expect_connection_close(code, (50, 30));
    }
}

#[test]
fn error_closes_the_channel_even_when_no_answer_is_wanted() {
    let mut world = World::open();
    world.raw_method(1, &[0, 50, 0, 30, 0, 0, 1, b'q', 1]);
    world.refuse(RefusalKind::NotFound);
    world.expect_channel_close(404, (50, 30));
}

#[test]
fn reply_text_is_cut_to_a_short_string() {
    let mut world = World::open();
    world.raw_method(1, &declare(&[]));
    let request = world.request();
    let text = "é".repeat(400);
    world.answer(request, Err(Refusal::new(RefusalKind::NotFound, text)));
    let text = world.expect_channel_close(404, (50, 10));
    assert!(text.len() >= 254 && text.len() <= 255);
}

#[test] // After our channel.close everything is ignored until its answer.
fn closed_channel_ignores_frames_until_close_ok_and_can_be_reopened() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 1);
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 9, multiple: false }));
    world.expect_channel_close(406, (60, 80));
    assert!(matches!(world.command(), Command::Release { consumers } if consumers == [consumer]));
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"lost"]));
    world.deliver(consumer, 2, 1);
    assert!(world.commands().is_empty());
    world.send(1, channel_close_ok());
    world.open_channel(1);
    world.bytes(&publish_frames(1, ("", "q"), false, &[0, 0], &[b"kept"]));
    assert_eq!(world.published().message.body(), b"kept");
}

#[test]
fn client_may_close_a_channel_that_we_are_closing() {
    let mut world = World::open();
    world.basic(1, basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 9, multiple: false }));
    world.expect_channel_close(406, (60, 80));
    world.send(1, channel_close());
    assert_eq!(world.method(), (1, channel_close_ok()));
    world.send(1, channel_close_ok());
    world.open_channel(1);
}

#[test]
fn channel_closed_by_the_client_gives_everything_back() {
    let mut world = World::open();
    world.raw_method(1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 5, 1]);
    world.all();
    world.commands();
    let consumer = world.consume("c", false);
    world.deliver(consumer, 1, 3);
    world.send(1, channel_close());
    assert_eq!(world.method(), (1, channel_close_ok()));
    let commands = world.commands();
    assert!(matches!(
        &commands[..],
        [Command::Release { .. }, Command::SetGroupPrefetch { group: 1, prefetch: 0 }]
    ));
    world.open_channel(1);
}

#[test]
fn hard_error_releases_the_consumers_of_all_channels() {
    let mut world = World::open();
    let consumer = world.consume("c", false);
    world.bytes(&[4]);
    world.expect_connection_close(501, (0, 0));
    assert!(matches!(world.command(), Command::Release { consumers } if consumers == [consumer]));
}

#[test]
fn a_name_that_is_not_text_costs_only_the_channel() {
    let mut world = World::open();
    let declare = [&[0, 50, 0, 10, 0, 0, 2, 0xFF, 0xFE, 0][..], &[0; 4]].concat();
    world.raw_method(1, &declare);
    world.expect_channel_close(406, (50, 10));
}
