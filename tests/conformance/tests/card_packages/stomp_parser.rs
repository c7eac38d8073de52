//! stomp-parser 0.8: what keeps it off the wire, and what it reads as our codec does.

use polymq_stomp::codec::{Bounds, Command, Frame, HeaderBounds, Splitter, Version, unescape};
use proptest::{prelude::*, test_runner::RngSeed};
use stomp_parser::client::{ClientFrame, SendFrame, SendFrameBuilder, SubscribeFrame};

fn read(text: &str) -> Result<ClientFrame, String> {
    ClientFrame::try_from(text.as_bytes().to_vec()).map_err(|error| error.message().to_owned())
}

fn send(text: &str) -> SendFrame<'static> {
    match read(text).unwrap() {
        ClientFrame::Send(frame) => frame,
        other => panic!("not SEND: {other:?}"),
    }
}

fn subscribe(text: &str) -> SubscribeFrame<'static> {
    match read(text).unwrap() {
        ClientFrame::Subscribe(frame) => frame,
        other => panic!("not SUBSCRIBE: {other:?}"),
    }
}

/// Compiles without `unsafe`, although the slice points into a frame that is gone: `body` has the
/// lifetime `'static`. It is never called, because reading the slice would be a use after free.
#[expect(dead_code, reason = "that it compiles is the fact")]
fn body_outlives_its_frame() -> Option<&'static [u8]> {
    let frame = send("SEND\ndestination:a\n\nbody\0");
    frame.body()
}

#[test]
fn plain_frames_are_read() {
    let frame = send("SEND\ndestination:/queue/a\n\nhello\0");
    assert_eq!(frame.destination().value(), "/queue/a");
    assert_eq!(frame.body(), Some(&b"hello"[..]));
    let frame = subscribe("SUBSCRIBE\nid:7\ndestination:/queue/a\nack:client\n\n\0");
    assert_eq!((frame.id().value(), frame.destination().value()), ("7", "/queue/a"));
}

#[test]
fn frames_that_stomp_allows_are_refused() {
    for (text, what) in [
        ("ACK\nid:1\n\n\0", "ACK without a transaction"),
        ("NACK\nid:1\n\n\0", "NACK without a transaction"),
        ("DISCONNECT\n\n\0", "DISCONNECT without a receipt"),
        ("CONNECT\nlogin:u\npasscode:p\n\n\0", "CONNECT of STOMP 1.0"),
        ("CONNECT\naccept-version:1.2\nhost:h:61613\n\n\0", "a host with a port"),
        ("SEND\ndestination:a\nx:\n\n\0", "an empty header value"),
        ("\n", "an end of line as heart-beat"),
    ] {
        assert!(read(text).is_err(), "no longer refused: {what}");
    }
}

#[test] // STOMP 1.2, Repeated Header Entries: the first one counts.
fn last_of_repeated_headers_wins() {
    let frame = send("SEND\ndestination:first\ndestination:last\n\n\0");
    assert_eq!(frame.destination().value(), "last");
}

#[test] // STOMP 1.2, Body: content-length says where it ends.
fn content_length_is_ignored_and_two_frames_become_one() {
    let frame = send("SEND\ndestination:a\ncontent-length:2\n\nhi\0SEND\ndestination:b\n\n\0");
    assert!(frame.body().unwrap().len() > 2, "{:?}", frame.body());
}

#[test] // STOMP 1.2, Value Encoding
fn builder_lets_a_value_bring_a_header_of_its_own() {
    let frame = SendFrameBuilder::new("a".to_owned())
        .add_custom_header("x".to_owned(), "1\ninjected:2".to_owned())
        .build();
    let bytes: Vec<u8> = frame.into();
    assert!(String::from_utf8_lossy(&bytes).contains("\ninjected:2\n"));
}

/// Headers and body of a frame as our codec reads it.
fn ours(bytes: &[u8]) -> (Command, Vec<(String, String)>, Vec<u8>) {
    let bounds = Bounds { head_bytes_max: 65_536, body_bytes_max: 65_536 };
    let whole = Splitter::default().find(bytes, bounds).unwrap().unwrap();
    let mut places = Vec::new();
    let limits = HeaderBounds { headers_max: 128 };
    let frame = Frame::parse(bytes, whole, Version::V12, limits, &mut places).unwrap();
    let meant = |raw| unescape(raw, Version::V12).unwrap().into_owned();
    let headers = frame.raw_headers().map(|(name, value)| (meant(name), meant(value)));
    (frame.command, headers.collect(), frame.body.to_vec())
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..Default::default()
    })]

    /// Texts hold what both sides read: no escapes, nothing empty.
    #[test]
    fn plain_send_is_read_as_we_read_it(
        destination in "/queue/[a-z0-9.]{1,20}",
        custom in "[a-zA-Z0-9 .]{0,20}[a-z]",
        body in "[ -~]{1,60}",
    ) {
        let text = format!("SEND\ndestination:{destination}\nx-custom:{custom}\n\n{body}\0");
        let theirs = send(&text);
        let (command, headers, ours) = ours(text.as_bytes());
        prop_assert_eq!(command, Command::Send);
        prop_assert_eq!(find(&headers, "destination"), Some(theirs.destination().value()));
        prop_assert_eq!(find(&headers, "x-custom"), Some(custom.as_str()));
        prop_assert_eq!(theirs.body(), Some(ours.as_slice()));
    }

    #[test]
    fn plain_subscribe_is_read_as_we_read_it(
        destination in "/topic/[a-z0-9.*#]{1,20}",
        id in "[a-z0-9-]{1,10}",
        ack in prop::sample::select(vec!["auto", "client", "client-individual"]),
    ) {
        let text = format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\nack:{ack}\n\n\0");
        let theirs = subscribe(&text);
        let (command, headers, _) = ours(text.as_bytes());
        prop_assert_eq!(command, Command::Subscribe);
        prop_assert_eq!(find(&headers, "destination"), Some(theirs.destination().value()));
        prop_assert_eq!(find(&headers, "id"), Some(theirs.id().value()));
        prop_assert_eq!(find(&headers, "ack"), Some(ack));
    }
}
