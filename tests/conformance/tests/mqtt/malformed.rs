use polymq_model::Limits;

use crate::world::*;

#[test] // [MQTT-2.1.3-1], MQTT 3.1.1 [MQTT-2.2.2-2]
fn reserved_flags_end_the_connection() {
    for bytes in [&[0xC1, 0][..], &[0xE2, 0], &[0x41, 2, 0, 1], &[0x60, 2, 0, 1], &[0xF1, 0]] {
        let mut world = World::v5();
        world.send(bytes);
        world.expect_disconnect(0x81);
        let mut world = World::v4();
        world.send(bytes);
        world.expect_close();
    }
}

#[test] // MQTT 3.1: DUP may be set on packets that are sent again.
fn version_3_1_may_repeat_subscribes() {
    let mut world = World::new();
    world.send(&packet(0x10, &[text("MQIsdp"), vec![3, 2, 0, 0], text("c")].concat()));
    world.sent();
    let mut again = subscribe_4(7, &[("a", 1)]);
    again[0] |= 8;
    world.send(&again);
    assert_eq!(world.sent(), [0x90, 3, 0, 7, 1]);
}

#[test] // Section 2.1.2: types 0 and, before MQTT 5, 15 are reserved.
fn reserved_types_end_the_connection() {
    let mut world = World::v5();
    world.send(&[0, 0]);
    world.expect_disconnect(0x81);
    let mut world = World::v4();
    world.send(&[0xF0, 0]);
    world.expect_close();
}

#[test] // Table 2-1, direction of flow.
fn packets_of_a_server_are_protocol_errors() {
    for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &[0xB0, 2, 0, 1], &[0xD0, 0]] {
        let mut world = World::v5();
        world.send(bytes);
        world.expect_disconnect(0x82);
    }
}

#[test] // Section 1.5.5
fn remaining_length_has_four_bytes_at_most_and_none_to_spare() {
    let mut world = World::v5();
    world.send(&[0xC0, 0x80, 0x80, 0x80, 0x80]);
    world.expect_disconnect(0x81);
    let mut world = World::v5();
    world.send(&[0xC0, 0x80, 0x00]);
    world.expect_disconnect(0x81);
    // Also of CONNECT, whose version is known only behind it.
    let mut world = World::new();
    let connect = connect_5("c", &[]);
    world.send(&[&[0x10, connect[1] | 0x80, 0x00][..], &connect[2..]].concat());
    let connack = world.sent();
    assert_eq!((connack[0], connack[3]), (0x20, 0x81));
    // Earlier versions do not say that.
    let mut world = World::new();
    let connect = connect_4("c");
    world.send(&[&[0x10, connect[1] | 0x80, 0x00][..], &connect[2..]].concat());
    assert_eq!(world.sent(), [0x20, 2, 0, 0]);
    let mut world = World::v4();
    world.send(&[0xC0, 0x80, 0x00]);
    assert_eq!(world.sent(), [0xD0, 0]);
}

#[test]
fn hostile_length_is_refused_from_the_header() {
    let mut world = World::new();
    let huge = [0x10, 0xFF, 0xFF, 0xFF, 0x7F];
    world.send(&huge);
    world.send(b"\x00\x04MQTT\x04");
    world.expect_close();
    // Only this version has an answer to that, which names the setting.
    let mut world = World::new();
    world.send(&[&huge[..], b"\x00\x04MQTT\x05"].concat());
    let connack = world.sent();
    assert!(connack[0] == 0x20 && connack[..5].contains(&0x95), "{connack:?}");
    assert!(String::from_utf8_lossy(&connack).contains("limits.login_size"));
    let mut world = World::v5();
    world.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    world.expect_disconnect(0x95);
    let limits = Limits { login_frame_bytes_max: 100, ..Limits::default() };
    let mut world = World::with_limits(limits);
    world.send(&[&[0x10, 99][..], b"\x00\x04MQTT\x04"].concat());
    world.expect_close();
}

#[test] // Sections 3.4 to 3.7
fn malformed_acknowledgements_end_the_connection() {
    for (bytes, reason) in [
        (&[0x40, 1, 0][..], 0x81),
        (&[0x40, 2, 0, 0], 0x82),
        (&[0x40, 3, 0, 1, 0x42], 0x82),
        (&[0x62, 3, 0, 1, 0x80], 0x82),
        (&[0x40, 4, 0, 1, 0, 1], 0x81),
        (&[0x40, 5, 0, 1, 0, 0, 0], 0x81),
        (&[0x40, 6, 0, 1, 0, 2, 0x01, 1], 0x82),
    ] {
        let mut world = World::v5();
        world.send(bytes);
        world.expect_disconnect(reason);
    }
    let mut world = World::v4();
    world.send(&[0x40, 3, 0, 1, 0]);
    world.expect_close();
}

#[test] // Section 3.12
fn ping_is_empty() {
    let mut world = World::v5();
    world.send(&[0xC0, 1, 0]);
    world.expect_disconnect(0x81);
}

#[test] // [MQTT-1.5.4-1], [MQTT-1.5.4-2]
fn ill_formed_strings_end_the_connection() {
    for topic in [&[0xED, 0xA0, 0x80][..], &[0xC0, 0x80], &[0], &[0xFF]] {
        let topic = [&[0, topic.len() as u8][..], topic].concat();
        let mut world = World::v5();
        world.send(&packet(0x30, &[topic.clone(), vec![0]].concat()));
        world.expect_disconnect(0x81);
        let mut world = World::v4();
        world.send(&packet(0x30, &topic));
        world.expect_close();
    }
}

#[test] // Section 2.2.2.1
fn properties_stay_within_their_packet() {
    let mut world = World::v5();
    world.send(&packet(0x30, &[text("a"), vec![9, 0x01]].concat()));
    world.expect_disconnect(0x81);
}

#[test]
fn user_properties_are_counted() {
    let limits = Limits { table_entries_max: 2, ..Limits::default() };
    let mut world = World::with_limits(limits);
    world.connect_5(&[]);
    world.send(&publish_5(0, "a", 0, &user("a", "b").repeat(3), b""));
    world.expect_disconnect(0x97);
}

#[test]
fn faults_are_counted() {
    let mut world = World::v5();
    world.send(&[0, 0]);
    assert_eq!(world.counter("faults"), 1);
}
