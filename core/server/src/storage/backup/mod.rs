//! `polymq backup`: a folder with everything that a broker needs to begin again: the store, in
//! which users, permissions and definitions are, and the configuration as it was. Made while the
//! broker runs or not; checked and put back while nobody runs on the target.
//!
//! ```text
//! BACKUP        what the folder holds, written last    polymq.toml   the configuration, to look at
//! store/        a file store, as in a data directory   polymq.db     or a database of SQLite
//! ```
//!
//! Not in it: keys and certificates, passwords in files of their own, the audit file.

mod description;
mod restore;
mod verify;

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};

use super::{place, progress::Bar, say};
use crate::{
    cli::BackupCommand,
    config::{Config, Sources, value::Backend},
    data_dir, store,
};
use description::Description;

/// The store of each backend within a backup.
const FILE_STORE: &str = "store";
const SQLITE_STORE: &str = "polymq.db";
const CONFIGURATION: &str = "polymq.toml";

/// Runs one command.
///
/// Errors: what keeps it from being done.
pub(crate) fn run(command: &BackupCommand) -> anyhow::Result<ExitCode> {
    let load = |sources: &Sources| Config::load(sources).map_err(anyhow::Error::from);
    match command {
        BackupCommand::Create { dir, .. } => {
            let sources = command.sources();
            create(&load(&sources)?.config, &sources, dir)
        }
        BackupCommand::Verify { dir, shown } => verify::run(dir, shown.output),
        BackupCommand::Restore { dir, replace, .. } => {
            restore::run(&load(&command.sources())?.config, dir, *replace)
        }
    }
}

fn create(config: &Config, sources: &Sources, dir: &Path) -> anyhow::Result<ExitCode> {
    let store = place_of_store(config)?;
    if !store.exists() {
        bail!("there is no store in `{}`", store.display());
    }
    let partial = beside(dir, ".partial");
    for path in [dir, &partial] {
        if path.exists() {
            bail!("`{}` is there already; a backup is made in a new folder", path.display());
        }
    }
    data_dir::make_files_private();
    let cannot = || format!("the backup `{}` cannot be written", partial.display());
    DirBuilder::new().mode(0o700).create(&partial).with_context(cannot)?;
    if partial.canonicalize()?.starts_with(store.canonicalize()?) {
        fs::remove_dir(&partial)?;
        bail!("a backup cannot be made inside of the store `{}`", store.display());
    }
    let made = fill(config, sources, &store, &partial);
    if made.is_err() {
        // What failed is more interesting than what is left behind.
        let _ = fs::remove_dir_all(&partial);
    }
    let description = made?;
    fs::rename(&partial, dir).with_context(cannot)?;
    sync_dir(dir.parent().unwrap_or(dir))?;
    say(&format!(
        "`{}` holds {}: {} files with {} bytes. `polymq backup verify` reads all of it\n",
        dir.display(),
        place(config),
        description.files.len(),
        description.bytes()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Puts everything into the folder of a backup.
fn fill(
    config: &Config,
    sources: &Sources,
    store: &Path,
    dir: &Path,
) -> anyhow::Result<Description> {
    let cannot = || format!("{} cannot be backed up", place(config));
    let bar = Bar::of_bytes("copying");
    let mut progress = |done, all| bar.show_bytes(done, all);
    match config.storage.backend {
        Backend::Sqlite => {
            let to = dir.join(SQLITE_STORE);
            polymq_sql::back_up_sqlite(store, &to, &mut progress).with_context(cannot)?;
        }
        Backend::File | Backend::Memory | Backend::Postgres => {
            let to = dir.join(FILE_STORE);
            DirBuilder::new().mode(0o700).create(&to)?;
            polymq_log::back_up(store, &to, &mut progress).with_context(cannot)?;
        }
    }
    drop(bar);
    if let Some(text) = sources.file_text()? {
        data_dir::write_private(&dir.join(CONFIGURATION), &text)?;
        File::open(dir.join(CONFIGURATION))?.sync_all()?;
    }
    let description = Description::of(dir, config.storage.backend)?;
    description.write(dir)?;
    Ok(description)
}

/// Where the store is that can be backed up.
///
/// Errors: a backend whose contents are elsewhere, or nowhere.
fn place_of_store(config: &Config) -> anyhow::Result<PathBuf> {
    match (store::path(config), config.storage.backend) {
        (Some(path), _) => Ok(path),
        (None, Backend::Postgres) => bail!(
            "everything is in PostgreSQL, which has backups of its own: `pg_dump --format=custom` \
             while the broker runs, `pg_restore` while it does not. Remove `postgres.seen` in the \
             data directory after that, or the broker refuses a database that went back in time"
        ),
        (None, _) => bail!("a memory store keeps nothing that could be backed up"),
    }
}

/// A path whose name goes on with `ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn sync_dir(path: &Path) -> anyhow::Result<()> {
    let path = if path == Path::new("") { Path::new(".") } else { path };
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("`{}` cannot be synced", path.display()))
}
