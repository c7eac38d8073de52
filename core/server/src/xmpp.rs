//! XMPP as the configuration wants it.

use std::{fs, sync::Arc};

use anyhow::Context;
use polymq_contract::Secret;
use polymq_driver::Outgoing;
use polymq_model::{UserName, VhostName};
use polymq_xmpp::{ComponentSettings, Mechanisms, Settings, Xmpp};

use crate::{
    config::{Config, value::Mechanism},
    server::fill_with_randomness,
};

/// What XMPP is told.
pub(crate) fn settings(config: &Config) -> Settings {
    let offers = |mechanism| config.auth.mechanisms.contains(&mechanism);
    Settings {
        domain: config.xmpp.domain.clone(),
        stanza_bytes_max: config.xmpp.stanza_size.as_usize(),
        resume_timeout: config.xmpp.resume_timeout,
        ping_after: config.xmpp.ping_after,
        mechanisms: Mechanisms {
            plain: offers(Mechanism::Plain),
            plain_in_clear: config.auth.plain_without_tls.into(),
            scram_sha_1: offers(Mechanism::ScramSha1),
            scram_sha_256: offers(Mechanism::ScramSha256),
            external: offers(Mechanism::External),
        },
        entropy: Box::new(fill_with_randomness),
    }
}

/// The servers that we join as a component.
///
/// Errors: a secret that cannot be read, or a name that cannot be one.
pub(crate) fn components(config: &Config) -> anyhow::Result<Vec<Outgoing>> {
    let outgoing = |(name, component): (&String, &crate::config::Component)| {
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
            name: name.as_str().into(),
            address: component.address.clone(),
            protocol: Arc::new(Xmpp::component(settings(config), settings_of)),
            account: UserName::new(&component.user).with_context(place)?,
            vhost: VhostName::new(vhost).with_context(place)?,
        })
    };
    config.components.iter().map(outgoing).collect()
}
