//! The engine that the configuration names, and opening it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use polymq_log::{EXIT_CODE_STORE_FAILED, LogConfig, LogStore};
use polymq_memory::MemoryStore;
use polymq_sql::{PostgresConfig, SqlStore, SqliteConfig};
use polymq_store::{Opened, OwnerId, ShardId, Store, StoreError, wait};

use crate::{
    auth,
    config::{
        Config, StoragePassword,
        value::{Backend, OnDamage},
    },
    data_dir, logging,
};

/// How often a standby asks whether its turn has come.
const STANDBY_PAUSE: Duration = Duration::from_millis(500);

/// File in the data directory that tells what was seen of a database elsewhere.
const SEEN_FILE: &str = "postgres.seen";

/// A store that is ours.
pub(crate) struct OpenStore {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) opened: Opened,
}

/// The data directory, when anything is kept.
pub(crate) fn data_dir(config: &Config) -> Option<PathBuf> {
    match config.storage.backend {
        Backend::File | Backend::Sqlite | Backend::Postgres => Some(config.server.data_dir.clone()),
        Backend::Memory => None,
    }
}

/// The folder on whose disk messages are kept, when it is one of this machine.
pub(crate) fn disk(config: &Config) -> Option<PathBuf> {
    match config.storage.backend {
        Backend::File | Backend::Sqlite => Some(config.server.data_dir.clone()),
        Backend::Memory | Backend::Postgres => None,
    }
}

/// The folder or file of this machine in which everything is kept, when there is one.
pub(crate) fn path(config: &Config) -> Option<PathBuf> {
    match config.storage.backend {
        Backend::File => Some(config.server.data_dir.join(&config.storage_file.path)),
        Backend::Sqlite => Some(sqlite_file(config)),
        Backend::Memory | Backend::Postgres => None,
    }
}

/// Where messages are kept, for people.
pub(crate) fn place(config: &Config) -> String {
    match config.storage.backend {
        Backend::File => config.server.data_dir.display().to_string(),
        Backend::Sqlite => sqlite_file(config).display().to_string(),
        Backend::Memory => "in memory".to_owned(),
        Backend::Postgres => match postgres(config) {
            Ok(config) => format!("PostgreSQL {}", config.place()),
            Err(_) => "PostgreSQL".to_owned(),
        },
    }
}

/// Finds what could be wrong with the engine's settings without touching it.
///
/// Errors: a URL that is none, a password that cannot be read.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    match config.storage.backend {
        Backend::Postgres => postgres(config).map(|_| ()),
        Backend::File | Backend::Sqlite | Backend::Memory => Ok(()),
    }
}

/// Opens the engine; refused while another broker has it.
///
/// Errors: whatever keeps it from being opened.
pub(crate) fn open(config: &Config) -> anyhow::Result<OpenStore> {
    let store = prepared(config)?;
    let me = owner()?;
    let opened = wait(|reply| store.open(ShardId::default(), me, reply))
        .with_context(|| cannot_open(config))?;
    Ok(OpenStore { store, opened })
}

/// Opens the engine to look at what it holds. Files are not touched; a database is opened as for
/// a broker. Refused while a broker has it.
///
/// Errors: whatever keeps it from being opened.
pub(crate) fn open_to_read(config: &Config) -> anyhow::Result<OpenStore> {
    let file = match config.storage.backend {
        Backend::File => config.server.data_dir.join(&config.storage_file.path),
        Backend::Sqlite => sqlite_file(config),
        Backend::Postgres | Backend::Memory => return open(config),
    };
    if !file.exists() {
        bail!("there is no store in `{}`", file.display());
    }
    if config.storage.backend == Backend::Sqlite {
        return open(config);
    }
    let store: Arc<dyn Store> = Arc::new(LogStore::untouched(file, LogConfig::default())?);
    let me = owner()?;
    let opened = wait(|reply| store.open(ShardId::default(), me, reply))
        .with_context(|| cannot_open(config))?;
    Ok(OpenStore { store, opened })
}

