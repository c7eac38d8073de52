//! What a client is told.

use polymq_contract::{Effects, MessageKind, Refusal, web_message::put_head};
use serde::Serialize;

use crate::op::Id;

/// An answer to a request, or a fact that nobody asked for.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Said<'a> {
    Connected {
        #[serde(skip_serializing_if = "Option::is_none")]
        re: Option<&'a Id>,
        server: Server<'a>,
        user: &'a str,
        limits: Bounds,
    },
    Confirm {
        re: &'a Id,
        outcome: &'static str,
        routed: bool,
        /// How many queues have it.
        #[serde(skip_serializing_if = "Option::is_none")]
        queues: Option<u32>,
        /// Under which it is found while it is delayed.
        #[serde(skip_serializing_if = "Option::is_none")]
        schedule_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'static str>,
    },
    Subscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        re: Option<&'a Id>,
        sub: &'a str,
    },
    /// A subscription has ended without having been asked to.
    Cancelled {
        sub: &'a str,
        reason: &'static str,
    },
    Ok {
        re: &'a Id,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        re: Option<&'a Id>,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        re: Option<&'a Id>,
        code: &'static str,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<&'a str>,
        #[serde(skip_serializing_if = "<[u64]>::is_empty")]
        tags: &'a [u64],
    },
    Blocked {
        reason: &'a str,
    },
    Unblocked {},
    Closing {
        reason: &'a str,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct Server<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Bounds {
    pub(crate) message_bytes: usize,
    pub(crate) subscriptions: usize,
    pub(crate) credit: u16,
}

/// Why an operation is refused; it does not end the connection.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) at: Option<String>,
    pub(crate) tags: Vec<u64>,
}

impl Wrong {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), at: None, tags: Vec::new() }
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
        Self::new(refusal.kind.as_str(), refusal.text.clone())
    }
}

/// Puts a message of text out.
pub(crate) fn say(said: &impl Serialize, effects: &mut Effects) {
    // Writing to memory cannot fail, and every key is a string.
    let text = serde_json::to_vec(said).unwrap_or_default();
    let out = effects.out.frame();
    put_head(MessageKind::Text, text.len(), out);
    out.extend_from_slice(&text);
}

pub(crate) fn say_wrong(re: Option<&Id>, wrong: &Wrong, effects: &mut Effects) {
    let Wrong { code, text, at, tags } = wrong;
    say(&Said::Error { re, code, text, at: at.as_deref(), tags }, effects);
}
