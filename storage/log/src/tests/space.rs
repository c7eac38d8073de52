//! A disk that is full, and one that has room again.

use polymq_store::{LogId, Seq};

use super::{commit, epoch, model::Model, open};
use crate::{
    error::Failure,
    prepare::{Fill, prepare},
    sim::{Rng, SimDisk},
};

#[test]
fn read_only_disk_refuses_batches_and_goes_on_when_it_is_writable() {
    let disk = SimDisk::new(6);
    let mut core = open(&disk).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng::new(6));
    let epoch = epoch(&core);
    let mut refused = 0;
    while refused < 100 {
        let (batch, next) = model.random_batch(&mut rng, epoch);
        let bytes = core.home.config.wal_file_bytes;
        let number = core.take_file_number().unwrap();
        // It is ready when the one that is written has been replaced.
        let prepared = prepare(&core.home, number, bytes, Fill::Zeros, &|| false).unwrap();
        if rng.chance(30) {
            core.roll(1).unwrap();
        }
        disk.set_read_only(rng.chance(50));
        core.offer(prepared).unwrap();
        match core.commit(&batch, polymq_store::Durability::Sync) {
            Ok(()) => model = next,
            Err(Failure::ReadOnly(_)) => refused += 1,
            Err(failure) => panic!("{failure}"),
        }
        assert!(!matches!(core.tidy(), Err(Failure::Fatal(_))));
        assert_eq!(Model::of(&core), model);
        disk.set_read_only(false);
    }
    drop(core);
    disk.power_cycle();
    assert_eq!(Model::of(&open(&disk).unwrap()), model);
}

#[test]
fn full_disk_refuses_the_batch_and_keeps_everything() {
    let disk = SimDisk::new(5);
    let mut core = open(&disk).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng::new(5));
    let epoch = epoch(&core);
    disk.set_capacity(Some(disk.used() + 100_000));
    let mut refused = 0;
    while refused < 20 {
        let (batch, next) = model.random_batch(&mut rng, epoch);
        match core.commit(&batch, polymq_store::Durability::Sync) {
            Ok(()) => model = next,
            Err(Failure::Full(_)) => refused += 1,
            Err(failure) => panic!("{failure}"),
        }
        assert!(core.tidy().is_ok());
        assert_eq!(Model::of(&core), model);
    }
    disk.set_capacity(None);
    for _ in 0..20 {
        let (batch, next) = model.random_batch(&mut rng, epoch);
        core.commit(&batch, polymq_store::Durability::Sync).unwrap();
        model = next;
    }
    drop(core);
    disk.power_cycle();
    assert_eq!(Model::of(&open(&disk).unwrap()), model);
}

#[test]
fn disk_stays_small_while_messages_come_and_go() {
    const LIVE: u64 = 100;
    let disk = SimDisk::new(6);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| w.log_create(LogId(1), "queue"));
    let mut used_max = 0;
    for seq in 0..2_000 {
        commit(&mut core, |w| {
            w.publish(LogId(1), Seq(seq), 0, 0, &[b"props"], &[1; 500]);
            if let Some(old) = seq.checked_sub(LIVE) {
                w.ack(LogId(1), &[(Seq(old), Seq(old))]);
            }
        });
        core.tidy().unwrap();
        used_max = used_max.max(disk.used());
    }
    assert!(used_max < 20 * super::SMALL.wal_file_bytes, "{used_max} bytes used");
    while core.tidy().unwrap() {}
    drop(core);
    disk.power_cycle();
    let log = &Model::of(&open(&disk).unwrap()).logs[&1];
    assert!(log.messages.keys().copied().eq(2_000 - LIVE..2_000));
}

#[test]
fn many_starts_do_not_fill_the_disk() {
    let disk = SimDisk::new(7);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| w.log_create(LogId(1), "queue"));
    for start in 0..50 {
        commit(&mut core, |w| {
            w.publish(LogId(1), Seq(start), 0, 0, &[], b"body");
            w.ack(LogId(1), &[(Seq(start), Seq(start))]);
        });
        core.roll(1).unwrap();
        while core.tidy().unwrap() {}
        drop(core);
        disk.kill_process();
        core = open(&disk).unwrap();
        assert!(disk.used() < 10 * super::SMALL.wal_file_bytes, "{} bytes", disk.used());
    }
}

#[test]
fn the_reserve_lets_a_full_disk_be_drained_and_started() {
    let disk = SimDisk::new(8);
    let mut core = open(&disk).unwrap();
    commit(&mut core, |w| w.log_create(LogId(1), "queue"));
    let mut seq = 0;
    disk.set_capacity(Some(disk.used() + 200_000));
    let sync = polymq_store::Durability::Sync;
    loop {
        let batch = super::batch(&core, |w| {
            w.publish(LogId(1), Seq(seq), 0, 0, &[], &[1; 3_000]);
        });
        match core.commit(&batch, sync) {
            Ok(()) => seq += 1,
            Err(Failure::Full(_)) => break,
            Err(failure) => panic!("{failure}"),
        }
    }
    // Nothing is left: the disk takes no byte more than it has.
    disk.set_capacity(Some(disk.used()));
    commit(&mut core, |w| w.ack(LogId(1), &[(Seq(0), Seq(2))]));
    drop(core);
    disk.kill_process();
    let core = open(&disk).unwrap();
    let log = &Model::of(&core).logs[&1];
    assert!(log.messages.keys().copied().eq(3..seq), "{:?}", log.messages.keys());
}
