//! XMPP as the configuration wants it.

use polymq_xmpp::{Mechanisms, Settings};

use crate::{
    config::{
        Config,
        value::{Mechanism, PlainWithoutTls},
    },
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
            // Where it depends on the peer, the login decides.
            plain_in_clear: config.auth.plain_without_tls != PlainWithoutTls::Never,
            scram_sha_1: offers(Mechanism::ScramSha1),
            scram_sha_256: offers(Mechanism::ScramSha256),
            external: offers(Mechanism::External),
        },
        entropy: Box::new(fill_with_randomness),
    }
}
