//! Who is kept out: users, addresses and client ids, for a time or for good.

use std::{collections::BTreeMap, net::IpAddr};

use parking_lot::RwLock;
use polymq_contract::{Event, Refusal, RefusalKind};
use polymq_model::UserName;
use serde::{Deserialize, Serialize};

use crate::{
    core::Core,
    definitions::{self, kind},
};

/// Bans at a time.
const BANS_MAX: usize = 10_000;

/// Whom a ban keeps out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BanTarget {
    /// A user, from everywhere.
    User(String),
    /// Everybody at an address.
    Address(IpAddr),
    /// A client id of MQTT, in every virtual host.
    ClientId(String),
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Whom it keeps out.
    pub target: BanTarget,
    /// For people.
    #[serde(default)]
    pub reason: String,
    /// When it ends, in ms since 1970; `None` for never.
    #[serde(default)]
    pub until_ms: Option<u64>,
}

/// A ban with its name in management.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanView {
    /// Its name.
    pub id: String,
    /// The ban.
    pub ban: Ban,
}

/// All bans.
#[derive(Default)]
pub(crate) struct Bans(RwLock<BTreeMap<String, Ban>>);

impl Bans {
    pub(crate) fn restore(&self, id: &str, ban: Ban) {
        self.0.write().insert(id.to_owned(), ban);
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<BanView> {
        let view = |(id, ban): (&String, &Ban)| BanView { id: id.clone(), ban: ban.clone() };
        self.0.read().iter().map(view).collect()
    }

    fn holds(&self, now_ms: u64, is_meant: impl Fn(&BanTarget) -> bool) -> bool {
        let lasts = |ban: &Ban| ban.until_ms.is_none_or(|until| now_ms < until);
        self.0.read().values().any(|ban| is_meant(&ban.target) && lasts(ban))
    }

    /// Errors: kind `Banned`.
    pub(crate) fn check_user(&self, user: &UserName, now_ms: u64) -> Result<(), Refusal> {
        let is_meant =
            |target: &BanTarget| matches!(target, BanTarget::User(name) if name == user.as_str());
        if self.holds(now_ms, is_meant) {
            let text = format!("user '{user}' is banned");
            return Err(Refusal::new(RefusalKind::Banned, text));
        }
        Ok(())
    }

    /// Errors: kind `Banned`.
    pub(crate) fn check_address(&self, address: IpAddr, now_ms: u64) -> Result<(), Refusal> {
        let is_meant = |target: &BanTarget| {
            matches!(target, BanTarget::Address(banned)
                if banned.to_canonical() == address.to_canonical())
        };
        if self.holds(now_ms, is_meant) {
            return Err(Refusal::new(RefusalKind::Banned, format!("address {address} is banned")));
        }
        Ok(())
    }

    /// Errors: kind `Banned`.
    pub(crate) fn check_client_id(&self, client_id: &str, now_ms: u64) -> Result<(), Refusal> {
        let is_meant =
            |target: &BanTarget| matches!(target, BanTarget::ClientId(id) if id == client_id);
        if self.holds(now_ms, is_meant) {
            let text = format!("client id '{client_id}' is banned");
            return Err(Refusal::new(RefusalKind::Banned, text));
        }
        Ok(())
    }
}

impl Core {
    /// Keeps somebody out from now on, and ends the connections that are there. Returns what the
    /// ban of this name was before.
    ///
    /// Errors: kind `Limit`.
    pub(crate) fn put_ban(&self, id: &str, ban: Ban) -> Result<Option<Ban>, Refusal> {
        let mut bans = self.bans.0.write();
        if bans.len() >= BANS_MAX && !bans.contains_key(id) {
            return Err(Refusal::new(RefusalKind::Limit, format!("there are {BANS_MAX} bans")));
        }
        let before = bans.insert(id.to_owned(), ban.clone());
        let key = definitions::key(&[kind::BAN, id]);
        self.committer.append(|writer| writer.meta_put(&key, &definitions::encode(&ban)));
        drop(bans);
        self.enforce(&ban.target);
        Ok(before)
    }

    fn enforce(&self, target: &BanTarget) {
        match target {
            BanTarget::User(user) => {
                self.close_where("the user is banned", |record| {
                    record.user.as_ref().is_some_and(|own| own.as_str() == user)
                });
            }
            BanTarget::Address(address) => {
                self.close_where("the address is banned", |record| {
                    record
                        .peer
                        .address
                        .is_some_and(|own| own.ip().to_canonical() == address.to_canonical())
                });
            }
            BanTarget::ClientId(client_id) => {
                for vhost in self.all_vhosts() {
                    let session = vhost.clients.lock().get(client_id).cloned();
                    let Some(session) = session else { continue };
                    if let Some((_, outbox)) = &session.state.lock().connected {
                        let reason = "the client id is banned".into();
                        outbox.push(Event::Closing { reason, shutdown: false });
                    }
                }
            }
        }
    }

    /// Lets somebody in again. Returns the ban.
    pub(crate) fn remove_ban(&self, id: &str) -> Option<Ban> {
        let mut bans = self.bans.0.write();
        let ban = bans.remove(id)?;
        let key = definitions::key(&[kind::BAN, id]);
        self.committer.append(|writer| writer.meta_delete(&key));
        Some(ban)
    }

    /// Forgets the bans that are over.
    pub(crate) fn end_bans(&self, now_ms: u64) {
        let is_over = |ban: &Ban| ban.until_ms.is_some_and(|until| until <= now_ms);
        let over: Vec<String> = {
            let bans = self.bans.0.read();
            bans.iter().filter(|(_, ban)| is_over(ban)).map(|(id, _)| id.clone()).collect()
        };
        for id in over {
            self.remove_ban(&id);
        }
    }
}
