//! `polymq storage repair`: what is damaged, what that costs, and making the store whole again.

use std::process::ExitCode;

use anyhow::{Context, bail};
use polymq_cli::Format;
use polymq_log::Finding;
use serde_json::{Value, json};

use super::{named, place, progress::Bar, tell};
use crate::{
    config::{Config, value::Backend},
    store::log_config,
};

/// Lists what is damaged; with `yes` also repairs it.
///
/// Errors: a store that is no file store, that somebody has, or of which too much is missing.
pub(super) fn run(config: &Config, yes: bool, format: Format) -> anyhow::Result<ExitCode> {
    if config.storage.backend != Backend::File {
        bail!("{} is a database: it has means of its own to repair it", place(config));
    }
    let path = config.server.data_dir.join(&config.storage_file.path);
    if !path.exists() {
        bail!("there is no store in `{}`", path.display());
    }
    let sizes = log_config(config);
    let bar = Bar::of_bytes("reading");
    let repair = match yes {
        true => polymq_log::repair(path, sizes),
        false => polymq_log::examine(path, sizes, &mut |done, all| bar.show_bytes(done, all)),
    };
    drop(bar);
    let findings =
        repair.with_context(|| format!("{} cannot be repaired", place(config)))?.findings;
    let known = findings.iter().flat_map(|finding| &finding.lost);
    let lost: u64 = known.filter_map(|lost| lost.messages).sum();
    let is_unknown = findings.iter().any(|finding| finding.is_unknown());
    let document = json!({
        "store": named(config),
        "sound": findings.is_empty(),
        "repaired": yes && !findings.is_empty(),
        "lost_messages": lost,
        "lost_more": is_unknown,
        "findings": findings.iter().map(shown).collect::<Vec<_>>(),
    });
    tell(format, &document, || told(&place(config), &findings, yes, (lost, is_unknown)))?;
    let is_well = yes || findings.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(finding: &Finding) -> Value {
    let lost = finding.lost.iter().map(|lost| {
        json!({
            "log": lost.log,
            "queue": lost.name,
            "first_seq": lost.first,
            "last_seq": lost.last,
            "messages": lost.messages,
        })
    });
    json!({
        "file": finding.file,
        "first_byte": finding.bytes.0,
        "end_byte": finding.bytes.1,
        "what": finding.what,
        "lost": lost.collect::<Vec<_>>(),
        "kept_as": finding.kept_as,
    })
}

/// The same for people.
fn told(name: &str, findings: &[Finding], yes: bool, (lost, is_unknown): (u64, bool)) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!("{finding}\n"));
    }
    let places = match findings.len() {
        0 => return format!("{name} is sound: there is nothing to repair\n"),
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
    text
}
