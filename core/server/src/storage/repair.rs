//! `polymq storage repair`: what is damaged, what that costs, and making the store whole again.

use std::process::ExitCode;

use anyhow::{Context, bail};

use super::{place, say};
use crate::{
    config::{Config, value::Backend},
    store::log_config,
};

/// Lists what is damaged; with `yes` also repairs it.
///
/// Errors: a store that is no file store, that somebody has, or of which too much is missing.
pub(super) fn run(config: &Config, yes: bool) -> anyhow::Result<ExitCode> {
    if config.storage.backend != Backend::File {
        bail!("{} is a database: it has means of its own to repair it", place(config));
    }
    let path = config.server.data_dir.join(&config.storage_file.path);
    if !path.exists() {
        bail!("there is no store in `{}`", path.display());
    }
    let sizes = log_config(config);
    let repair =
        if yes { polymq_log::repair(path, sizes) } else { polymq_log::examine(path, sizes) };
    let findings =
        repair.with_context(|| format!("{} cannot be repaired", place(config)))?.findings;
    let name = place(config);
    if findings.is_empty() {
        say(&format!("{name} is sound: there is nothing to repair\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for finding in &findings {
        text.push_str(&format!("{finding}\n"));
    }
    let known = findings.iter().flat_map(|finding| &finding.lost);
    let lost: u64 = known.clone().filter_map(|lost| lost.messages).sum();
    let is_unknown = findings.iter().any(|finding| finding.is_unknown());
    let places = match findings.len() {
        1 => "1 place".to_owned(),
        many => format!("{many} places"),
    };
    let more = if is_unknown { ", and what cannot be known" } else { "" };
    text.push_str(&match yes {
        true => format!(
            "{name} is repaired: {places}, {lost} messages lost{more}. Everything else is there; \
             the damaged bytes are in its folder `quarantine`\n"
        ),
        false => format!(
            "{name} is damaged: {places}, {lost} messages would be lost{more}. Nothing was \
             touched. Restore a backup, or run this again with --yes\n"
        ),
    });
    say(&text)?;
    Ok(if yes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
