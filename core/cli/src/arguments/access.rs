//! The commands on who may do what: virtual hosts, users, rights, bounds.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Change, Ls, Named, Removed, Sure};

/// Commands on virtual hosts.
#[derive(Debug, Subcommand)]
pub enum VhostCommand {
    /// List virtual hosts.
    Ls(Ls),
    /// Show a virtual host.
    Show(Named),
    /// Make a virtual host.
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// It cannot be deleted until this is taken back
        #[arg(long)]
        protected: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a virtual host and everything in it.
    Delete(Removed),
}

/// Commands on users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List users.
    Ls(Ls),
    /// Show a user.
    Show(Named),
    /// Make a user.
    Create {
        /// Its name
        name: String,
        /// administrator, monitoring, policymaker, management, impersonator
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// File with its password; without one the user cannot log in with a password
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        #[command(flatten)]
        change: Change,
    },
    /// Change tags or password of a user; what is not named stays.
    #[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
        .args(["tags", "new_password_file"]))]
    Set {
        /// Its name
        name: String,
        /// All its tags from now on; an empty text for none
        #[arg(long, value_delimiter = ',')]
        tags: Option<Vec<String>>,
        /// File with its password
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a user.
    Delete(Removed),
}

/// Commands on permissions.
#[derive(Debug, Subcommand)]
pub enum PermCommand {
    /// List what users may do, in all virtual hosts.
    Ls(Ls),
    /// What a user may do in the virtual host.
    Show(Named),
    /// Set what a user may do in the virtual host: three regular expressions.
    Set {
        /// The user
        name: String,
        /// Names that it may declare and delete
        configure: String,
        /// Names that it may publish to
        write: String,
        /// Names that it may consume from
        read: String,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the permissions of a user in the virtual host back.
    Delete(Removed),
    /// List which topics of exchanges users may write and read, in all virtual hosts.
    Topics(Ls),
    /// Set which topics of an exchange a user may write and read, in the virtual host.
    SetTopics {
        /// The user
        name: String,
        /// The exchange, as amq.topic
        exchange: String,
        /// Keys that it may publish with
        write: String,
        /// Keys that it may bind and subscribe to
        read: String,
        /// What both are: regex, a regular expression; dot, a pattern as sensors.*.temp; slash, one
        /// as sensors/+/temp
        #[arg(long, value_parser = ["regex", "dot", "slash"])]
        syntax: Option<String>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Free a user of its topic permissions on an exchange.
    DeleteTopics {
        /// The user
        name: String,
        /// The exchange
        exchange: String,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List policies.
    Ls(Ls),
    /// Show a policy and what it matches.
    Show(Named),
    /// Set a policy.
    Set {
        /// Its name
        name: String,
        /// Regular expression on names
        pattern: String,
        /// What it says, as JSON
        definition: String,
        /// queues, exchanges, all, ...
        #[arg(long)]
        apply_to: Option<String>,
        /// The highest wins
        #[arg(long)]
        priority: Option<i64>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a policy.
    Delete(Removed),
}

/// Commands on API tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List the tokens of a user, without what proves them.
    Ls {
        /// The user
        #[arg(value_name = "USER")]
        owner: String,
        #[command(flatten)]
        ls: Ls,
    },
    /// Make a token; its text is shown now and never again.
    Create {
        /// The user
        #[arg(value_name = "USER")]
        owner: String,
        /// For people
        #[arg(long)]
        name: Option<String>,
        /// What it leaves of its user's rights, as read:*/orders*; all of them without any
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// When it ends, as 2030-01-31T12:00:00Z; never without it
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Check everything and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Revoke a token; connections that use it end.
    Delete {
        /// The user
        #[arg(value_name = "USER")]
        owner: String,
        #[command(flatten)]
        token: Removed,
    },
}

/// Whose bounds, if not those of the virtual host.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// Those of this user instead of the virtual host
    #[arg(long, value_name = "USER")]
    pub(crate) of_user: Option<String>,
}

/// Commands on the bounds of virtual hosts and users.
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Show the bounds of the virtual host, or of a user.
    Show(Whose),
    /// Set bounds, as connections_max=100 queues_max=50; those that are not named stay.
    Set {
        /// connections_max, queues_max, bytes_high, retained_bytes_max, retained_count_max,
        /// message_bytes_max; of a user connections_max, channels_max
        #[arg(required = true, value_name = "BOUND=NUMBER")]
        bounds: Vec<String>,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        change: Change,
    },
    /// Remove all bounds.
    Delete {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Commands on bans.
#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// List bans.
    Ls(Ls),
    /// Show a ban.
    Show(Named),
    /// Keep a user, an address or a client id out; its connections end.
    #[command(group = clap::ArgGroup::new("target").required(true)
        .args(["banned_user", "address", "client_id"]))]
    Create {
        /// A name for the ban
        id: String,
        /// Keep this user out
        #[arg(long, value_name = "USER")]
        banned_user: Option<String>,
        /// Keep this address out
        #[arg(long)]
        address: Option<String>,
        /// Keep this client id of MQTT out
        #[arg(long)]
        client_id: Option<String>,
        /// Why, for people
        #[arg(long)]
        reason: Option<String>,
        /// When it ends, as 2030-01-31T12:00:00Z; never without it
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Let somebody in again.
    Delete(Removed),
}
