//! Frames without a session.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { head_bytes_max: 1024, body_bytes_max: 4096 };
const HEADERS: HeaderBounds = HeaderBounds { headers_max: 16 };

/// Command, headers as they are meant, body, and what is left of the input.
type Read = (Command, Vec<(String, String)>, Vec<u8>, usize);

fn read(bytes: &[u8], version: Version) -> Result<Option<Read>, String> {
    let mut splitter = Splitter::default();
    let whole = splitter.find(bytes, BOUNDS).map_err(|error| error.to_string())?;
    let Some(whole) = whole else { return Ok(None) };
    let mut places = Vec::new();
    let frame = Frame::parse(bytes, whole, version, HEADERS, &mut places)
        .map_err(|error| error.to_string())?;
    let meant = |text| unescape(text, frame.version()).unwrap().into_owned();
    let headers = frame.raw_headers().map(|(name, value)| (meant(name), meant(value))).collect();
    Ok(Some((frame.command, headers, frame.body.to_vec(), bytes.len() - whole.size())))
}

fn send(bytes: &[u8], version: Version) -> (Vec<(String, String)>, Vec<u8>) {
    let (command, headers, body, rest) = read(bytes, version).unwrap().expect("a whole frame");
    assert_eq!((command, rest), (Command::Send, 0));
    (headers, body)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test] // 1.2, STOMP Frames: the body ends at the first NUL.
fn body_without_a_length_ends_at_its_nul() {
    let (headers, body) = send(b"SEND\na:1\n\nhi\0", Version::V12);
    assert_eq!((headers, body), (vec![pair("a", "1")], b"hi".to_vec()));
    let (_, _, _, rest) = read(b"SEND\n\na\0b\0", Version::V12).unwrap().unwrap();
    assert_eq!(rest, 2);
}

#[test] // 1.2, Header content-length: the body may hold NUL then.
fn body_with_a_length_may_hold_nul() {
    let (_, body) = send(b"SEND\ncontent-length:3\n\n\0a\0\0", Version::V12);
    assert_eq!(body, b"\0a\0");
    for (bytes, why) in [
        (&b"SEND\ncontent-length:2\n\nabc\0"[..], "no NUL where"),
        (b"SEND\ncontent-length:-1\n\nabc\0", "not a number"),
        (b"SEND\ncontent-length:\n\nabc\0", "not a number"),
        (b"SEND\ncontent-length:+3\n\nabc\0", "not a number"),
        (b"SEND\ncontent-length:4097\n\n", "at most 4096"),
        (b"SEND\ncontent-length:99999999999999999999999\n\n", "at most 4096"),
    ] {
        let error = read(bytes, Version::V12).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(read(b"SEND\ncontent-length:4096\n\n", Version::V12), Ok(None));
}

#[test] // 1.2, Repeated Header Entries.
fn first_of_repeated_headers_counts() {
    let (_, body) = send(b"SEND\ncontent-length:2\ncontent-length:9\n\nhi\0", Version::V12);
    assert_eq!(body, b"hi");
    let bytes = b"SEND\na:1\na:2\n\n\0";
    let whole = Splitter::default().find(bytes, BOUNDS).unwrap().unwrap();
    let mut places = Vec::new();
    let frame = Frame::parse(bytes, whole, Version::V12, HEADERS, &mut places).unwrap();
    assert_eq!(frame.find("a").as_deref(), Some("1"));
}

#[test] // 1.2, Value Encoding; 1.1 knows no `\r`; 1.0 knows no escape.
fn escapes_are_those_of_the_version() {
    let frame = b"SEND\nk\\cx:a\\nb\\\\c\\cd\n\n\0";
    let meant = vec![pair("k:x", "a\nb\\c:d")];
    assert_eq!(send(frame, Version::V12).0, meant);
    assert_eq!(send(frame, Version::V11).0, meant);
    assert_eq!(send(frame, Version::V10).0, [pair("k\\cx", "a\\nb\\\\c\\cd")]);
    assert_eq!(send(b"SEND\nk:a\\rb\n\n\0", Version::V12).0, [pair("k", "a\rb")]);
    for bytes in [&b"SEND\nk:a\\rb\n\n\0"[..], b"SEND\nk:a\\tb\n\n\0", b"SEND\nk:a\\\n\n\0"] {
        let error = read(bytes, Version::V11).unwrap_err();
        assert!(error.contains("undefined escape"), "{error}");
    }
}

#[test] // 1.2: EOL is an optional carriage return and a line feed. 1.1 has the line feed alone.
fn carriage_returns_end_lines_in_1_2() {
    let frame = b"SEND\r\nk:v\r\n\r\nhi\0";
    assert_eq!(send(frame, Version::V12), (vec![pair("k", "v")], b"hi".to_vec()));
    assert!(read(frame, Version::V11).is_err());
    assert_eq!(send(b"SEND\nk:v\r\n\n\0", Version::V11).0, [pair("k", "v\r")]);
}

#[test]
fn values_may_be_empty_and_hold_colons() {
    let (headers, _) = send(b"SEND\na:\nb:x:y\n\n\0", Version::V12);
    assert_eq!(headers, [pair("a", ""), pair("b", "x:y")]);
}

#[test]
fn what_is_no_frame_is_refused() {
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n\0"[..], "unknown command 'GET / HTTP/'"),
        (b"send\n\n\0", "unknown command"),
        (b"SEND\nno colon\n\n\0", "name:value"),
        (b"SEND\n:v\n\n\0", "name:value"),
        (b"SEND\na:\xFF\n\n\0", "UTF-8"),
        (b"SEND\na:\0b\n\n\0", "UTF-8 without NUL"),
        (b"ACK\nid:1\n\nbody\0", "must not have a body"),
    ] {
        let error = read(bytes, Version::V12).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let mut many = b"SEND\n".to_vec();
    many.extend(b"a:1\n".repeat(17));
    many.extend(b"\n\0");
    assert!(read(&many, Version::V12).unwrap_err().contains("at most 16 headers"));
}

#[test] // A2: headers and bodies that do not end are refused while they come.
fn endless_heads_and_bodies_are_not_waited_for() {
    let head = [b"SEND\nk:".to_vec(), vec![b'v'; 2000]].concat();
    assert!(read(&head, Version::V12).unwrap_err().contains("1024"));
    let body = [b"SEND\n\n".to_vec(), vec![b'v'; 5000]].concat();
    assert!(read(&body, Version::V12).unwrap_err().contains("4096"));
    assert_eq!(read(&[b'S'; 100], Version::V12), Ok(None));
}

#[test]
fn versions_are_agreed_upon() {
    assert_eq!(Version::negotiate(None), Some(Version::V10));
    assert_eq!(Version::negotiate(Some("1.0,1.1,1.2")), Some(Version::V12));
    assert_eq!(Version::negotiate(Some("1.1, 1.0")), Some(Version::V11));
    assert_eq!(Version::negotiate(Some("2.0,1.2")), Some(Version::V12));
    assert_eq!(Version::negotiate(Some("2.0")), None);
    assert_eq!(Version::negotiate(Some("")), None);
}

#[test]
fn numbers_are_written_in_decimal() {
    for number in [0, 7, 10, 99, 100, 4096, u64::MAX] {
        let mut out = BytesMut::new();
        writer::put_number(number, &mut out);
        assert_eq!(out, number.to_string().as_bytes());
    }
}

/// Texts rich in what escapes are about.
fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec!["\\", ":", "\n", "\r", "c", "n", "r", "é", "x", " "]);
    prop::collection::vec(special, 0..12).prop_map(|parts| parts.concat())
}

