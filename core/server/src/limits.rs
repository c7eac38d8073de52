//! The limits of the core, from the configuration.

use std::time::Duration;

use polymq_model::Limits;

use crate::config::Config;

pub(crate) fn limits(config: &Config) -> Limits {
    let (limits, mqtt, stomp) = (&config.limits, &config.mqtt, &config.stomp);
    let or_no_bound = |time: Duration| match u32::try_from(time.as_secs()) {
        Ok(0) | Err(_) => u32::MAX,
        Ok(secs) => secs,
    };
    Limits {
        message_bytes_max: limits.message_size.as_usize(),
        amqp_frame_bytes_max: u32::try_from(config.amqp.frame_size.0).unwrap_or(u32::MAX),
        channels_max: limits.channels_per_connection,
        heartbeat: config.amqp.heartbeat,
        prefetch_max: limits.prefetch_max,
        login_timeout: config.auth.login_timeout,
        // One packet may be half of what a stranger may send.
        login_frame_bytes_max: limits.login_size.as_usize() / 2,
        login_bytes_max: limits.login_size.as_usize(),
        connections_max: usize::try_from(limits.connections).unwrap_or(usize::MAX),
        connections_per_address_max: Some(limits.connections_per_address)
            .filter(|max| *max > 0)
            .and_then(|max| usize::try_from(max).ok()),
        connection_rate_max: Some(limits.connection_rate).filter(|rate| *rate > 0),
        connection_rate_per_address_max: Some(limits.connection_rate_per_address)
            .filter(|rate| *rate > 0),
        keep_alive_max_secs: u16::try_from(mqtt.keep_alive_max.as_secs()).unwrap_or(u16::MAX),
        session_expiry_max_secs: or_no_bound(mqtt.session_expiry_max),
        topic_alias_max: mqtt.topic_alias_max,
        receive_max: mqtt.receive_max,
        subscriptions_max: usize::try_from(mqtt.subscriptions_max).unwrap_or(usize::MAX),
        session_messages_max: u64::from(mqtt.session_messages_max),
        refused_publish_wait: mqtt.refused_publish_wait,
        headers_max: usize::from(stomp.headers_max),
        header_bytes_max: stomp.header_size.as_usize(),
        transactions_max: usize::from(stomp.transactions_max),
        destinations_max: usize::try_from(stomp.subscriptions_max).unwrap_or(usize::MAX),
        publish_block_timeout: limits.publish_block_timeout,
        consumer_timeout: limits.consumer_timeout.0,
        web_socket_silence: config.http.web_socket_ping,
        ..Limits::default()
    }
}
