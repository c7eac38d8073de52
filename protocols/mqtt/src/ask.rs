//! What the session has asked the broker and not been told yet.

use std::collections::VecDeque;

use polymq_model::RequestId;

/// Why a request was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A step of the login.
    Login,
    /// A step of a login of somebody who is logged in.
    ReLogin,
    /// The virtual host.
    Vhost,
    /// The client session.
    ClientSession,
    /// A subscription of an earlier connection.
    Resume(String),
    /// Deliveries to be remembered.
    Remember,
    /// One filter of a SUBSCRIBE, by its place.
    Subscribe(usize),
    /// One filter of an UNSUBSCRIBE, by its place.
    Unsubscribe(usize),
}

/// A SUBSCRIBE or UNSUBSCRIBE whose answers are collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collecting {
    pub(crate) packet_id: u16,
    /// The codes of the answer, in the order of the filters.
    pub(crate) codes: Vec<u8>,
    /// The filters, to be forgotten when refused.
    pub(crate) filters: Vec<String>,
    /// Filters that are new, so that a refusal forgets them.
    pub(crate) fresh: Vec<bool>,
    /// Answers that are due.
    pub(crate) due: usize,
}

/// Requests in the order in which they were made, which is the order of the answers.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    asks: VecDeque<(RequestId, Ask)>,
    holding: usize,
    last: u32,
    pub(crate) collecting: Option<Box<Collecting>>,
}

impl Asked {
    /// A number for a new request.
    pub(crate) fn ask(&mut self, ask: Ask) -> RequestId {
        self.last = self.last.wrapping_add(1);
        let request = RequestId(self.last);
        self.holding += usize::from(holds(&ask));
        self.asks.push_back((request, ask));
        request
    }

    /// What the answer to `request` is about.
    pub(crate) fn answered(&mut self, request: RequestId) -> Option<Ask> {
        let at = self.asks.iter().position(|(asked, _)| *asked == request)?;
        let (_, ask) = self.asks.remove(at)?;
        self.holding -= usize::from(holds(&ask));
        Some(ask)
    }

    /// True while packets of the client must wait for an answer.
    pub(crate) fn holds_packets(&self) -> bool {
        self.holding > 0
    }
}

fn holds(ask: &Ask) -> bool {
    !matches!(ask, Ask::Resume(_) | Ask::Remember)
}
