//! The users that a start brings: the first administrator, and `guest` of development.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use polymq_broker::{BrokerHandle, PermissionRecord, UserRecord};
use polymq_model::{UserName, VhostName};
use polymq_store::wait;

use crate::{auth, config::Config, first_admin::FirstAdmin};

/// User and password of `--dev`.
pub(crate) const GUEST: &str = "guest";
/// Tags of both.
const ADMINISTRATOR: [&str; 1] = ["administrator"];
/// What brokers, their images and their tutorials come with.
const KNOWN_PASSWORDS: [&str; 7] =
    ["admin", "guest", "password", "public", "changeme", "polymq", "rabbitmq"];

/// Makes the users that are missing; returns the administrator when the broker had no users.
///
/// Errors: when a password cannot be hashed, or the environment contradicts itself.
pub(crate) fn prepare(
    broker: &BrokerHandle,
    vhosts: &BTreeSet<VhostName>,
    is_dev: bool,
) -> anyhow::Result<Option<FirstAdmin>> {
    let is_first = broker.access().users().is_empty();
    // A password that the environment names counts at every start: it is also the way back for
    // whoever has lost the first one.
    let admin = FirstAdmin::from_env(|name| std::env::var_os(name))?;
    let admin = Some(admin).filter(|admin| is_first || !admin.is_made);
    if let Some(admin) = &admin {
        let record = auth::user_record(admin.password.expose(), &ADMINISTRATOR)?;
        put(broker, vhosts, &admin.name, record, true)?;
    }
    if is_dev {
        let record = auth::public_record(GUEST.as_bytes(), &ADMINISTRATOR)?;
        put(broker, vhosts, GUEST, record, false)?;
    }
    if admin.is_some() {
        // A password that is shown must be good after a crash, too.
        let committer = broker.committer();
        let batch = broker.last_batch();
        committer.kick();
        wait(|reply| committer.when_durable(batch, reply))
            .context("the first administrator cannot be stored")?;
    }
    Ok(admin)
}

/// Looks for an administrator whose password everybody would try first, when there is a listener
/// that takes logins from beyond loopback.
///
/// Errors: there is one.
pub(crate) fn check_passwords(config: &Config, broker: &BrokerHandle) -> anyhow::Result<()> {
    let Some(open) = config.endpoints.iter().find(|endpoint| endpoint.is_open()) else {
        return Ok(());
    };
    for name in broker.access().users() {
        let record = broker.access().user(name.as_str());
        let is_meant = |record: &UserRecord| {
            let is_administrator = record.tags.iter().any(|tag| ADMINISTRATOR.contains(&&**tag));
            is_administrator && !record.loopback_only && !record.password_hash.is_empty()
        };
        let Some(record) = record.filter(|record| is_meant(record)) else { continue };
        let tried = KNOWN_PASSWORDS.into_iter().chain([name.as_str()]);
        for password in tried {
            if auth::is_password(password.as_bytes(), &record) {
                bail!(
                    "the password of `{name}` is a default one that everybody knows \
                     (`{password}`), and listener `{}` is open beyond loopback; set another with \
                     POLYMQ_ADMIN_PASSWORD_FILE, or bind to loopback",
                    open.name
                );
            }
        }
    }
    Ok(())
}

fn put(
    broker: &BrokerHandle,
    vhosts: &BTreeSet<VhostName>,
    name: &str,
    record: UserRecord,
    is_kept: bool,
) -> anyhow::Result<()> {
    let name = UserName::new(name).with_context(|| format!("`{name}` cannot be a user"))?;
    broker.put_user(name.clone(), record, is_kept);
    for vhost in vhosts {
        broker.put_permission(vhost.clone(), name.clone(), PermissionRecord::all(), is_kept)?;
    }
    Ok(())
}
