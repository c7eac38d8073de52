//! Brokers by name.

use std::io::Write;

use super::Done;
use crate::{
    arguments::ContextCommand,
    context::{Context, Contexts},
    failure::Failure,
};

pub(super) fn context(command: ContextCommand) -> Done {
    let mut contexts = Contexts::read()?;
    let missing = |name: &str| Failure::Usage(format!("there is no context `{name}`"));
    match command {
        ContextCommand::Ls => {
            let mut text = String::new();
            for (name, context) in &contexts.context {
                let mark = if contexts.current.as_ref() == Some(name) { '*' } else { ' ' };
                let user = context.user.as_deref().unwrap_or("-");
                text.push_str(&format!("{mark} {name}  {}  {user}\n", context.url));
            }
            return Ok(std::io::stdout().write_all(text.as_bytes())?);
        }
        ContextCommand::Add { name, url, user, password_file, token_file, vhost, ca_file } => {
            let context = Context { url, user, password_file, token_file, vhost, ca_file };
            contexts.context.insert(name.clone(), context);
            contexts.current.get_or_insert(name);
        }
        ContextCommand::Use { name } => {
            if !contexts.context.contains_key(&name) {
                return Err(missing(&name));
            }
            contexts.current = Some(name);
        }
        ContextCommand::Rm { name } => {
            contexts.context.remove(&name).ok_or_else(|| missing(&name))?;
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
        }
    }
    Ok(contexts.write()?)
}
