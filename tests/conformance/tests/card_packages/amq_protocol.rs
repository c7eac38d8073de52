//! amq-protocol 10.6: what the guards of our codec are for.

use amq_protocol::{frame::parsing::parse_frame, protocol::parse_class, types::ShortString};

use crate::in_child;

/// `connection.start-ok` whose client properties hold arrays inside each other.
fn nested_start_ok(levels: u32) -> Vec<u8> {
    let mut table = b"\x01a".to_vec();
    for level in (0..levels).rev() {
        table.push(b'A');
        table.extend((level * 5).to_be_bytes());
    }
    let mut out = vec![0, 10, 0, 11];
    out.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
    out.extend(table);
    out.extend(b"\x05PLAIN\0\0\0\0\x05en_US");
    out
}

#[test]
fn nested_arrays_overflow_the_stack_before_login() {
    match in_child("amq_protocol::nested_arrays_overflow_the_stack_before_login") {
        None => {
            let bytes = nested_start_ok(5000);
            // The stack of a thread of the broker's runtime.
            let reader = std::thread::Builder::new().stack_size(2 << 20);
            let read = reader.spawn(move || parse_class(&bytes[..]).is_ok());
            read.unwrap().join().unwrap();
        }
        Some(output) => {
            assert!(!output.status.success(), "it no longer ends the process");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("overflowed its stack"), "{said}");
        }
    }
}

#[test]
fn few_levels_are_read() {
    let bytes = nested_start_ok(32);
    let reader = std::thread::Builder::new().stack_size(2 << 20);
    let read = reader.spawn(move || parse_class(&bytes[..]).is_ok());
    assert!(read.unwrap().join().unwrap());
}

#[test]
fn seven_bytes_ask_for_four_gibibytes() {
    let found = parse_frame(&[1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF][..]);
    let said = format!("{:?}", found.unwrap_err());
    assert!(said.contains("Incomplete") && said.contains("429496729"), "{said}");
}

#[test]
fn long_short_strings_panic() {
    assert!(std::panic::catch_unwind(|| ShortString::from("x".repeat(256))).is_err());
    assert!(ShortString::try_new("x".repeat(256)).is_err());
}

#[test]
fn truncated_method_and_unknown_class_look_alike() {
    // Whole frames: queue.declare whose name is cut, and a class that does not exist.
    let cut = [1, 0, 1, 0, 0, 0, 7, 0, 50, 0, 10, 0, 0, 5, 0xCE];
    let unknown = [1, 0, 1, 0, 0, 0, 4, 0, 99, 0, 10, 0xCE];
    let said = |bytes: &[u8]| format!("{:?}", parse_frame(bytes).unwrap_err());
    assert_eq!(said(&cut), said(&unknown));
    // The method alone asks for more bytes of a payload that has no more.
    let said = format!("{:?}", parse_class(&cut[7..14]).unwrap_err());
    assert!(said.starts_with("Incomplete"), "{said}");
}
