//! A queue with everything it can do against a model that is slow and obviously right, under
//! operations that nobody would think of.
//!
//! `PROPTEST_CASES` sets how many runs; a failure prints its steps, and its seed with
//! `PROPTEST_RNG_SEED`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;
mod world;

use model::{Config, Settle, Step, run::Run};
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    let settle = prop_oneof![
        4 => Just(Settle::Accept), 2 => Just(Settle::Return), 2 => Just(Settle::Fail),
        1 => Just(Settle::Reject),
    ];
    let message = (0..6_u8, prop_oneof![3 => Just(None), 1 => (0..50_u16).prop_map(Some)]);
    prop_oneof![
        6 => (prop::collection::vec(message, 1..6), any::<bool>())
            .prop_map(|(messages, durable)| Step::Publish(messages, durable)),
        3 => (0..5_u8, 0..3_u8).prop_map(|(prefetch, priority)| Step::Consume(prefetch, priority)),
        1 => any::<u8>().prop_map(Step::Cancel),
        1 => any::<u8>().prop_map(Step::Release),
        6 => (any::<u8>(), settle).prop_map(|(at, how)| Step::Settle(at, how)),
        2 => Just(Step::Get),
        1 => Just(Step::Purge),
        1 => any::<bool>().prop_map(Step::Pause),
        4 => (1..60_u16).prop_map(Step::Pass),
        1 => prop_oneof![Just(None), (0..6_u8).prop_map(Some)].prop_map(Step::Policy),
        1 => Just(Step::Restart),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (
        prop_oneof![Just(0), Just(3_u8)],
        prop::option::of(5..60_u16),
        prop::option::of(0..6_u8),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(0..3_u8),
        prop::option::of(1..30_u16),
        any::<bool>(),
    )
        .prop_map(|(levels, ttl, length, rejects, dead_letters, limit, retry, single)| {
            Config { levels, ttl, length, rejects, dead_letters, limit, retry, single }
        })
}

fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 400 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4000, ..usual }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_queue_does_what_its_model_does(
        config in config(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut run = Run::new(config);
        for step in &steps {
            run.run(step);
        }
        run.finish();
    }
}
