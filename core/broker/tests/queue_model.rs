//! A queue with everything it can do against a model that is slow and obviously right, under
//! operations that nobody would think of.
//!
//! `PROPTEST_CASES` sets how many runs of 90 steps each on average; 2200 make 100,000 operations
//! that do something. A failure prints its steps and the seed that makes it come again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the number of operations and the seed are for people")]

mod model;
mod world;

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use model::{Config, DeadLetters, Overflow, Retry, Settle, Step, run::Run};
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
    let overflow = prop_oneof![
        2 => Just(Overflow::DropHead), 1 => Just(Overflow::Reject), 1 => Just(Overflow::RejectDlx),
    ];
    let dead_letters = prop_oneof![
        Just(DeadLetters::None),
        Just(DeadLetters::AtMostOnce),
        Just(DeadLetters::AtLeastOnce),
    ];
    let kind = prop_oneof![Just("all"), Just("failed"), Just("returned")];
    let backoff = prop_oneof![Just("linear"), Just("exponential"), Just("fixed")];
    let retry =
        (1..30_u16, kind, backoff).prop_map(|(min, kind, backoff)| Retry { min, kind, backoff });
    (
        prop_oneof![Just(0), Just(3_u8)],
        prop::option::of(5..60_u16),
        (prop::option::of(0..6_u8), prop::option::weighted(0.3, 0..40_u8)),
        overflow,
        dead_letters,
        (
            prop::option::of(0..3_u8),
            prop::option::of(retry),
            prop::option::weighted(0.3, 10..100_u16),
        ),
        any::<bool>(),
    )
        .prop_map(|(levels, ttl, (length, bytes), overflow, dead_letters, returns, single)| {
            let (limit, retry, timeout) = returns;
            // Whether a message expires before a limit drops it is not certain, and here that
            // decides whether it stays.
            let is_free = dead_letters == DeadLetters::AtLeastOnce;
            let (length, bytes) = if is_free { (None, None) } else { (length, bytes) };
            Config {
                levels,
                ttl,
                length,
                bytes,
                overflow,
                dead_letters,
                limit,
                retry,
                timeout,
                single,
            }
        })
}

/// So many runs do at least 100,000 operations that do something.
const MANY_CASES: u32 = 2200;
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
    let (operations, runs) = (Cell::new(0), wanted.cases);
    let done = TestRunner::new(wanted).run(
        &(config(), prop::collection::vec(step(), 1..180)),
        |(config, steps)| {
            let mut run = Run::new(config);
            let done = steps.iter().filter(|step| run.run(step)).count();
            operations.set(operations.get() + done);
            run.finish();
            Ok(())
        },
    );
    println!("{} operations that did something; the same again: {again}", operations.get());
    if let Err(failure) = done {
        panic!("{failure}\nthe same again: {again}");
    }
    let least = if runs >= MANY_CASES { 100_000 } else { 0 };
    assert!(operations.get() >= least, "only {} operations", operations.get());
}

#[test]
fn what_comes_to_the_head_because_others_were_dropped_expires() {
    let mut run = Run::new(Config::default());
    let (lasting, expiring) = ((0, None), (0, Some(0)));
    // More than memory holds, so that the last comes from the disk.
    run.run(&Step::Publish(vec![lasting; 4], false));
    run.run(&Step::Publish(vec![lasting, lasting, lasting, lasting, expiring], true));
    run.run(&Step::Policy(Some(1)));
    run.finish();
}

#[test]
fn others_come_back_while_what_has_expired_comes_from_the_disk() {
    let config = Config {
        single: true,
        timeout: Some(10),
        retry: Some(Retry { min: 1, kind: "failed", backoff: "linear" }),
        ..Config::default()
    };
    let mut run = Run::new(config);
    run.run(&Step::Pause(true));
    run.run(&Step::Cancel(0));
    let (l, e4, e0) = ((0, None), (0, Some(4)), (0, Some(0)));
    run.run(&Step::Publish(vec![l; 3], false));
    run.run(&Step::Publish(vec![l, e4], true));
    run.run(&Step::Publish(vec![e0, l, l], true));
    run.run(&Step::Pause(true));
    run.run(&Step::Consume(4, 0));
    run.run(&Step::Publish(vec![l], false));
    run.finish();
}
