//! HTTP on a port of several protocols.

use polymq_contract::{Peer, Recognised};
use polymq_driver::{Guest, Incoming};

use crate::serve::Http;

/// How a request may begin, and a connection of HTTP/2 (RFC 9113, section 3.4).
const STARTS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"PRI * ",
];

impl Guest for Http {
    fn recognise(&self, first: &[u8]) -> Recognised {
        if STARTS.iter().any(|start| first.starts_with(start)) {
            Recognised::Yes
        } else if STARTS.iter().any(|start| start.starts_with(first)) {
            Recognised::Unsure
        } else {
            Recognised::No
        }
    }

    fn serve(&self, incoming: Incoming, peer: Peer) {
        self.adopt(incoming, peer);
    }
}
