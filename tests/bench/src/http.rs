//! HTTP/1.1 as the generator speaks it: a request encoded once, and a scan that finds the ends of
//! answers by their `content-length`.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem;

use crate::amqp::Login;
use crate::wire::Wire;

/// What the scan found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was published.
    Confirmed,
    /// A request was refused.
    Refused(String),
}

/// Walks the whole answers at the start of `buffer` and returns how many bytes they take.
///
/// Errors: an answer without a length.
pub fn scan(buffer: &[u8], mut on_event: impl FnMut(Event)) -> Result<usize> {
    let mut at = 0;
    while let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(head_end) = memmem::find(rest, b"\r\n\r\n") else { break };
        let head = std::str::from_utf8(&rest[..head_end])?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without a length")?.parse()?;
        let end = head_end + 4 + length;
        let Some(body) = rest.get(head_end + 4..end) else { break };
        on_event(match head.starts_with("HTTP/1.1 200") {
            true => Event::Confirmed,
            false => Event::Refused(String::from_utf8_lossy(body).into_owned()),
        });
        at += end;
    }
    Ok(at)
}

/// Encodes the publish of a message to an exchange, persistent unless said otherwise.
pub fn publish(
    login: &Login,
    (exchange, key): (&str, &str),
    persistent: bool,
    body: &[u8],
) -> Vec<u8> {
    let login = STANDARD.encode(format!("{}:{}", login.user, login.password));
    let length = body.len();
    let head = format!(
        "POST /api/v1/vhosts/~/exchanges/{exchange}/messages?routing_key={key} HTTP/1.1\r\n\
         Host: localhost\r\nAuthorization: Basic {login}\r\nMq-Persistent: {persistent}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Opens a connection; the login comes with each request.
pub fn open(addr: SocketAddr) -> Result<(TcpStream, Vec<u8>)> {
    Ok(Wire::connect(addr)?.into_parts())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_finds_the_same_answers_however_the_bytes_are_split() {
        let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 404 Not Found\r\n\
                     content-length: 1\r\n\r\nx";
        for cut in 0..wire.len() {
            let mut found = Vec::new();
            let used = scan(&wire[..cut], |event| found.push(event)).unwrap();
            let rest = scan(&wire[used..], |event| found.push(event)).unwrap();
            assert_eq!(used + rest, wire.len(), "cut at {cut}");
            assert_eq!(found, [Event::Confirmed, Event::Refused("x".to_owned())]);
        }
    }
}
