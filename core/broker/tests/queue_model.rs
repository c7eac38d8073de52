//! A queue with everything it can do against a model that is slow and obviously right, under
//! operations that nobody would think of.
//!
//! `PROPTEST_CASES` sets how many runs of 50 operations each on average; 2200 make 100,000 and
//! more. A failure prints its steps and the seed that makes it come again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the number of operations and the seed are for people")]

mod model;
mod world;

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use model::{Config, Settle, Step, run::Run};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

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

/// Runs of a usual test.
const CASES: u32 = 400;

/// What the environment says, else 400 runs and another seed each time.
fn wanted() -> (ProptestConfig, u64) {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { CASES };
    let seed = match usual.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(()),
    };
    let wanted = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..usual
    };
    (wanted, seed)
}

#[test]
fn a_queue_does_what_its_model_does() {
    let (wanted, seed) = wanted();
    let again = format!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={}", wanted.cases);
    let operations = Cell::new(0);
    let done = TestRunner::new(wanted).run(
        &(config(), prop::collection::vec(step(), 1..100)),
        |(config, steps)| {
            operations.set(operations.get() + steps.len());
            let mut run = Run::new(config);
            for step in &steps {
                run.run(step);
            }
            run.finish();
            Ok(())
        },
    );
    println!("{} operations; the same again: {again}", operations.get());
    if let Err(failure) = done {
        panic!("{failure}\nthe same again: {again}");
    }
}

#[test]
fn what_comes_to_the_head_because_others_were_dropped_expires() {
    let config = Config {
        levels: 0,
        ttl: None,
        length: None,
        rejects: false,
        dead_letters: false,
        limit: None,
        retry: None,
        single: false,
    };
    let mut run = Run::new(config);
    let (lasting, expiring) = ((0, None), (0, Some(0)));
    // More than memory holds, so that the last comes from the disk.
    run.run(&Step::Publish(vec![lasting; 4], false));
    run.run(&Step::Publish(vec![lasting, lasting, lasting, lasting, expiring], true));
    run.run(&Step::Policy(Some(1)));
    run.finish();
}
