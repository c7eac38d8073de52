//! A blocking socket with a small read buffer, used for handshakes only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::web_socket::{self, Frames};

/// How long a handshake may take before the broker counts as broken.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Socket and the bytes read from it that nobody has taken yet.
pub struct Wire {
    /// The blocking socket.
    pub stream: TcpStream,
    held: Vec<u8>,
    /// Set once the connection carries WebSocket frames.
    frames: Option<Frames>,
}

impl Wire {
    /// Connects with `TCP_NODELAY` and a read timeout.
    pub fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, HANDSHAKE_TIMEOUT)
            .with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        Ok(Self { stream, held: Vec::new(), frames: None })
    }

    /// Takes exactly `count` bytes, waiting for them if need be.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut chunk = [0; 4096];
        while self.held.len() < count {
            let read = self.stream.read(&mut chunk).context("waiting for the broker")?;
            if read == 0 {
                bail!("the broker closed the connection");
            }
            let read = match &mut self.frames {
                Some(frames) => frames.strip(&mut chunk[..read]),
                None => read,
            };
            self.held.extend_from_slice(&chunk[..read]);
        }
        Ok(self.held.drain(..count).collect())
    }

    /// From now on frames come, and what is sent goes in frames.
    pub fn speak_frames(&mut self) {
        self.frames = Some(Frames::default());
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        match self.frames {
            Some(_) => self.stream.write_all(&web_socket::frame(packet))?,
            None => self.stream.write_all(packet)?,
        }
        Ok(())
    }

    /// Gives up the socket and the bytes that were read too many.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.held)
    }
}

/// Reads a big-endian number from the first two bytes; the caller has checked the length.
pub fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Reads a big-endian number from the first four bytes; the caller has checked the length.
pub fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Reads a big-endian number from the first eight bytes; the caller has checked the length.
pub fn be64(bytes: &[u8]) -> u64 {
    u64::from(be32(bytes)) << 32 | u64::from(be32(&bytes[4..]))
}
