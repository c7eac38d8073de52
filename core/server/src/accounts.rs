//! The users that a start brings: the first administrator, and `guest` of development.

use std::collections::BTreeSet;

use anyhow::Context;
use polymq_broker::{BrokerHandle, PermissionRecord, UserRecord};
use polymq_model::{UserName, VhostName};
use polymq_store::wait;

use crate::{auth, first_admin::FirstAdmin};

/// User and password of `--dev`.
pub(crate) const GUEST: &str = "guest";
/// Tags of both.
const ADMINISTRATOR: [&str; 1] = ["administrator"];

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
