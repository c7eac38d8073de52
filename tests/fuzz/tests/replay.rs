//! Runs the seeds, the committed corpus, and a bounded number of changed inputs through every
//! target: `cargo fuzz-replay`.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use polymq_fuzz::{
    TARGETS, Target, amqp,
    changes::{Random, changed},
    mqtt, seeds, stomp, web, xmpp,
};

/// The seeds and the corpus of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let of_target = seeds::all().into_iter().filter(|seed| seed.target == target);
    let mut found: Vec<_> = of_target.map(|seed| (seed.name, seed.bytes)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if folder.is_dir() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.display().to_string(), fs::read(path).unwrap()));
        }
    }
    found
}

fn run(target: &str, function: Target, name: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| function(bytes))).is_err() {
        let kept = std::env::temp_dir().join(format!("polymq-fuzz-{target}"));
        fs::write(&kept, bytes).unwrap();
        panic!("{target} fails with {name}; the input is in `{}`", kept.display());
    }
}

fn target(name: &str) {
    let (_, function) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "nothing to begin with");
    for (case, bytes) in &inputs {
        run(name, *function, case, bytes);
    }
    let rounds = std::env::var("POLYMQ_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    let seed = std::env::var("POLYMQ_SEED").ok().and_then(|text| text.parse().ok());
    let mut random = Random::new(seed.unwrap_or(1));
    // Huge seeds are slow and teach little when changed.
    let small = inputs.into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 4096);
    let small: Vec<_> = small.collect();
    for round in 0..rounds.unwrap_or(2000) {
        let bytes = changed(&mut random, &small);
        run(name, *function, &format!("round {round}"), &bytes);
    }
}

/// A fuzzer that is refused at the door would find nothing and look fine.
#[test]
fn seeds_reach_the_states_behind_the_login() {
    let bytes = |target: &str, name: &str| {
        let all = seeds::all();
        let found = all.into_iter().find(|seed| seed.target == target && seed.name == name);
        found.unwrap().bytes
    };
    let reached = amqp::open_and_feed(&bytes("amqp_session", "publishes-5"));
    assert!(reached.is_open() && reached.published.len() == 3, "{:?}", reached.visible());
    assert_eq!(reached.consumers.len(), 1);
    for mode in 0..=2 {
        let reached = stomp::connect_and_feed(&bytes("stomp_session", &format!("{mode}-all")));
        assert!(reached.published.len() >= 4, "{mode}: {:?}", reached.visible());
        assert!(reached.consumers.len() >= 3, "{mode}: {:?}", reached.visible());
    }
    let reached = xmpp::bind_and_feed(&bytes("xmpp_session", "all-7"));
    assert!(reached.published.len() >= 4, "{:?}", reached.visible());
    assert!(reached.consumers.len() >= 4, "{:?}", reached.visible());
    let reached = web::connect_and_feed(&bytes("json_messages", "all-1"));
    assert!(reached.published.len() >= 4, "{:?}", reached.visible());
    assert!(reached.consumers.len() >= 2, "{:?}", reached.visible());
    for level in 3..=5 {
        let reached = mqtt::connect_and_feed(&bytes("mqtt_session", &format!("{level}-all")));
        assert!(reached.published.len() >= 3, "{level}: {:?}", reached.visible());
        assert!(reached.consumers.len() >= 3, "{level}: {:?}", reached.visible());
        for message in &amqp::open_and_feed(&bytes("amqp_session", "publishes-0")).published {
            let mut reader = mqtt::subscriber(level);
            let before = reader.output.len();
            reader.deliver(message);
            assert!(reader.output.len() > before, "{:?}", reader.visible());
        }
        for message in &reached.published {
            let mut reader = amqp::open_and_feed(&[4]);
            let before = reader.output.len();
            reader.deliver(message);
            assert!(reader.output.len() > before, "{:?}", reader.visible());
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { target(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    amqp_stranger amqp_session amqp_methods amqp_table
    mqtt_stranger mqtt_session mqtt_packets mqtt_codec
    stomp_stranger stomp_session stomp_frames stomp_codec
    xmpp_stranger xmpp_session xmpp_xml
    xmpp_framed
    json_stranger json_session json_messages websocket_frames
    json_message topic record filter
    http_headers http_events http_receipt http_authorization scram
}
