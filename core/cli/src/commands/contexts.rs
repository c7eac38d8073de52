//! Brokers by name.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use ureq::http::Uri;

use super::Done;
use crate::{
    arguments::{ContextCommand, Named},
    context::{Context, Contexts},
    failure::Failure,
    output::Output,
};

pub(super) fn context(command: ContextCommand) -> Done {
    let mut contexts = Contexts::read()?;
    let missing = |name: &str| Failure::Missing(format!("there is no context `{name}`"));
    match command {
        ContextCommand::Ls { output } => {
            let row = |(name, context): (&String, &Context)| {
                json!({
                    "current": contexts.current.as_ref() == Some(name),
                    "name": name,
                    "url": context.url,
                    "user": context.user,
                    "vhost": context.vhost,
                })
            };
            let rows: Vec<_> = contexts.context.iter().map(row).collect();
            let columns = &["current", "name", "url", "user", "vhost"];
            return Ok(Output::new(output).rows(&rows, columns)?);
        }
        ContextCommand::Add { name, url, user, password_file, token_file, vhost, ca_file } => {
            let is_url = url
                .parse::<Uri>()
                .is_ok_and(|url| matches!(url.scheme_str(), Some("http" | "https")));
            if !is_url {
                let text = format!("`{url}` is no URL, as https://broker.example:15671");
                return Err(Failure::Usage(text));
            }
            // It is used from any folder later.
            let whole = |file: Option<PathBuf>| file.map(std::path::absolute).transpose();
            let absolute = || -> std::io::Result<_> {
                Ok((whole(password_file)?, whole(token_file)?, whole(ca_file)?))
            };
            let (password_file, token_file, ca_file) = absolute().context("this folder")?;
            let context = Context { url, user, password_file, token_file, vhost, ca_file };
            contexts.context.insert(name.clone(), context);
            contexts.current.get_or_insert(name);
        }
        ContextCommand::Use(Named { name }) => {
            if !contexts.context.contains_key(&name) {
                return Err(missing(&name));
            }
            contexts.current = Some(name);
        }
        ContextCommand::Rm(Named { name }) => {
            contexts.context.remove(&name).ok_or_else(|| missing(&name))?;
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
        }
    }
    Ok(contexts.write()?)
}
