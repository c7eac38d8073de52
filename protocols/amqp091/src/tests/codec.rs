//! Tables and property lists: what is written is read back, and garbage is refused without harm.

use proptest::prelude::*;

use super::*;
use crate::codec::{
    frame::split,
    table::{DECODE_BOUNDS, TableBounds, TableError, check, decode},
};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        (-1e30_f32..1e30).prop_map(Value::F32),
        (-1e300_f64..1e300).prop_map(Value::F64),
        (any::<u8>(), any::<i32>())
            .prop_map(|(scale, v)| Value::Decimal { scale, unscaled: v.into() }),
        (0..1_i64 << 40).prop_map(|secs| Value::Timestamp(secs * 1000)),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        ".{0,20}".prop_map(Value::String),
        Just(Value::LongString(vec![0xFF, 0])),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            proptest::collection::vec((".{0,10}", inner), 0..6).prop_map(Value::Map),
        ]
    })
}

fn short() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255))
}

proptest! {
    #[test]
    fn table_comes_back_as_it_was_written(
        table in proptest::collection::vec((".{0,30}", value()), 0..8)
    ) {
        let mut bytes = Vec::new();
        put_table(&mut bytes, &table);
        prop_assert_eq!(decode(&bytes[4..], DECODE_BOUNDS).unwrap(), table.clone());
        // Reading and writing entry by entry keeps the bytes.
        let mut reader = crate::codec::reader::Reader::new(&bytes[4..]);
        let mut copy = Vec::new();
        while !reader.is_empty() {
            let entry = crate::codec::table::next_entry(&mut reader).unwrap();
            copy.extend_from_slice(entry.whole);
        }
        prop_assert_eq!(&copy[..], &bytes[4..]);
        // The package that clients use reads the same table.
        let parsed = amq_protocol::types::parsing::parse_field_table(&bytes[..]);
        prop_assert!(parsed.is_ok_and(|(rest, _)| rest.is_empty()));
    }

    #[test]
    fn garbage_is_no_table_or_one_that_can_be_read(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0), Just(b'F'), Just(b'A'), Just(b'S')], 0..200)
    ) {
        let bounds = TableBounds { depth_max: 32, entries_max: 100 };
        prop_assert_eq!(check(&bytes, bounds).is_ok(), decode(&bytes, bounds).is_ok());
    }

    #[test]
    fn property_list_comes_back_as_it_was_written(
        texts in proptest::collection::vec(short(), 11),
        octets in (any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>()),
        table in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
    ) {
        let text = |n: usize| texts[n].as_deref();
        let list = Props {
            content_type: text(0),
            content_encoding: text(1),
            headers: table.as_deref(),
            delivery_mode: octets.0,
            priority: octets.1,
            correlation_id: text(2),
            reply_to: text(3),
            expiration: text(4),
            message_id: text(5),
            timestamp: octets.2,
            kind: text(6),
            user_id: text(7),
            app_id: text(8),
            cluster_id: text(9),
        };
        let bytes = props(&list);
        prop_assert_eq!(Props::parse(&bytes).unwrap(), list);
        prop_assert!(bytes.is_empty() || Props::parse(&bytes[..bytes.len() - 1]).is_err()
            || bytes == [0, 0]);
    }

    #[test]
    fn garbage_never_breaks_a_session(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400
    ) {
        let mut world = World::open();
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        world.bytes(head);
        world.bytes(tail);
    }

    #[test]
    fn garbled_methods_never_break_a_session(
        class in prop_oneof![Just(10_u8), Just(20), Just(40), Just(50), Just(60), Just(90)],
        method in prop_oneof![Just(10_u8), Just(20), Just(30), Just(40), Just(70), Just(80)],
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..40),
    ) {
        let mut world = World::open();
        let mut payload = vec![0, class, 0, method];
        payload.extend(rest);
        world.raw_method(1, &payload);
    }
}

#[test]
fn depth_and_entries_of_tables_are_bounded() {
    let bounds = TableBounds { depth_max: 3, entries_max: 2 };
    let list = |inner| Value::List(vec![inner]);
    let two = headers(&[("a", list(list(Value::Null)))]);
    assert_eq!(check(&two, bounds), Ok(()));
    let three = headers(&[("a", list(list(list(Value::Null))))]);
    assert_eq!(check(&three, bounds), Err(TableError::TooDeep(3)));
    let many = headers(&[("a", Value::List(vec![Value::Null; 3]))]);
    assert_eq!(check(&many, bounds), Err(TableError::TooManyEntries(2)));
    let many = headers(&[("a", Value::Null), ("b", Value::Null), ("c", Value::Null)]);
    assert_eq!(check(&many, bounds), Err(TableError::TooManyEntries(2)));
}

#[test]
fn frame_is_whole_or_not_there_yet() {
    let mut bytes = BytesMut::new();
    frame::put(&mut bytes, frame::BODY, 3, b"abc");
    for cut in 0..bytes.len() {
        assert!(split(&bytes[..cut], 4096).unwrap().is_none());
    }
    let whole = split(&bytes, 11).unwrap().unwrap();
    assert_eq!((whole.channel, whole.payload, whole.size()), (3, &b"abc"[..], 11));
    // Some clients take the limit for the size of the payload.
    assert!(split(&bytes, 3).is_ok());
    assert!(split(&bytes, 2).is_err());
}
