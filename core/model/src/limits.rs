//! Every limit of the broker, with its unit in its name.

use std::time::Duration;

/// What a peer is told whose first frame, packet or stanza is larger than a stranger may send.
pub const RAISE_LOGIN_SIZE: &str = "; before the login half of `limits.login_size` is taken, which \
                                    the operator can raise";

/// Bounds on what peers may ask for. One value serves a whole broker; the configuration may change
/// each.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message body, assembled.
    pub message_bytes_max: usize,
    /// Largest AMQP frame offered in `connection.tune`.
    pub amqp_frame_bytes_max: u32,
    /// Channels per AMQP connection.
    pub channels_max: u16,
    /// Heartbeat offered to AMQP clients.
    pub heartbeat: Duration,
    /// Most unsettled deliveries per consumer, where the client asks for no limit in a bounded
    /// field.
    pub prefetch_max: u16,
    /// Time from accepting a connection to a finished login.
    pub login_timeout: Duration,
    /// Largest frame or packet before login.
    pub login_frame_bytes_max: usize,
    /// Bytes a peer may send before it has logged in.
    pub login_bytes_max: usize,
    /// Depth of nested tables and lists.
    pub nesting_max: usize,
    /// Entries of a header table, user properties of a packet.
    pub table_entries_max: usize,
    /// Headers of a frame whose headers are lines of text.
    pub headers_max: usize,
    /// Bytes of all those headers together.
    pub header_bytes_max: usize,
    /// Headers of such a frame before login.
    pub login_headers_max: usize,
    /// Levels of a topic.
    pub topic_levels_max: usize,
    /// Bytes of a topic.
    pub topic_bytes_max: usize,
    /// Connections in total.
    pub connections_max: usize,
    /// Connections from one address, or from one network of 64 bits of IPv6; `None` for no bound.
    pub connections_per_address_max: Option<usize>,
    /// New connections a second, beyond which they wait for their turn; `None` for no bound.
    pub connection_rate_max: Option<u32>,
    /// New connections a second from one address, beyond which they are closed at once; `None` for
    /// no bound.
    pub connection_rate_per_address_max: Option<u32>,
    /// Unsent events a connection may hold before consumers on it are skipped.
    pub outbox_bytes_max: usize,
    /// Unsent events beyond which deliveries that nobody keeps (quality of service 0, direct
    /// replies) are dropped.
    pub direct_bytes_max: usize,
    /// Ready messages of one durable queue that are kept in memory; the others are on the disk
    /// alone.
    pub queue_messages_in_memory_max: usize,
    /// The same for what they take in memory.
    pub queue_bytes_in_memory_max: usize,
    /// What the ready messages of all durable queues take in memory before each queue keeps only a
    /// sixteenth of that.
    pub queues_bytes_in_memory_max: usize,
    /// Encoded bytes waiting for the socket before the outbox is left alone.
    pub output_bytes_max: usize,
    /// Bytes published and not yet confirmed before reading from the publisher pauses.
    pub unconfirmed_bytes_max: usize,
    /// How long a publish waits while publishers are blocked before it is refused.
    pub publish_block_timeout: Duration,
    /// How long a consumer may take to settle a delivery where neither it, nor its queue, nor a
    /// policy says; zero for no bound, and `None` leaves it to the type of the queue.
    pub consumer_timeout: Option<Duration>,
    /// Bytes of the transactions of one channel or connection.
    pub transaction_bytes_max: usize,
    /// Transactions that a connection may have open at once, where it may have several.
    pub transactions_max: usize,
    /// Largest client id of MQTT.
    pub client_id_bytes_max: usize,
    /// Longest MQTT keep-alive the server allows, 0 for no bound.
    pub keep_alive_max_secs: u16,
    /// Longest MQTT session expiry the server allows.
    pub session_expiry_max_secs: u32,
    /// Subscriptions of one STOMP client.
    pub destinations_max: usize,
    /// Topic aliases a client may use towards us.
    pub topic_alias_max: u16,
    /// Unacknowledged QoS 1 and 2 publishes a client may have towards us.
    pub receive_max: u16,
    /// Subscriptions of one MQTT client.
    pub subscriptions_max: usize,
    /// Messages kept for one MQTT client, oldest dropped first; 0 for no bound.
    pub session_messages_max: u64,
    /// How long a publish of MQTT 3 that found no room is held before its connection closes.
    pub refused_publish_wait: Duration,
    /// Silence after which a WebSocket client is sent a ping; after as much again it is lost.
    pub web_socket_silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 * 1024 * 1024,
            amqp_frame_bytes_max: 131_072,
            channels_max: 2047,
            heartbeat: Duration::from_secs(60),
            prefetch_max: 65_535,
            login_timeout: Duration::from_secs(10),
            login_frame_bytes_max: 8 * 1024,
            login_bytes_max: 16 * 1024,
            nesting_max: 32,
            table_entries_max: 1024,
            headers_max: 128,
            header_bytes_max: 64 * 1024,
            login_headers_max: 32,
            topic_levels_max: 200,
            topic_bytes_max: 65_535,
            connections_max: 50_000,
            connections_per_address_max: None,
            connection_rate_max: None,
            connection_rate_per_address_max: None,
            outbox_bytes_max: 1024 * 1024,
            direct_bytes_max: 16 * 1024 * 1024,
            queue_messages_in_memory_max: 32 * 1024,
            queue_bytes_in_memory_max: 16 * 1024 * 1024,
            queues_bytes_in_memory_max: 64 * 1024 * 1024,
            output_bytes_max: 256 * 1024,
            unconfirmed_bytes_max: 1024 * 1024,
            publish_block_timeout: Duration::from_secs(30),
            consumer_timeout: None,
            transaction_bytes_max: 64 * 1024 * 1024,
            transactions_max: 100,
            client_id_bytes_max: 65_535,
            keep_alive_max_secs: 0,
            session_expiry_max_secs: u32::MAX,
            topic_alias_max: 32,
            receive_max: 1024,
            subscriptions_max: 10_000,
            destinations_max: 10_000,
            session_messages_max: 0,
            refused_publish_wait: Duration::from_secs(30),
            web_socket_silence: Duration::from_secs(30),
        }
    }
}
