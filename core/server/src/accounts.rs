//! The users that a start brings: the first administrator, and `guest` of development.

use std::{collections::BTreeSet, thread};

use anyhow::Context;
use polymq_broker::{BrokerHandle, PermissionRecord, UserRecord};
use polymq_contract::Secret;
use polymq_model::{UserName, VhostName};
use polymq_store::wait;

use crate::{auth, first_admin::FirstAdmin};

/// User and password of `--dev`.
pub(crate) const GUEST: &str = "guest";

/// Makes the users that are missing; returns the administrator when the broker had no users.
///
/// Errors: when a password cannot be hashed, or the environment contradicts itself.
pub(crate) fn prepare(
    broker: &BrokerHandle,
    vhosts: &BTreeSet<VhostName>,
    is_dev: bool,
) -> anyhow::Result<Option<FirstAdmin>> {
    let is_first = broker.access().users().is_empty();
    let admin =
        is_first.then(|| FirstAdmin::from_env(|name| std::env::var_os(name))).transpose()?;
    let guest = is_dev.then(|| Secret::new(GUEST));

    // Each hash takes some 30 ms, so they are made side by side.
    let hash = |password: Option<&Secret>, loopback_only| -> anyhow::Result<Option<UserRecord>> {
        password
            .map(|password| auth::user_record(password.expose(), &["administrator"], loopback_only))
            .transpose()
    };
    let admin_password = admin.as_ref().map(|admin| &admin.password);
    let (admin_record, guest_record) = thread::scope(|scope| {
        let other = scope.spawn(|| hash(admin_password, false));
        let guest = hash(guest.as_ref(), true);
        (other.join(), guest)
    });
    let admin_record = admin_record.map_err(|_| anyhow::anyhow!("hashing has panicked"))??;

    if let (Some(admin), Some(record)) = (&admin, admin_record) {
        put(broker, vhosts, &admin.name, record, true)?;
    }
    if let Some(record) = guest_record? {
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
