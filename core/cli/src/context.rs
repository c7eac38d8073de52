//! Which broker, and as whom: flags, the environment, a context, or the broker of this machine.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{arguments::Common, failure::Failure, local};

const HOME_URL: &str = "http://127.0.0.1:15672";
/// Where a first start leaves the password of `admin`, below the data directory.
const FIRST_PASSWORD: &str = "initial-admin-password";

/// What is known about one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vhost: Option<String>,
    /// PEM file with the authorities to trust instead of the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// The file of contexts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) context: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the file; none is an empty one.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = path()?;
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Writes the file, for its owner only.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = path()?;
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(toml::to_string(self)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path).with_context(|| path.display().to_string())
    }
}

fn path() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let folder = match folder {
        Some(folder) => folder,
        None => std::env::home_dir().context("there is no home directory")?.join(".config"),
    };
    Ok(folder.join("polymq").join("contexts.toml"))
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody.
    None,
    /// A user with a password.
    Password(String, String),
    /// An API token.
    Token(String),
    /// Whoever runs this command, to whom the Unix socket of a broker on this machine answers.
    Local(PathBuf),
}

/// One broker, and how to get in.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) login: Login,
    pub(crate) vhost: String,
    pub(crate) ca_file: Option<PathBuf>,
}

impl Target {
    /// What the flags, then the environment, then the context say, and last the broker of this
    /// machine with the password that its first start has left.
    pub(crate) fn find(common: &Common) -> Result<Self, Failure> {
        let contexts = Contexts::read()?;
        let name = common.context.as_ref().or(contexts.current.as_ref());
        let mut context = match name {
            Some(name) => contexts.context.get(name).cloned().ok_or_else(|| {
                Failure::Usage(format!("there is no context `{name}`; see `polymq context ls`"))
            })?,
            None => Context::default(),
        };
        let from_env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(url) = common.url.clone().or_else(|| from_env("POLYMQ_URL")) {
            // What belongs to one broker is not shown to another.
            context = Context { url, vhost: context.vhost, ..Context::default() };
        }
        let login = login(common, &context, &from_env)?;
        if context.url.is_empty() {
            HOME_URL.clone_into(&mut context.url);
        }
        let vhost = common.vhost.clone().or(context.vhost).unwrap_or_else(|| "/".to_owned());
        Ok(Self {
            url: context.url.trim_end_matches('/').to_owned(),
            login,
            vhost,
            ca_file: common.ca_file.clone().or(context.ca_file),
        })
    }
}

fn login(
    common: &Common,
    context: &Context,
    from_env: &dyn Fn(&str) -> Option<String>,
) -> Result<Login, Failure> {
    if let Some(file) = &common.token_file {
        return Ok(Login::Token(secret(file)?));
    }
    let named = common.user.clone().or_else(|| from_env("POLYMQ_USER"));
    let is_named = named.is_some() || common.password_file.is_some();
    // A token is a login of its own, so somebody who names a user does not mean it.
    if !is_named && let Some(token) = from_env("POLYMQ_TOKEN") {
        return Ok(Login::Token(token));
    }
    if !is_named && let Some(file) = &context.token_file {
        return Ok(Login::Token(secret(file)?));
    }
    let user = named.or_else(|| context.user.clone());
    let file = common
        .password_file
        .clone()
        .or_else(|| from_env("POLYMQ_PASSWORD_FILE").map(PathBuf::from))
        .or_else(|| context.password_file.clone());
    if let Some(file) = file {
        let user = user.unwrap_or_else(|| "admin".to_owned());
        return Ok(Login::Password(user, secret(&file)?));
    }
    match user.as_deref() {
        // The one well-known account; the broker takes it from loopback with --dev only.
        Some("guest") => Ok(Login::Password("guest".to_owned(), "guest".to_owned())),
        None | Some("admin") if ["", HOME_URL].contains(&context.url.as_str()) => {
            let places = local::data_dirs(common.data_dir.as_deref());
            let socket =
                local::socket(&places).filter(|_| user.is_none() && context.url.is_empty());
            if let Some(socket) = socket {
                return Ok(Login::Local(socket));
            }
            let first = places.iter().find_map(|dir| secret(&dir.join(FIRST_PASSWORD)).ok());
            Ok(first.map_or(Login::None, |password| Login::Password("admin".to_owned(), password)))
        }
        None => Ok(Login::None),
        Some(user) => Err(Failure::Usage(format!(
            "the password of `{user}` is missing: --password-file, or POLYMQ_PASSWORD_FILE"
        ))),
    }
}

/// The first line of a file.
pub(crate) fn secret(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
