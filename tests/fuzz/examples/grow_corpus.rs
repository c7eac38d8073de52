//! Finds small inputs that lead to something new, and keeps them as files of the corpus:
//! `grow_corpus TARGET...`, for targets that have few. It goes on from the seeds and from what is
//! there, in an order that is the same at each run.
#![expect(clippy::print_stdout, reason = "a program that says what it has done")]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use polymq_fuzz::{
    TARGETS, Target,
    changes::{Random, changed},
    seeds, sight,
};

/// Files of a target.
const FILES: usize = 30;
/// Longest input that is kept.
const BYTES_MAX: usize = 600;
/// Inputs of which the one is kept that leads to most.
const TRIES: usize = 40;
/// How long is searched for a target.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for name in std::env::args().skip(1) {
        let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
            return Err(std::io::Error::other(format!("there is no target `{name}`")));
        };
        grow(&name, *target, &corpus.join(&name))?;
    }
    Ok(())
}

fn grow(name: &str, target: Target, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let (mut inputs, mut seen) = (Vec::new(), BTreeSet::new());
    let of_target = seeds::all().into_iter().filter(|seed| seed.target == name);
    for bytes in of_target.map(|seed| seed.bytes).filter(|bytes| bytes.len() < 4096) {
        seen.extend(sight::of(|| target(&bytes)));
        inputs.push(bytes);
    }
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let bytes = fs::read(entry?.path())?;
        seen.extend(sight::of(|| target(&bytes)));
        inputs.push(bytes);
        files += 1;
    }
    let (mut random, begin, mut rounds) = (Random::new(3), Instant::now(), 0_u64);
    while files < FILES && begin.elapsed() < PATIENCE {
        let mut best = (0, Vec::new(), BTreeSet::new());
        for _ in 0..TRIES {
            rounds += 1;
            let bytes = changed(&mut random, &inputs);
            let led_to = sight::of(|| target(&bytes));
            let new = led_to.difference(&seen).count();
            if new > best.0 && bytes.len() <= BYTES_MAX {
                best = (new, bytes, led_to);
            }
        }
        let (1.., bytes, led_to) = best else { continue };
        seen.extend(led_to);
        fs::write(folder.join(format!("grown-{files:02}")), &bytes)?;
        inputs.push(bytes);
        files += 1;
    }
    println!("{name}: {files} files after {rounds} inputs");
    Ok(())
}