/// Opens the engine as soon as no other broker has it.
///
/// Errors: whatever else keeps it from being opened.
pub(crate) async fn open_as_standby(config: &Config) -> anyhow::Result<OpenStore> {
    let store = prepared(config)?;
    let me = owner()?;
    let mut told = false;
    loop {
        let asked = Arc::clone(&store);
        let open = move || wait(|reply| asked.open(ShardId::default(), me, reply));
        match tokio::task::spawn_blocking(open).await? {
            Err(StoreError::Held(by)) => {
                if !told {
                    tracing::info!(event = "standing_by", holder = %by);
                    told = true;
                }
                tokio::time::sleep(STANDBY_PAUSE).await;
            }
            opened => {
                let opened = opened.with_context(|| cannot_open(config))?;
                return Ok(OpenStore { store, opened });
            }
        }
    }
}

fn cannot_open(config: &Config) -> String {
    format!("the store in `{}` cannot be opened", place(config))
}

/// New with every start, so that a restarted broker is never taken for the one before.
fn owner() -> anyhow::Result<OwnerId> {
    Ok(OwnerId(u128::from_ne_bytes(auth::random()?)))
}

fn prepared(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(data_dir) = data_dir(config) {
        data_dir::prepare(&data_dir)?;
    }
    let started = || format!("the store `{}` cannot start", place(config));
    Ok(match config.storage.backend {
        Backend::Memory => Arc::new(MemoryStore::new()),
        Backend::File => {
            let path = config.server.data_dir.join(&config.storage_file.path);
            let store = LogStore::at(path, log_config(config), end_process);
            Arc::new(store.with_context(started)?)
        }
        Backend::Sqlite => {
            let store = SqlStore::sqlite(SqliteConfig::new(sqlite_file(config)), end_process);
            Arc::new(store.with_context(started)?)
        }
        Backend::Postgres => {
            let store = SqlStore::postgres(postgres(config)?, end_process);
            Arc::new(store.with_context(started)?)
        }
    })
}

/// The sizes grow with that of the files.
pub(crate) fn log_config(config: &Config) -> LogConfig {
    let file = &config.storage_file;
    let bytes = file.segment_size.0;
    let usual = LogConfig::default();
    LogConfig {
        wal_file_bytes: bytes,
        first_file_bytes: usual.first_file_bytes.min(bytes),
        segment_bytes: bytes,
        own_segment_bytes: usual.own_segment_bytes.min(bytes / 8),
        garbage_bytes: bytes,
        is_read_at_start: file.on_damage == OnDamage::Refuse,
        scrub_secs: file.scrub_every.as_secs(),
        scrub_bytes_per_sec: file.scrub_rate.0,
        ..usual
    }
}

/// Nothing may be confirmed after a failed sync, and nothing delivered by a broker that is not
/// the owner any more, so there is nothing to tidy up.
fn end_process(reason: &str) {
    tracing::error!(event = "store_failed", reason, "the process ends");
    logging::flush();
    std::process::exit(EXIT_CODE_STORE_FAILED);
}

fn sqlite_file(config: &Config) -> PathBuf {
    config.server.data_dir.join(&config.storage_sqlite.path)
}

fn postgres(config: &Config) -> anyhow::Result<PostgresConfig> {
    let settings = &config.storage_postgres;
    let password = password(&config.storage_password)?;
    // One connection writes.
    let readers = u32::from(settings.pool_size.saturating_sub(1));
    let postgres =
        PostgresConfig::new(&settings.url.0, password.as_deref(), settings.lease, readers)
            .context("storage.postgres.url")?;
    Ok(postgres.remembering(config.server.data_dir.join(SEEN_FILE)))
}

fn password(source: &StoragePassword) -> anyhow::Result<Option<String>> {
    let password = match (&source.file, source.env.as_str()) {
        (file, "") if file == Path::new("") => return Ok(None),
        (file, "") => {
            let text = fs::read_to_string(file).with_context(|| {
                format!("storage.postgres.password.file `{}` cannot be read", file.display())
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (file, variable) if file == Path::new("") => std::env::var(variable)
            .with_context(|| format!("storage.postgres.password.env names `{variable}`"))?,
        _ => bail!("storage.postgres.password: set `file` or `env`, not both"),
    };
    if password.is_empty() {
        bail!("storage.postgres.password is empty");
    }
    Ok(Some(password))
}
