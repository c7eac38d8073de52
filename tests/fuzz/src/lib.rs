//! One function per parser that strangers can reach; each takes any bytes and panics when a
//! property does not hold.
//!
//! The functions know nothing about a fuzzer, so that the committed corpus and random inputs run
//! through them in ordinary tests, and `libfuzzer/` through the same ones for hours. Nothing here
//! opens a socket or a file.
#![forbid(unsafe_code)]

pub mod amqp;
pub mod changes;
pub mod conversation;
pub mod filter;
pub mod http;
pub mod json;
pub mod mqtt;
pub mod record;
pub mod scram;
pub mod seeds;
pub mod sight;
pub mod stomp;
pub mod topic;
pub mod web;
pub mod xmpp;

/// A function under test.
pub type Target = fn(&[u8]);

/// Every target under the name of its folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("amqp_stranger", amqp::stranger),
    ("amqp_session", amqp::session),
    ("amqp_methods", amqp::methods),
    ("amqp_table", amqp::table),
    ("mqtt_stranger", mqtt::stranger),
    ("mqtt_session", mqtt::session),
    ("mqtt_packets", mqtt::packets),
    ("mqtt_codec", mqtt::codec),
    ("stomp_stranger", stomp::stranger),
    ("stomp_session", stomp::session),
    ("stomp_frames", stomp::frames),
    ("stomp_codec", stomp::codec),
    ("xmpp_stranger", xmpp::stranger),
    ("xmpp_session", xmpp::session),
    ("xmpp_xml", xmpp::xml),
    ("xmpp_framed", xmpp::framed),
    ("json_stranger", web::stranger),
    ("json_session", web::session),
    ("json_messages", web::messages),
    ("websocket_frames", web::frames),
    ("json_message", json::message),
    ("topic", topic::topic),
    ("record", record::record),
    ("filter", filter::filter),
    ("http_headers", http::headers),
    ("http_events", http::events),
    ("http_receipt", http::receipt),
    ("http_authorization", http::authorization),
    ("scram", scram::scram),
];
