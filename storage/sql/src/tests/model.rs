//! Random batches on both databases agree with `ShardState`, which is the meaning of records.

use std::sync::Arc;

use bytes::BytesMut;
use polymq_store::{
    Batch, BatchWriter, Close, CursorId, Durability, LogId, Opened, OwnerId, ReadLimit, Seq, Store,
    record::Checks,
    state::{Found, Index, Place, ShardState},
    suite::Engine,
    wait,
};

use super::{SHARD, postgres::OnServer, sqlite::OnDisk};
use crate::testing::PostgresServer;

const LOGS: u32 = 4;
const BATCHES: u64 = 60;

#[derive(Debug, Clone, Copy)]
struct Size(u64);

impl Place for Size {
    fn content_bytes(&self) -> u64 {
        self.0
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (self.0 >> 33) % bound
    }
}

/// Writes some records; `next` are the next positions of the logs 1 to `LOGS`, `last` the number of
/// the newest log.
fn write(writer: &mut BatchWriter<'_>, rng: &mut Rng, next: &mut [u64], first_log: &mut u32) {
    for _ in 0..1 + rng.below(25) {
        let at = rng.below(u64::from(LOGS)) as usize;
        let log = LogId(*first_log + at as u32);
        let seq = next[at];
        let any = rng.below(seq + 2);
        match rng.below(20) {
            0..8 => {
                next[at] += 1 + rng.below(2);
                let flags = (rng.below(4) as u8) << 1;
                let first =
                    writer.publish(log, Seq(seq), any, flags, &[b"p"], &vec![3; any as usize]);
                let other = (at + 1) % LOGS as usize;
                if rng.below(3) == 0 {
                    let log = LogId(*first_log + other as u32);
                    assert!(writer.publish_same(log, Seq(next[other]), 5, first));
                    next[other] += 1;
                }
            }
            8..13 => {
                writer.ack(log, &[(Seq(any), Seq(any + rng.below(3))), (Seq(0), Seq(any / 2))])
            }
            13..16 => writer.hold(log, Seq(any), any as u32, 7, u64::MAX - any),
            16 => writer.floor(log, Seq(any)),
            17 if any.is_multiple_of(4) => {
                writer.purge(log, Seq(any));
                next[at] = next[at].max(any);
            }
            18 => writer.meta_put(&format!("key\0{}", any % 5), &any.to_le_bytes()),
            19 if any.is_multiple_of(3) => writer.meta_delete(&format!("key\0{}", any % 5)),
            _ => {}
        }
    }
    if rng.below(12) == 0 {
        // All logs end, and others take their place.
        for at in 0..LOGS {
            writer.log_delete(LogId(*first_log + at));
            writer.publish(LogId(*first_log + at), Seq(next[at as usize]), 0, 0, &[], b"too late");
        }
        *first_log += LOGS;
        next.fill(0);
        create(writer, *first_log);
    }
}

fn create(writer: &mut BatchWriter<'_>, first_log: u32) {
    for at in 0..LOGS {
        writer.log_create(LogId(first_log + at), &format!("log {at}"));
    }
}

fn open(engine: &dyn Engine) -> (Arc<dyn Store>, Opened) {
    let store = engine.start();
    let opened = wait(|reply| store.open(SHARD, OwnerId(9), reply)).unwrap();
    (store, opened)
}

fn agrees(engine: &dyn Engine, seed: u64) {
    let (mut rng, mut state) = (Rng(seed), ShardState::<Index<Size>>::default());
    let (mut store, mut opened) = open(engine);
    let (mut next, mut first_log) = ([0; LOGS as usize], 1);
    for number in 1..=BATCHES {
        let number = polymq_store::ShardBatch(number);
        let (mut payload, mut records) = (BytesMut::new(), 0);
        let mut writer = BatchWriter::new(number, &mut payload, &mut records);
        if number.0 == 1 {
            create(&mut writer, first_log);
        }
        write(&mut writer, &mut rng, &mut next, &mut first_log);
        let payload = payload.freeze();
        let size =
            |found: &Found<'_>| Size((found.publish.props.len() + found.publish.body.len()) as u64);
        state.apply(number, &payload, Checks::LengthsOnly, size).unwrap();
        let batch = Batch { shard: SHARD, epoch: opened.epoch, number, records, payload };
        wait(|reply| store.submit(batch, Durability::Sync, reply)).unwrap();
        compare(&*store, &state, seed);
        if number.0.is_multiple_of(10) {
            wait(|reply| store.close(Close::Abandon, reply)).unwrap();
            drop(store);
            (store, opened) = open(engine);
            state.set_epoch(opened.epoch);
            assert_eq!(opened, state.opened(), "seed {seed}, batch {number}");
        }
    }
}

fn compare(store: &dyn Store, state: &ShardState<Index<Size>>, seed: u64) {
    let limit = ReadLimit { messages_max: u32::MAX, bytes_max: u64::MAX };
    for (id, log) in state.logs() {
        let page = wait(|reply| store.read(id, Seq(0), limit, reply)).unwrap();
        let found = page.messages.iter().map(|message| (message.seq, message.hold));
        let kept = log.messages().from(Seq(0)).map(|(seq, _)| (seq, log.hold(seq)));
        assert!(found.eq(kept), "seed {seed}, log {id}: {page:?}");
        let cursor = wait(|reply| store.cursor(CursorId(u64::from(id.0)), reply)).unwrap();
        assert_eq!(cursor, log.cursor(), "seed {seed}, log {id}");
    }
}

#[test]
fn random_batches_in_sqlite_mean_what_the_state_says() {
    for seed in 1..=6 {
        agrees(&OnDisk::new(), seed);
    }
}

#[test]
fn random_batches_in_postgres_mean_what_the_state_says() {
    let server = PostgresServer::shared();
    for seed in 1..=2 {
        agrees(&OnServer::on(&server), seed);
    }
}
