//! Sockets of protocols that are text, which say what they like: STOMP and XMPP.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// Below the login limit, so that a connection which is cut was not cut for that.
const PATIENCE: Duration = Duration::from_secs(8);

/// The header of a stream of XMPP.
pub const STREAM: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                          xmlns:stream='http://etherx.jabber.org/streams'>";

/// A connection.
#[derive(Debug)]
pub struct Talk {
    /// Its socket.
    pub stream: TcpStream,
    heard: Vec<u8>,
}

/// A TCP connection to a port of this machine from one of its addresses in 127.0.0.0/8.
///
/// Errors: those of the socket.
pub fn connect_from(from: [u8; 4], port: u16) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(TcpStream::from(socket))
}

impl Talk {
    /// Connects and sends nothing.
    ///
    /// Errors: those of the socket.
    pub fn dial(port: u16) -> Result<Self> {
        Self::over(TcpStream::connect(("127.0.0.1", port))?)
    }

    /// Talks over a connection.
    ///
    /// Errors: those of the socket.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, heard: Vec::new() })
    }

    /// A client of STOMP that has logged in.
    ///
    /// Errors: when it may not.
    pub fn stomp(port: u16) -> Result<Self> {
        let mut client = Self::dial(port)?;
        client.say("CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0")?;
        client.hear("CONNECTED")?;
        client.hear("\0")?;
        Ok(client)
    }

    /// A client of XMPP that has logged in, bound this resource, and is there.
    ///
    /// Errors: when it may not.
    pub fn xmpp(port: u16, resource: &str) -> Result<Self> {
        let mut client = Self::dial(port)?;
        client.say(STREAM)?;
        client.hear("</stream:features>")?;
        // "\0guest\0guest"
        client.say(&plain("AGd1ZXN0AGd1ZXN0"))?;
        client.hear("<success")?;
        client.say(STREAM)?;
        client.hear("</stream:features>")?;
        client.say(&format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        ))?;
        client.hear("</iq>")?;
        client.say("<presence/>")?;
        Ok(client)
    }

    /// Writes a text.
    ///
    /// Errors: when the connection is broken.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.write(text.as_bytes())
    }

    /// Writes bytes.
    ///
    /// Errors: when the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Everything up to and with a text, which must come.
    ///
    /// Errors: with what has come instead.
    pub fn hear(&mut self, wanted: &str) -> Result<String> {
        loop {
            let found = find(&self.heard, wanted.as_bytes());
            if let Some(at) = found {
                let rest = self.heard.split_off(at + wanted.len());
                let said = std::mem::replace(&mut self.heard, rest);
                return Ok(String::from_utf8_lossy(&said).into_owned());
            }
            let mut piece = [0; 16 * 1024];
            let count = self.stream.read(&mut piece).with_context(|| self.so_far(wanted))?;
            if count == 0 {
                bail!("the end instead of {}", self.so_far(wanted));
            }
            self.heard.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
    }

    fn so_far(&self, wanted: &str) -> String {
        format!("`{wanted}`, after {}", String::from_utf8_lossy(&self.heard))
    }

    /// Everything up to the end of the connection.
    ///
    /// Errors: when it does not end.
    pub fn last_words(mut self) -> Result<String> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    self.heard.extend_from_slice(piece.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error).context("the connection does not end"),
            }
        }
        Ok(String::from_utf8_lossy(&self.heard).into_owned())
    }

    /// Says what must end the connection and returns the last words of the broker, which may close
    /// while it is still being sent to.
    ///
    /// Errors: when the connection does not end.
    pub fn refused(mut self, bytes: &[u8]) -> Result<String> {
        let _ = self.stream.write_all(bytes);
        self.last_words()
    }
}

/// A login of XMPP by SASL PLAIN.
pub fn plain(coded: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{coded}</auth>")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
