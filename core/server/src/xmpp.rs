//! XMPP as the configuration wants it.

use std::{fs, sync::Arc};

use anyhow::Context;
use polymq_contract::{Offer, Secret};
use polymq_driver::Outgoing;
use polymq_model::{UserName, VhostName};
use polymq_xmpp::{ComponentSettings, Settings, Xmpp};

use crate::{config::Config, server::fill_with_randomness};

/// What XMPP is told.
pub(crate) fn settings(config: &Config, offer: Offer) -> Settings {
    Settings {
        domain: config.xmpp.domain.clone(),
        stanza_bytes_max: config.xmpp.stanza_size.as_usize(),
        resume_timeout: config.xmpp.resume_timeout,
        ping_after: config.xmpp.ping_after,
        offer,
        entropy: Box::new(fill_with_randomness),
    }
}

/// The servers that we join as a component.
///
/// Errors: a secret that cannot be read, or a name that cannot be one.
pub(crate) fn components(config: &Config) -> anyhow::Result<Vec<Outgoing>> {
    config.components.keys().map(|name| component(config, name)).collect()
}

/// One of them.
///
/// Errors: as of all of them.
pub(crate) fn component(config: &Config, name: &str) -> anyhow::Result<Outgoing> {
    let component = config.components.get(name).context("there is no such component")?;
    let place = || format!("components.{name}");
    let file = &component.secret_file;
    let secret = fs::read_to_string(file)
        .with_context(|| format!("{}: `{}` cannot be read", place(), file.display()))?;
    let settings_of = ComponentSettings {
        domain: component.domain.clone(),
        secret: Secret::new(secret.trim_end_matches(['\r', '\n'])),
    };
    let vhost = match component.vhost.as_str() {
        "" => &config.server.default_vhost,
        named => named,
    };
    Ok(Outgoing {
        name: name.into(),
        address: component.address.clone(),
        protocol: Arc::new(Xmpp::component(settings(config, Offer::default()), settings_of)),
        account: UserName::new(&component.user).with_context(place)?,
        vhost: VhostName::new(vhost).with_context(place)?,
    })
}
