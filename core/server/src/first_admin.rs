//! The first administrator: where its password comes from, and how the operator learns it.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, bail};
use polymq_broker::{AuditEntry, AuditResult};
use polymq_contract::Secret;

use crate::{auth, data_dir};

/// File in the data directory that keeps a password we made.
pub(crate) const PASSWORD_FILE: &str = "initial-admin-password";

const DEFAULT_NAME: &str = "admin";
/// 32 signs that cannot be taken for each other, five bits each.
const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 130 bits.
const PASSWORD_SIGNS: usize = 26;

/// The administrator of an empty broker.
pub(crate) struct FirstAdmin {
    pub(crate) name: String,
    pub(crate) password: Secret,
    /// We made the password, so the operator must be told.
    pub(crate) is_made: bool,
}

impl FirstAdmin {
    /// Takes name and password from the environment, or makes a password.
    ///
    /// Errors: when the environment contradicts itself or names a file that cannot be read.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let text = |name: &str| -> anyhow::Result<Option<String>> {
            let Some(value) = variable(name) else { return Ok(None) };
            let value = value.into_string().ok().filter(|value| !value.is_empty());
            value.map(Some).with_context(|| format!("{name} is empty or no text"))
        };
        let name = text("POLYMQ_ADMIN_USER")?;
        let given = match (text("POLYMQ_ADMIN_PASSWORD")?, text("POLYMQ_ADMIN_PASSWORD_FILE")?) {
            (Some(_), Some(_)) => {
                bail!("set POLYMQ_ADMIN_PASSWORD or POLYMQ_ADMIN_PASSWORD_FILE, not both")
            }
            (Some(password), None) => Some(password),
            (None, Some(file)) => {
                let text = fs::read_to_string(&file).with_context(|| {
                    format!("POLYMQ_ADMIN_PASSWORD_FILE `{file}` cannot be read")
                })?;
                let password = text.trim_end_matches(['\r', '\n']).to_owned();
                if password.is_empty() {
                    bail!("POLYMQ_ADMIN_PASSWORD_FILE `{file}` is empty");
                }
                Some(password)
            }
            (None, None) => None,
        };
        if name.is_some() && given.is_none() {
            bail!("POLYMQ_ADMIN_USER is set without a password; set POLYMQ_ADMIN_PASSWORD_FILE");
        }
        let is_made = given.is_none();
        let password = match given {
            Some(password) => password,
            None => random_password()?,
        };
        Ok(Self {
            name: name.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            password: Secret::new(password),
            is_made,
        })
    }

    /// Keeps a password that we made in the data directory.
    ///
    /// A given one takes the place of it.
    ///
    /// Errors: when the file cannot be written.
    pub(crate) fn keep(&self, data_dir: &Path) -> anyhow::Result<()> {
        if !self.is_made {
            if self.name == DEFAULT_NAME {
                forget(data_dir);
            }
            return Ok(());
        }
        data_dir::write_private(&data_dir.join(PASSWORD_FILE), &format!("{}\n", self.shown()))
    }

    /// The password as text, for standard output and the file; never for a log.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(self.password.expose()).into_owned()
    }
}

/// Whether a change is another password of the administrator whom we made.
pub(crate) fn is_replaced_by(change: &AuditEntry) -> bool {
    let is_first = change.object.strip_prefix("/users/") == Some(DEFAULT_NAME);
    is_first
        && change.result == AuditResult::Done
        && (change.action == "user.delete" || change.after.get("password").is_some())
}

/// Removes the file with a password that is none any more.
pub(crate) fn forget(data_dir: &Path) {
    match fs::remove_file(data_dir.join(PASSWORD_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(event = "old_password_kept", %error);
        }
        Ok(()) | Err(_) => {}
    }
}

fn random_password() -> anyhow::Result<String> {
    let bytes = auth::random::<PASSWORD_SIGNS>()?;
    Ok(bytes.iter().map(|byte| char::from(SIGNS[usize::from(byte & 31)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> anyhow::Result<FirstAdmin> {
        FirstAdmin::from_env(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn without_environment_each_password_is_new() {
        let (first, second) = (from(&[]).unwrap(), from(&[]).unwrap());
        assert_eq!(first.name, "admin");
        assert!(first.is_made);
        assert_eq!(first.password.expose().len(), PASSWORD_SIGNS);
        assert_ne!(first.password, second.password);
    }

    #[test]
    fn environment_gives_name_and_password() {
        let given =
            from(&[("POLYMQ_ADMIN_USER", "root"), ("POLYMQ_ADMIN_PASSWORD", "pw")]).unwrap();
        assert_eq!((given.name.as_str(), given.shown().as_str()), ("root", "pw"));
        assert!(!given.is_made);
    }

    #[test]
    fn password_file_is_read_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "pw\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(from(&[("POLYMQ_ADMIN_PASSWORD_FILE", path)]).unwrap().shown(), "pw");
    }

    #[test]
    fn environment_that_contradicts_itself_is_refused() {
        let password = ("POLYMQ_ADMIN_PASSWORD", "pw");
        for variables in [
            vec![password, ("POLYMQ_ADMIN_PASSWORD_FILE", "/x")],
            vec![("POLYMQ_ADMIN_USER", "root")],
            vec![("POLYMQ_ADMIN_PASSWORD", "")],
            vec![("POLYMQ_ADMIN_PASSWORD_FILE", "/no/such/file")],
        ] {
            assert!(from(&variables).is_err(), "{variables:?}");
        }
    }

    #[test]
    fn password_we_made_is_kept_for_the_owner_and_a_given_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PASSWORD_FILE);
        from(&[("POLYMQ_ADMIN_PASSWORD", "pw")]).unwrap().keep(dir.path()).unwrap();
        assert!(!path.exists());
        let made = from(&[]).unwrap();
        made.keep(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", made.shown()));
        from(&[("POLYMQ_ADMIN_PASSWORD", "pw")]).unwrap().keep(dir.path()).unwrap();
        assert!(!path.exists());
    }
}
