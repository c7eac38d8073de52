//! Small libraries and programs in C that stand between a broker and the system.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{broker::Home, disk::has};

/// Builds a file of the folder `tests`, for as long as the home lives; `None` without a compiler.
///
/// Errors: what the compiler says.
pub fn compiled(home: &Home, source: &str, flags: &[&str]) -> Result<Option<PathBuf>> {
    if !has("cc") {
        return Ok(None);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    let built = home.file(&name);
    let output =
        Command::new("cc").args(["-O1", "-o"]).arg(&built).args(flags).arg(&source).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(built))
}

/// Flags for a library that is loaded before all others.
pub const LIBRARY: [&str; 2] = ["-shared", "-fPIC"];
