//! `polymq backup restore`: checks a backup, copies it beside the place of the store, and puts it
//! there in one step. Nothing is deleted.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use polymq_log::{Disk, Lock, RealDisk};

use super::{CONFIGURATION, Description, beside, place, place_of_store, say, sync_dir, verify};
use crate::{
    config::{Config, value::Backend},
    data_dir,
    storage::progress::Bar,
};

/// What SQLite has beside a database.
const SQLITE_FILES: [&str; 3] = ["", "-wal", "-shm"];

/// Restores a backup into the data directory that the configuration names.
///
/// Errors: a damaged backup, one of another backend, a place that is taken or in use.
pub(super) fn run(config: &Config, dir: &Path, replace: bool) -> anyhow::Result<ExitCode> {
    let target = place_of_store(config)?;
    let description = Description::read(dir)?;
    if description.backend()? != config.storage.backend {
        bail!(
            "the backup is of a {0} store, and the configuration says storage.backend = \"{1}\"; \
             restore it with `--set storage.backend={0}`, and see `polymq storage migrate`",
            description.backend()?,
            config.storage.backend
        );
    }
    data_dir::make_files_private();
    data_dir::prepare(&config.server.data_dir)?;
    let _lock = lock(&target, config.storage.backend)?;
    let is_taken = SQLITE_FILES.iter().any(|ending| is_something(&beside(&target, ending)));
    if is_taken && !replace {
        bail!(
            "there is a store in `{}` already; with --replace it is kept under another name, and \
             the backup takes its place",
            target.display()
        );
    }
    let checked = verify::check(dir, &description)?;
    if let Some(problem) = checked.problems.first() {
        bail!("the backup `{}` is damaged, nothing was written: {problem}", dir.display());
    }
    let restoring = beside(&target, ".restoring");
    let copied = copy(dir, &description, &restoring);
    copied.with_context(|| format!("`{}` cannot be written", restoring.display()))?;
    give_to_owner(&restoring, &config.server.data_dir)?;
    let kept =
        if is_taken { Some(put_aside(&target, description.made_at_unix_secs)?) } else { None };
    fs::rename(&restoring, &target)?;
    sync_dir(target.parent().unwrap_or(&target))?;
    let mut text = format!(
        "{} is that of the backup: {} definitions, {} logs, {} messages. ",
        place(config),
        checked.definitions,
        checked.logs,
        checked.messages
    );
    if let Some(kept) = kept {
        text.push_str(&format!("The one before is `{}`. ", kept.display()));
    }
    if dir.join(CONFIGURATION).exists() {
        let path = dir.join(CONFIGURATION);
        text.push_str(&format!("The configuration of that time is `{}`. ", path.display()));
    }
    text.push_str("Keys and certificates are not part of a backup\n");
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps brokers away from the place.
fn lock(target: &Path, backend: Backend) -> anyhow::Result<Option<Box<dyn Send>>> {
    let owner = format!("process {}, which restores a backup", std::process::id());
    let in_use = |by: &str| format!("`{}` is in use by {by}", target.display());
    if backend == Backend::Sqlite {
        let path = beside(target, ".lock");
        if !path.exists() {
            return Ok(None);
        }
        let file = File::open(&path)?;
        return match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(_) => bail!(in_use("a broker")),
        };
    }
    if !target.exists() {
        return Ok(None);
    }
    match RealDisk::new(target).lock("LOCK", &owner)? {
        Lock::Taken(lock) => Ok(Some(lock)),
        Lock::HeldBy(by) => bail!(in_use(&by)),
    }
}

/// True for a file with contents, and for a folder with more than our lock.
fn is_something(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| entry.file_name() != "LOCK"),
        Err(_) => fs::metadata(path).is_ok_and(|data| data.len() > 0),
    }
}

/// Copies the store of a backup; what an earlier try has left goes.
fn copy(dir: &Path, description: &Description, to: &Path) -> anyhow::Result<()> {
    let store = description.store()?;
    let made_dir = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    let removed = if to.is_dir() { fs::remove_dir_all(to) } else { fs::remove_file(to) };
    if to.exists() {
        removed?;
    }
    if dir.join(store).is_dir() {
        made_dir(to)?;
        for entry in fs::read_dir(dir.join(store))?.flatten() {
            if entry.path().is_dir() {
                made_dir(&to.join(entry.file_name()))?;
            }
        }
    }
    let all = description.bytes();
    let (bar, mut done) = (Bar::of_bytes("restoring"), 0);
    for file in &description.files {
        bar.show_bytes(done, all);
        done += file.bytes;
        let path = Path::new(&file.path);
        let Ok(within) = path.strip_prefix(store) else { continue };
        let to = if within == Path::new("") { to.to_owned() } else { to.join(within) };
        fs::copy(dir.join(path), &to)?;
        File::open(&to)?.sync_all()?;
    }
    if to.is_dir() {
        for entry in fs::read_dir(to)?.flatten().filter(|entry| entry.path().is_dir()) {
            sync_dir(&entry.path())?;
        }
        sync_dir(to)?;
    }
    Ok(())
}

/// Root restores for the user of the broker, who owns the data directory.
fn give_to_owner(path: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let (owner, ours) = (fs::metadata(data_dir)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    chown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("`{}` cannot be given to its owner", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            give_to_owner(&entry.path(), data_dir)?;
        }
    }
    Ok(())
}

/// Moves what is there to another name.
fn put_aside(target: &Path, backup_of_secs: u64) -> anyhow::Result<PathBuf> {
    let free = |number: &u32| !beside(target, &aside(backup_of_secs, *number)).exists();
    let number = (1..).find(free).context("a name that is free")?;
    let kept = beside(target, &aside(backup_of_secs, number));
    for ending in SQLITE_FILES {
        let from = beside(target, ending);
        if from.exists() {
            fs::rename(&from, beside(&kept, ending))
                .with_context(|| format!("`{}` cannot be renamed", from.display()))?;
        }
    }
    Ok(kept)
}

fn aside(backup_of_secs: u64, number: u32) -> String {
    format!(".before-{backup_of_secs}-{number}")
}
