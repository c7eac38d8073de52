//! Power cuts at every point: what was answered is there, nothing else is, and recovery can be
//! cut as well.

use polymq_store::Durability;

use super::{epoch, model::Model, open};
use crate::{
    core::LogCore,
    error::Failure,
    manifest::BaseFile,
    prepare::{Fill, prepare},
    sim::{Rng, SimDisk},
};

/// Seeds of the fast run; `POLYMQ_SIM_SEEDS` asks for more, `POLYMQ_SIM_SEED` for one.
const SEEDS: u64 = 2_000;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("POLYMQ_SIM_SEED"), number("POLYMQ_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    }
}

/// How a life of the process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    FailedSync,
    CleanClose,
}

struct World {
    seed: u64,
    disk: SimDisk,
    rng: Rng,
    /// What is certain to be there.
    kept: Model,
    /// What may be there, in order: batches that were not synced, `answered` of them answered, and
    /// the one that was on its way when the lights went out.
    later: Vec<Model>,
    answered: usize,
    /// Only the process has ended: the machine still has what was not synced.
    was_killed: bool,
    refused: u32,
    flushes: u32,
    merges: u32,
}

impl World {
    fn check(&mut self, core: &LogCore, what: &str) {
        let found = Model::of(core);
        let is_known = found == self.kept || self.later.contains(&found);
        assert!(
            is_known,
            "seed {}, {what}: found batch {}, answered {}",
            self.seed, found.last_batch, self.kept.last_batch
        );
        self.kept = found;
        self.later.clear();
        self.answered = 0;
    }

    /// The process has ended and the machine has not: all that was answered is there.
    fn keep_answered(&mut self) {
        if let Some(last) = self.answered.checked_sub(1) {
            self.kept = self.later.swap_remove(last);
            self.later = self.later.split_off(last.min(self.later.len()));
            self.answered = 0;
        }
    }

    /// Commits until the end comes.
    fn live(&mut self, mut core: LogCore) {
        let end = [End::PowerCut, End::PowerCut, End::Kill, End::FailedSync, End::CleanClose]
            [usize::try_from(self.rng.below(5)).unwrap()];
        match end {
            End::PowerCut => {
                let operations = if self.rng.chance(20) { 1_500 } else { 150 };
                self.disk.cut_after(1 + self.rng.below(operations));
            }
            End::FailedSync => self.disk.fail_sync_after(1 + self.rng.below(40)),
            End::Kill | End::CleanClose => {}
        }
        if self.rng.chance(30) {
            self.disk.fill_during_write(1 + self.rng.below(60));
        }
        let epoch = epoch(&core);
        // A long life gets as far as merging.
        let batches_max = if self.rng.chance(15) { 120 } else { 22 };
        for _ in 0..self.rng.below(batches_max) {
            let now = self.later.last().unwrap_or(&self.kept);
            let (batch, next) = now.random_batch(&mut self.rng, epoch);
            let is_synced = self.rng.chance(70);
            match core.commit(&batch, if is_synced { Durability::Sync } else { Durability::Os }) {
                Ok(()) if is_synced => {
                    self.kept = next;
                    self.later.clear();
                    self.answered = 0;
                }
                Ok(()) => {
                    self.later.push(next);
                    self.answered += 1;
                }
                // Nothing was written; the next batch gets the same number.
                Err(Failure::Full(_)) => self.refused += 1,
                Err(_) => {
                    self.later.push(next);
                    break;
                }
            }
            if self.background(&mut core).is_err() {
                break;
            }
        }
        match end {
            End::CleanClose if core.failed().is_none() => {
                let closed = core.close_clean();
                assert!(matches!(closed, Ok(()) | Err(Failure::Full(_))), "{closed:?}");
                self.keep_answered();
            }
            End::PowerCut | End::FailedSync | End::Kill | End::CleanClose => {}
        }
        if end == End::PowerCut || self.rng.chance(20) {
            self.disk.power_cycle();
        } else {
            self.disk.kill_process();
            // A disk that fails loses what was not synced before, power or not.
            self.was_killed = end != End::FailedSync;
        }
    }

    fn background(&mut self, core: &mut LogCore) -> Result<(), Failure> {
        if core.wants_prepared() && self.rng.chance(30) {
            let number = core.take_file_number()?;
            let bytes = core.home.config.wal_file_bytes;
            let prepared = prepare(&core.home, number, bytes, Fill::Zeros, &|| false)?;
            if self.rng.chance(30) {
                core.roll(1)?;
            }
            core.offer(prepared)?;
        }
        let (bases, merges) = seen(core);
        let steps_max = if self.rng.chance(20) { 40 } else { 5 };
        for _ in 0..self.rng.below(steps_max) {
            core.tidy()?;
        }
        let (bases_now, merges_now) = seen(core);
        self.flushes += u32::from(bases_now != bases);
        self.merges += u32::from(merges_now != merges);
        Ok(())
    }

    /// Recovers, possibly with power cuts in between.
    fn recover(&mut self) -> LogCore {
        let cuts = self.rng.below(3);
        if std::mem::take(&mut self.was_killed) && cuts == 0 {
            self.keep_answered();
        }
        for _ in 0..cuts {
            self.disk.cut_after(1 + self.rng.below(40));
            match open(&self.disk) {
                Ok(core) => {
                    self.check(&core, "recovery");
                    drop(core);
                }
                Err(failure) => assert!(self.disk.is_off(), "seed {}: {failure}", self.seed),
            }
            self.disk.power_cycle();
        }
        let core = open(&self.disk).unwrap_or_else(|failure| {
            panic!("seed {}: {failure}", self.seed);
        });
        self.check(&core, "recovery");
        core
    }
}

/// What the manifest names, and how often something was merged.
fn seen(core: &LogCore) -> (Vec<BaseFile>, u64) {
    let flusher = core.flusher.lock();
    (flusher.manifest.bases.clone(), flusher.merges)
}

fn run(seed: u64) -> World {
    let mut world = World {
        seed,
        disk: SimDisk::new(seed),
        rng: Rng::new(!seed),
        kept: Model::default(),
        later: Vec::new(),
        answered: 0,
        was_killed: false,
        refused: 0,
        flushes: 0,
        merges: 0,
    };
    for _ in 0..3 {
        let core = world.recover();
        world.live(core);
    }
    let core = world.recover();
    drop(core);
    world.disk.power_cycle();
    let core = world.recover();
    world.check(&core, "second recovery");
    world
}

#[test]
fn answered_batches_survive_every_power_cut() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Each thread takes every so many seeds.
    let (refused, flushes, merges) = std::thread::scope(|scope| {
        let worlds = |first: usize| {
            seeds().skip(first).step_by(threads).map(run).fold((0, 0, 0), |sum, world| {
                (sum.0 + world.refused, sum.1 + world.flushes, sum.2 + world.merges)
            })
        };
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || worlds(n))).collect();
        running
            .into_iter()
            .map(|running| running.join().unwrap())
            .fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2))
    });
    // A run that never got there would prove little.
    let is_long = seeds().count() >= 1_000;
    let is_enough = refused > 100 && flushes > 1_000 && merges > 100;
    assert!(!is_long || is_enough, "{refused} refused, {flushes} flushed, {merges} merged");
}

#[test]
fn same_seed_leaves_the_same_disk() {
    for seed in [1, 22, 333] {
        assert!(run(seed).disk.snapshot() == run(seed).disk.snapshot(), "seed {seed}");
    }
}
