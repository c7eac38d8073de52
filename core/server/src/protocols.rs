//! The protocols of this server, as the configuration wants them.

use std::sync::Arc;

use polymq_amqp091::Amqp091;
use polymq_contract::Protocol;
use polymq_model::Formats;
use polymq_mqtt::Mqtt;
use polymq_xmpp::Xmpp;

use crate::{
    config::{Config, value::Mechanism},
    xmpp,
};

/// The protocols of this server.
pub(crate) struct Protocols {
    pub(crate) amqp: Arc<dyn Protocol>,
    pub(crate) mqtt: Arc<dyn Protocol>,
    pub(crate) xmpp: Arc<dyn Protocol>,
}

impl Protocols {
    pub(crate) fn new(config: &Config) -> Self {
        let amqp = polymq_amqp091::Settings {
            version: config.server.amqp_version.clone(),
            cluster_name: config.server.name.clone(),
            passwords: config.auth.mechanisms.contains(&Mechanism::Plain),
            certificates: config.auth.mechanisms.contains(&Mechanism::External),
        };
        Self {
            amqp: Arc::new(Amqp091::new(amqp)),
            mqtt: Arc::new(Mqtt::new(
                config.mqtt.exchange.clone(),
                config.auth.mechanisms.contains(&Mechanism::ScramSha256),
            )),
            xmpp: Arc::new(Xmpp::new(xmpp::settings(config))),
        }
    }

    pub(crate) fn formats(&self) -> Formats {
        let all = [&self.amqp, &self.mqtt, &self.xmpp];
        Formats::new(all.into_iter().flat_map(|protocol| protocol.formats()))
    }
}
