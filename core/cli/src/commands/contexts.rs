//! Brokers by name.

use serde_json::json;

use super::Done;
use crate::{
    arguments::{ContextCommand, Named},
    context::{Context, Contexts},
    failure::Failure,
    output::Output,
};

pub(super) fn context(command: ContextCommand) -> Done {
    let mut contexts = Contexts::read()?;
    let missing = |name: &str| Failure::Usage(format!("there is no context `{name}`"));
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
