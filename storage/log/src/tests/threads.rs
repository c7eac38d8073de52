//! The log with its threads: what is acknowledged, read and written while it is flushed.

use std::sync::Arc;

use polymq_store::{
    Batch, Close, CursorId, Durability, Epoch, LogId, OwnerId, ReadLimit, Seq, ShardId, Store,
    StoreError, wait,
};

use super::model::{Log, Message, Model};
use crate::{
    LogStore,
    sim::{Rng, SimClock, SimDisk},
};

const PAGE: ReadLimit = ReadLimit { messages_max: 20, bytes_max: 10_000 };

fn start(disk: &SimDisk) -> (LogStore, Epoch) {
    let clock = Arc::new(SimClock);
    let on_fatal = |_: &str| {};
    let store = LogStore::on(Arc::new(disk.clone()), clock, super::SMALL, on_fatal).unwrap();
    let opened = wait(|reply| store.open(ShardId(0), OwnerId(5), reply)).unwrap();
    (store, opened.epoch)
}

fn submit(store: &LogStore, batch: Batch) -> Result<(), StoreError> {
    wait(|reply| store.submit(batch, Durability::Sync, reply)).map(|_| ())
}

/// Every message of the store is one of the model, and the other way round.
fn agrees(store: &LogStore, model: &Model) {
    for (id, log) in &model.logs {
        let (mut from, mut found) =
            (Some(Seq(0)), Log { name: log.name.clone(), ..Log::default() });
        while let Some(at) = from {
            let page = wait(|reply| store.read(LogId(*id), at, PAGE, reply)).unwrap();
            from = page.next;
            for m in page.messages {
                let message = Message {
                    expiry_ms: m.expiry_ms,
                    flags: m.flags,
                    props: m.props.to_vec(),
                    body: m.body.to_vec(),
                    hold: m.hold,
                };
                found.messages.insert(m.seq.0, message);
            }
        }
        assert!(found.messages == log.messages, "log {id}");
        let cursor = CursorId(u64::from(*id));
        let cursor = wait(|reply| store.cursor(cursor, reply)).unwrap();
        let is_acked = |seq: u64| cursor.acked.iter().any(|(a, b)| a.0 <= seq && seq <= b.0);
        for seq in cursor.floor.0..log.next_seq {
            assert_eq!(is_acked(seq), !log.messages.contains_key(&seq), "log {id}, {seq}");
        }
    }
}

#[test]
fn store_agrees_with_a_model_while_it_is_flushed_and_merged() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let (mut model, mut rng) = (Model::default(), Rng::new(seed));
        for _ in 0..2 {
            let (store, epoch) = start(&disk);
            for round in 0..200 {
                let (batch, next) = model.random_batch(&mut rng, epoch);
                submit(&store, batch).unwrap();
                model = next;
                if round % 25 == 0 {
                    agrees(&store, &model);
                }
            }
            agrees(&store, &model);
            let how = if rng.chance(50) { Close::Clean } else { Close::Abandon };
            wait(|reply| store.close(how, reply)).unwrap();
        }
        let segments = disk.snapshot().keys().filter(|name| name.starts_with("seg/")).count();
        assert!(segments > 0, "nothing was flushed");
    }
}

#[test]
fn power_cut_while_threads_work_loses_nothing_that_was_answered() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let (mut model, mut rng) = (Model::default(), Rng::new(seed));
        for _ in 0..3 {
            let (store, epoch) = start(&disk);
            disk.cut_after(20 + rng.below(900));
            let mut maybe = None;
            while maybe.is_none() {
                let (batch, next) = model.random_batch(&mut rng, epoch);
                match submit(&store, batch) {
                    Ok(()) => model = next,
                    Err(_) => maybe = Some(next),
                }
            }
            drop(store);
            disk.power_cycle();
            let core = super::open(&disk).unwrap();
            let found = Model::of(&core);
            assert!(found == model || Some(&found) == maybe.as_ref(), "seed {seed}");
            model = found;
            drop(core);
            disk.kill_process();
        }
    }
}
