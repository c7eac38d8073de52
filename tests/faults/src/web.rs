//! WebSocket and requests of HTTP on blocking sockets, and pages that speak JSON over the first.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The `Authorization` of `guest` with its password.
pub const GUEST: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

/// A frame of a client, whose mask changes nothing. At most 64 KiB.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len()).unwrap_or(u16::MAX)) {
        (Ok(length @ 0..=125), _) => bytes.push(0x80 | length),
        (_, length) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Makes a WebSocket of a connection, and returns the answer to its handshake.
///
/// Errors: when the broker does not agree.
pub fn upgrade(socket: &mut TcpStream, path: &str, more: &str) -> Result<String> {
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let answer = head(socket)?;
    ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    ensure!(answer.to_lowercase().contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    Ok(answer)
}

/// The head of an answer, with the empty line behind it.
///
/// Errors: when the connection ends before.
pub fn head(socket: &mut TcpStream) -> Result<String> {
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    Ok(String::from_utf8(answer)?)
}

/// The next answer on a connection that is kept: status and body.
///
/// Errors: when the connection ends before, or the answer does not say how long it is.
pub fn answer(socket: &mut TcpStream) -> Result<(u16, String)> {
    let (head, body) = whole_answer(socket)?;
    let status = head.split(' ').nth(1).and_then(|number| number.parse().ok());
    Ok((status.with_context(|| head.clone())?, String::from_utf8(body)?))
}

/// The same: head, in lower case, and body.
///
/// Errors: as those of [`answer`].
pub fn whole_answer(socket: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let head = head(socket)?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.with_context(|| head.clone())?.trim().parse()?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok((head, body))
}

/// A client of `/ws/json`.
#[derive(Debug)]
pub struct Page {
    /// Its socket.
    pub socket: TcpStream,
}

impl Page {
    /// A page over a connection, which says nothing yet.
    ///
    /// Errors: when the broker does not agree.
    pub fn over(mut socket: TcpStream) -> Result<Self> {
        upgrade(&mut socket, "/ws/json", "")?;
        Ok(Self { socket })
    }

    /// Says an operation.
    ///
    /// Errors: when the connection is broken.
    pub fn say(&mut self, op: &Value) -> Result<()> {
        Ok(self.socket.write_all(&frame(0x81, op.to_string().as_bytes()))?)
    }

    /// The next thing that is said to it; `None` when the broker closes.
    ///
    /// Errors: when the connection is broken, or that was no JSON.
    pub fn hear(&mut self) -> Result<Option<Value>> {
        let mut two = [0; 2];
        self.socket.read_exact(&mut two)?;
        let [first, length] = two;
        let length = match length {
            126 => {
                self.socket.read_exact(&mut two)?;
                u16::from_be_bytes(two)
            }
            127 => bail!("a frame beyond 64 KiB"),
            length => length.into(),
        };
        let mut payload = vec![0; length.into()];
        self.socket.read_exact(&mut payload)?;
        match first {
            0x81 => Ok(Some(serde_json::from_slice(&payload)?)),
            0x88 => Ok(None),
            other => bail!("a frame of type {other:#x}"),
        }
    }

    /// Logs in; true when that works.
    ///
    /// Errors: when the connection is broken.
    pub fn log_in(&mut self, user: &str, password: &str) -> Result<bool> {
        let op = serde_json::json!({ "op": "connect", "user": user, "password": password });
        self.say(&op)?;
        Ok(self.hear()?.is_some_and(|said| said.get("op") == Some(&"connected".into())))
    }
}
