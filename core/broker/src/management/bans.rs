//! Bans.

use std::net::SocketAddr;

use polymq_contract::{Refusal, RefusalKind};
use serde_json::Value;

use super::{Manager, audit::shown, not_found};
use crate::{
    access::Role,
    bans::{Ban, BanTarget, BanView},
};

/// Bytes of the name of a ban, of its target and of its reason.
const TEXT_BYTES_MAX: usize = 1024;

impl Manager {
    /// All bans, by name. Needs `monitoring`.
    ///
    /// Errors: kind `Denied`.
    pub fn bans(&self) -> Result<Vec<BanView>, Refusal> {
        self.require(Role::Monitoring)?;
        Ok(self.core.bans.list())
    }

    /// Keeps a user, an address or a client id out from now on; connections that are there end.
    /// True when the ban is new. Needs an administrator.
    ///
    /// Errors: kind `Denied`; kind `Invalid` for a text that is too long, for an end that is past,
    /// and for whoever would ban itself or the address it comes from; kind `Limit`.
    pub fn put_ban(&self, id: &str, ban: Ban) -> Result<bool, Refusal> {
        self.check_ban(id, &ban)?;
        let after = shown(&ban);
        let before = self.core.put_ban(id, ban)?;
        self.audit("ban.put", format!("/bans/{id}"), shown(&before), after);
        Ok(before.is_none())
    }

    /// Whether it could ban like this.
    ///
    /// Errors: as of [`put_ban`](Self::put_ban).
    pub fn check_ban(&self, id: &str, ban: &Ban) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let invalid = |text: &str| Err(Refusal::new(RefusalKind::Invalid, text));
        let texts = match &ban.target {
            BanTarget::User(name) | BanTarget::ClientId(name) => [id, name, &ban.reason],
            BanTarget::Address(_) => [id, "", &ban.reason],
        };
        if id.is_empty() || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return invalid("the name of a ban, its target and its reason have up to 1024 bytes");
        }
        if ban.until_ms.is_some_and(|until| until <= self.core.clock_ms()) {
            return invalid("the ban would have ended already");
        }
        let is_own = match &ban.target {
            BanTarget::User(name) => name == self.user().as_str(),
            // Nobody there could take it back.
            BanTarget::Address(address) => {
                let own = self.from.parse::<SocketAddr>().map(|own| own.ip().to_canonical());
                own.is_ok_and(|own| own == address.to_canonical())
            }
            BanTarget::ClientId(_) => false,
        };
        if is_own { invalid("nobody can ban themselves") } else { Ok(()) }
    }

    /// Lets somebody in again. Needs an administrator.
    ///
    /// Errors: kind `Denied`, kind `NotFound`.
    pub fn remove_ban(&self, id: &str) -> Result<(), Refusal> {
        self.require(Role::Administrator)?;
        let ban = self.core.remove_ban(id).ok_or_else(|| not_found("ban", id, ""))?;
        self.audit("ban.delete", format!("/bans/{id}"), shown(&ban), Value::Null);
        Ok(())
    }
}