fn name() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("k{text}"))
}

fn is_sayable(text: &str, version: Version) -> bool {
    match version {
        Version::V12 => true,
        Version::V11 => !text.contains('\r'),
        Version::V10 => !text.contains(['\r', '\n']),
    }
}

proptest! {
    #![proptest_config(crate::test_config(512))]

    #[test]
    fn escaping_and_reading_is_the_identity(text in text()) {
        for version in Version::ALL {
            let mut out = Vec::new();
            put_escaped(&text, version, &mut out);
            let raw = String::from_utf8(out).unwrap();
            prop_assert_eq!(unescape(&raw, version).unwrap(), text.as_str());
            if version == Version::V12 {
                prop_assert!(!raw.contains(['\n', '\r', ':']));
            }
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written(
        headers in prop::collection::vec((name(), text()), 0..6),
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for version in Version::ALL {
            let fits = |(name, value): &&(String, String)| {
                is_sayable(name, version) && is_sayable(value, version)
                    && (version != Version::V10 || !name.contains(':'))
            };
            let headers: Vec<_> = headers.iter().filter(fits).cloned().collect();
            let mut frame = b"SEND\n".to_vec();
            for (name, value) in &headers {
                writer::put_header(name, value, version, &mut frame);
            }
            writer::put_length(body.len(), &mut frame);
            frame.extend_from_slice(&body);
            frame.push(0);
            let (mut read, read_body) = send(&frame, version);
            read.pop();
            prop_assert_eq!(&read, &headers);
            prop_assert_eq!(&read_body, &body);
        }
    }

    #[test]
    fn where_a_frame_ends_does_not_depend_on_how_it_comes(
        body in prop::collection::vec(any::<u8>(), 0..40),
        has_length in any::<bool>(),
    ) {
        let mut frame = b"SEND\r\na:b\n".to_vec();
        if has_length {
            frame.extend(format!("content-length:{}\n", body.len()).bytes());
        }
        frame.push(b'\n');
        frame.extend_from_slice(&body);
        frame.push(0);
        frame.extend_from_slice(b"\n\nSEND");
        let at_once = Splitter::default().find(&frame, BOUNDS).unwrap().expect("a whole frame");
        let mut splitter = Splitter::default();
        let mut found = None;
        for end in 1..=frame.len() {
            found = splitter.find(&frame[..end], BOUNDS).unwrap();
            if found.is_some() {
                break;
            }
        }
        prop_assert_eq!(found, Some(at_once));
    }

    #[test]
    fn any_bytes_are_a_frame_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for version in Version::ALL {
            let _ = read(&bytes, version);
            let framed = [b"SEND\n", &bytes[..], b"\n\n\0"].concat();
            let _ = read(&framed, version);
        }
    }
}
