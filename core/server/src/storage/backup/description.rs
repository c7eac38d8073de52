//! The file `BACKUP`: which files there are, of which backend, and what of them can be checked.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::{FILE_STORE, SQLITE_STORE};
use crate::{
    config::value::{Backend, Raw, Setting},
    data_dir,
};

const NAME: &str = "BACKUP";
/// Version of the description; a reader takes no later one.
const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    format: u32,
    /// Version of the program that made it.
    pub(super) made_by: String,
    pub(super) made_at_unix_secs: u64,
    backend: String,
    pub(super) files: Vec<Listed>,
}

/// One file of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Within the folder, with `/`.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// Hexadecimal, for files whose contents have no checksums of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Description {
    /// Describes the files of a folder.
    ///
    /// Errors: when they cannot be read.
    pub(super) fn of(dir: &Path, backend: Backend) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        list(dir, "", &mut files).with_context(|| format!("`{}`", dir.display()))?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            format: FORMAT,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            made_at_unix_secs: since_1970.as_secs(),
            backend: backend.to_string(),
            files,
        })
    }

    /// Reads the description in a folder.
    ///
    /// Errors: when there is none, or one that this program does not know.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(NAME);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("`{}` is no backup: no file {NAME}", dir.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("`{}`", path.display()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if format != u64::from(FORMAT) {
            bail!("`{}` has format {format}, and this program reads {FORMAT}", path.display());
        }
        serde_json::from_value(value).with_context(|| format!("`{}`", path.display()))
    }

    /// Writes it down, which makes the folder a backup.
    ///
    /// Errors: when it cannot be written.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        data_dir::write_private(&dir.join(NAME), &text)?;
        File::open(dir.join(NAME))?.sync_all()?;
        super::sync_dir(dir)
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Which backend its store is of.
    ///
    /// Errors: one that has no store in files.
    pub(super) fn backend(&self) -> anyhow::Result<Backend> {
        match Backend::read(&Raw::Text(self.backend.clone())) {
            Some(backend @ (Backend::File | Backend::Sqlite)) => Ok(backend),
            Some(Backend::Memory | Backend::Postgres) | None => {
                bail!("the backup is of a store `{}`, which is unknown", self.backend)
            }
        }
    }

    /// Name of its store.
    ///
    /// Errors: as of [`backend`](Self::backend).
    pub(super) fn store(&self) -> anyhow::Result<&'static str> {
        Ok(if self.backend()? == Backend::Sqlite { SQLITE_STORE } else { FILE_STORE })
    }
}

impl Listed {
    /// What is wrong with the file in the folder of a backup; `None` when nothing is found.
    pub(super) fn problem(&self, dir: &Path) -> Option<String> {
        let path = dir.join(&self.path);
        let bytes = match fs::metadata(&path) {
            Ok(data) => data.len(),
            Err(error) => return Some(format!("{}: {error}", self.path)),
        };
        if bytes != self.bytes {
            return Some(format!("{} has {bytes} bytes, and had {}", self.path, self.bytes));
        }
        let known = self.sha256.as_ref()?;
        match sha256(&path) {
            Ok(found) if found == *known => None,
            Ok(_) => Some(format!("{} is not what was written", self.path)),
            Err(error) => Some(format!("{}: {error}", self.path)),
        }
    }
}

/// Adds the files below a folder, in the order of their names.
fn list(dir: &Path, within: &str, files: &mut Vec<Listed>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(dir.join(within))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if within.is_empty() { name } else { format!("{within}/{name}") };
        let data = entry.metadata()?;
        if data.is_dir() {
            list(dir, &path, files)?;
            continue;
        }
        // Every record, batch and file of a file store has a checksum, and may be long.
        let has_own = path.starts_with(&format!("{FILE_STORE}/"));
        let sha256 = if has_own { None } else { Some(sha256(&entry.path())?) };
        files.push(Listed { path, bytes: data.len(), sha256 });
    }
    Ok(())
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part)? {
            0 => break,
            count => context.update(&part[..count]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
