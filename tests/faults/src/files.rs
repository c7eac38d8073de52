//! The files of a store, to be looked at and to be harmed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Files in which nothing is kept, and the folder that is not read.
const NO_CONTENT: [&str; 3] = ["LOCK", "ballast", "quarantine"];

/// A directory of files, named by their paths in it.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

impl Files {
    /// Those below a directory.
    pub fn below(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies everything to a directory that does not exist, as `cp -a` does.
    ///
    /// Errors: those of the system. What vanishes meanwhile is left out.
    pub fn copy_to(&self, to: &Path) -> Result<Self> {
        fs::create_dir_all(to)?;
        let mut from = self.0.clone().into_os_string();
        from.push("/.");
        let output = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).output();
        let told = output.context("cp")?.stderr;
        let told = String::from_utf8_lossy(&told);
        let is_harmless = |line: &str| line.contains("No such file or directory");
        ensure!(told.lines().all(is_harmless), "cp says {told}");
        Ok(Self(to.to_owned()))
    }

    /// The names of all files that have something of a store in them.
    ///
    /// Errors: those of the system.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.collect("", &mut names)?;
        names.retain(|name| !NO_CONTENT.iter().any(|other| name.starts_with(other)));
        names.sort();
        Ok(names)
    }

    fn collect(&self, folder: &str, names: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(self.path(folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = format!("{folder}{}", name.to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.collect(&format!("{name}/"), names)?;
            } else {
                names.push(name);
            }
        }
        Ok(())
    }

    /// What is in a file; nothing when it does not exist.
    ///
    /// Errors: those of the system.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match fs::read(self.path(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            bytes => Ok(bytes?),
        }
    }

    /// Length and checksum of each file, the lock left out.
    ///
    /// Errors: those of the system.
    pub fn prints(&self) -> Result<BTreeMap<String, (usize, u32)>> {
        let mut names = Vec::new();
        self.collect("", &mut names)?;
        names.retain(|name| name != "LOCK" && name != "ballast");
        let print = |name: String| {
            let bytes = self.read(&name)?;
            Ok((name, (bytes.len(), crc_fast::crc32_iscsi(&bytes))))
        };
        names.into_iter().map(print).collect()
    }

    /// Where these bytes stand: a file whose name begins so, and the place in it.
    ///
    /// Errors: those of the system.
    pub fn find(&self, folder: &str, bytes: &[u8]) -> Result<Option<(String, u64)>> {
        for name in self.names()?.into_iter().filter(|name| name.starts_with(folder)) {
            if let Some(at) = position(&self.read(&name)?, bytes) {
                return Ok(Some((name, u64::try_from(at)?)));
            }
        }
        Ok(None)
    }

    /// Changes a bit of the byte at this place.
    ///
    /// Errors: those of the system.
    pub fn flip(&self, name: &str, at: u64) -> Result<()> {
        let mut byte = [0];
        let file = self.open(name)?;
        file.read_exact_at(&mut byte, at)?;
        Ok(file.write_all_at(&[byte[0] ^ 0x10], at)?)
    }

    /// Has the file end at this place.
    ///
    /// Errors: those of the system.
    pub fn cut(&self, name: &str, at: u64) -> Result<()> {
        Ok(self.open(name)?.set_len(at)?)
    }

    /// Writes zeros over so many bytes; the file does not grow.
    ///
    /// Errors: those of the system.
    pub fn zero(&self, name: &str, at: u64, count: u64) -> Result<()> {
        let file = self.open(name)?;
        let count = file.metadata()?.len().saturating_sub(at).min(count);
        Ok(file.write_all_at(&vec![0; usize::try_from(count)?], at)?)
    }

    /// Removes a file.
    ///
    /// Errors: those of the system.
    pub fn lose(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.path(name))?)
    }

    /// Puts the file of this name from another directory in the place of the one here.
    ///
    /// Errors: those of the system.
    pub fn take_from(&self, other: &Self, name: &str) -> Result<()> {
        Ok(fs::write(self.path(name), other.read(name)?)?)
    }

    fn open(&self, name: &str) -> Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name));
        file.with_context(|| name.to_owned())
    }
}

/// Where these bytes stand in others.
pub fn position(content: &[u8], bytes: &[u8]) -> Option<usize> {
    let first = bytes.first()?;
    let mut starts = content.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts.find(|(at, _)| content[*at..].starts_with(bytes)).map(|(at, _)| at)
}
