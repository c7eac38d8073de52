use super::*;
use crate::Limits;

fn to_dot(topic: &str) -> String {
    let mut out = String::new();
    slash_to_dot(topic, &mut out);
    out
}

fn to_slash(key: &str) -> Option<String> {
    let mut out = String::new();
    dot_to_slash(key, &mut out).then_some(out)
}

#[test]
fn the_two_forms_of_a_topic_are_those_of_the_manual() {
    for (dot, slash) in [
        ("sensors.kitchen", "sensors/kitchen"),
        ("a/b.c", "a.b/c"),
        ("spBv1/0.group.DDATA", "spBv1.0/group/DDATA"),
        (".a..b.", "/a//b/"),
        (".", "/"),
        ("a.*.b", "a/*/b"),
        ("a.+.#", "a/%2B/%23"),
        ("100%.a.%2B", "100%/a/%252B"),
        ("living room.é", "living room/é"),
        ("$SYS.x", "$SYS/x"),
    ] {
        assert_eq!(to_slash(dot).as_deref(), Some(slash), "{dot}");
        assert_eq!(to_dot(slash), dot, "{slash}");
    }
    assert_eq!(to_slash(""), None);
    assert!(valid_key("", &Limits::default()).is_ok());
}
