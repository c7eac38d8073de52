//! `polymq help`: about a command, or about what many commands have in common.

use std::io::Write;

use crate::failure::Failure;

/// Name, what it is about, text.
const TOPICS: [(&str, &str, &str); 6] = [
    ("cheat", "the commands of every day", include_str!("help/cheat.txt")),
    ("addresses", "queues, topics, exchanges as one word", include_str!("help/addresses.txt")),
    ("conditions", "what --filter takes", include_str!("help/conditions.txt")),
    ("output", "tables, JSON, columns", include_str!("help/output.txt")),
    ("login", "which broker, and as whom", include_str!("help/login.txt")),
    ("codes", "exit codes", include_str!("help/codes.txt")),
];

/// Prints the help of a command, a topic, or a list of both.
///
/// Errors: there is neither.
pub(crate) fn tell(program: &clap::Command, about: &[String]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut command = program.clone();
    command.build();
    if about.is_empty() {
        write!(out, "{}\nTopics, for `polymq help TOPIC`:\n", command.render_long_help())?;
        for (name, about, _) in TOPICS {
            writeln!(out, "  {name:<12} {about}")?;
        }
        return Ok(());
    }
    if let [topic] = about
        && let Some((_, _, text)) = TOPICS.iter().find(|(name, _, _)| name == topic)
    {
        return Ok(out.write_all(text.as_bytes())?);
    }
    let mut found = &mut command;
    for name in about {
        found = found.find_subcommand_mut(name).ok_or_else(|| {
            let topics: Vec<_> = TOPICS.iter().map(|(name, _, _)| *name).collect();
            let topics = topics.join(", ");
            let text = format!("`{}` is no command; topics are {topics}", about.join(" "));
            Failure::Usage(text)
        })?;
    }
    Ok(write!(out, "{}", found.render_long_help())?)
}
