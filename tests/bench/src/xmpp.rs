//! XMPP as the generator speaks it: a stanza encoded once, a blocking login with PLAIN, and a scan
//! that counts the ends of messages.

use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;

use anyhow::{Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem;

use crate::amqp::Login;
use crate::wire::Wire;

const MESSAGE_END: &[u8] = b"</message>";

/// Counts the whole messages at the start of `buffer`; returns how many bytes are done with.
///
/// Errors: the broker has ended the stream.
pub fn scan(buffer: &[u8], mut on_message: impl FnMut()) -> Result<usize> {
    let mut used = 0;
    for at in memmem::find_iter(buffer, MESSAGE_END) {
        on_message();
        used = at + MESSAGE_END.len();
    }
    let rest = &buffer[used..];
    if memmem::find(rest, b"<stream:error").is_some() {
        bail!("the broker ended the stream: {}", String::from_utf8_lossy(rest));
    }
    Ok(used)
}

/// Encodes a chat message for a resource.
pub fn message(to: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("<message to='{to}' type='chat'><body>");
    [head.as_bytes(), body, b"</body></message>"].concat()
}

/// A stream with a bound resource, on a blocking socket.
pub struct Connection {
    wire: Wire,
    /// The address that the broker has given it.
    pub jid: String,
}

impl Connection {
    /// Logs in and binds a resource, without presence: only what names it comes here.
    pub fn open(addr: SocketAddr, domain: &str, login: &Login, resource: &str) -> Result<Self> {
        let mut connection = Self { wire: Wire::connect(addr)?, jid: String::new() };
        let head = format!(
            "<stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        connection.exchange(&head, "</stream:features>")?;
        let shown = STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{shown}</auth>"
        );
        connection.exchange(&auth, "xmpp-sasl'/>")?;
        connection.exchange(&head, "</stream:features>")?;
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        );
        let bound = connection.exchange(&bind, "</iq>")?;
        let jid = bound.split("<jid>").nth(1).and_then(|rest| rest.split("</jid>").next());
        let Some(jid) = jid else { bail!("the broker answered `{bound}`") };
        connection.jid = jid.to_owned();
        Ok(connection)
    }

    /// Gives up the socket and what was read from it beyond the handshake.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        self.wire.into_parts()
    }

    fn exchange(&mut self, said: &str, end: &str) -> Result<String> {
        self.wire.stream.write_all(said.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            answer.extend(self.wire.take(1)?);
            if answer.ends_with(b"</failure>") || answer.ends_with(b"</stream:error>") {
                bail!("the broker answered `{}`", String::from_utf8_lossy(&answer));
            }
        }
        Ok(String::from_utf8(answer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_finds_the_same_messages_however_the_bytes_are_split() {
        let wire = message("a@b/c", b"hi").repeat(3);
        for cut in 0..=wire.len() {
            let mut count = 0;
            let used = scan(&wire[..cut], || count += 1).unwrap();
            let rest = scan(&wire[used..], || count += 1).unwrap();
            assert_eq!((used + rest, count), (wire.len(), 3), "cut at {cut}");
        }
        assert!(scan(b"<stream:error><x/>", || ()).is_err());
    }
}
