//! The data directory: made for the owner only, refused when others may change it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, bail};
use rustix::fs::Mode;

/// Lets every file that this process makes be its owner's alone.
pub(crate) fn make_files_private() {
    rustix::process::umask(Mode::from_raw_mode(0o077));
}

/// Makes the directory, or checks the one that is there.
///
/// Errors: when it cannot be made, is no directory, or others may write to it.
pub(crate) fn prepare(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the data directory `{}` cannot be made", path.display()))?;
    let mode = fs::metadata(path)
        .with_context(|| format!("the data directory `{}` cannot be read", path.display()))?
        .permissions()
        .mode();
    if mode & 0o022 != 0 {
        let path = path.display();
        bail!("others may write to the data directory `{path}`; run `chmod go-w {path}`");
    }
    if mode & 0o055 != 0 {
        tracing::warn!(
            event = "data_dir_readable",
            path = %path.display(),
            "others may read the data directory"
        );
    }
    Ok(())
}

/// Writes a file that only its owner may read.
///
/// Errors: when it cannot be written.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        // An older file would keep its mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("`{}` cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn new_directory_belongs_to_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        prepare(&path).unwrap();
    }

    #[test]
    fn directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for open in [0o777, 0o770, 0o702] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(open)).unwrap();
            let refused = prepare(dir.path()).unwrap_err().to_string();
            assert!(refused.contains("chmod go-w"), "{refused}");
        }
    }

    #[test]
    fn private_file_replaces_an_open_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "old").unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }
}
