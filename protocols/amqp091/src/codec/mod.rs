//! Bytes to frames, methods, properties and tables, and back. Nothing here knows a connection's
//! state.
#![warn(clippy::arithmetic_side_effects, clippy::as_conversions, clippy::indexing_slicing)]

pub mod cold;
pub mod frame;
pub mod hot;
pub mod props;
pub mod reader;
pub mod table;

/// Class and method numbers that the code speaks of by name.
pub mod id {
    /// `connection`.
    pub const CONNECTION: u16 = 10;
    /// `basic`.
    pub const BASIC: u16 = 60;

    /// `connection.start-ok`.
    pub const START_OK: (u16, u16) = (10, 11);
    /// `connection.open`.
    pub const CONNECTION_OPEN: (u16, u16) = (10, 40);
    /// `connection.close`.
    pub const CONNECTION_CLOSE: (u16, u16) = (10, 50);
    /// `connection.close-ok`.
    pub const CONNECTION_UPDATE_SECRET: (u16, u16) = (10, 70);
    pub const CONNECTION_CLOSE_OK: (u16, u16) = (10, 51);
    /// `channel.open`.
    pub const CHANNEL_OPEN: (u16, u16) = (20, 10);
    /// `channel.close`.
    pub const CHANNEL_CLOSE: (u16, u16) = (20, 40);
    /// `channel.close-ok`.
    pub const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
    /// `basic.qos`.
    pub const QOS: (u16, u16) = (60, 10);
    /// `basic.consume`.
    pub const CONSUME: (u16, u16) = (60, 20);
    /// `basic.publish`.
    pub const PUBLISH: (u16, u16) = (60, 40);
    /// `basic.return`.
    pub const RETURN: (u16, u16) = (60, 50);
    /// `basic.deliver`.
    pub const DELIVER: (u16, u16) = (60, 60);
    /// `basic.get-ok`.
    pub const GET_OK: (u16, u16) = (60, 71);
    /// `basic.ack`.
    pub const ACK: (u16, u16) = (60, 80);
    /// `basic.reject`.
    pub const REJECT: (u16, u16) = (60, 90);
    /// `basic.nack`.
    pub const NACK: (u16, u16) = (60, 120);
}
