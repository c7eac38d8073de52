//! A blocking socket with a buffer on both sides.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits at most.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 256 * 1024;

pub(super) struct Wire {
    socket: TcpStream,
    /// Bytes to send.
    pub(super) out: Vec<u8>,
    /// Bytes that came, from `at` on.
    input: Vec<u8>,
    at: usize,
    chunk: Box<[u8]>,
}

impl Wire {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .with_context(|| format!("{address} cannot be reached"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT * 3))?;
        let chunk = vec![0; READ_BYTES].into_boxed_slice();
        Ok(Self { socket, out: Vec::new(), input: Vec::new(), at: 0, chunk })
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out).context("the broker takes nothing more")?;
            self.out.clear();
        }
        Ok(())
    }

    /// Waits a little for more.
    pub(super) fn fill(&mut self) -> anyhow::Result<()> {
        self.input.drain(..self.at);
        self.at = 0;
        match self.socket.read(&mut self.chunk) {
            Ok(0) => bail!("the broker has closed the connection"),
            Ok(count) => self.input.extend_from_slice(self.chunk.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the connection broke"),
        }
        Ok(())
    }

    /// What has come and was not taken.
    pub(super) fn waiting(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// Takes bytes off.
    pub(super) fn take(&mut self, count: usize) {
        self.at = (self.at + count).min(self.input.len());
    }

    /// Sends what waits, and waits for an answer that `find` sees in what has come.
    pub(super) fn ask<T>(
        &mut self,
        mut find: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.flush()?;
        let rounds = ANSWER_TIMEOUT.as_millis() / READ_TIMEOUT.as_millis();
        for _ in 0..rounds {
            if let Some(found) = find(self)? {
                return Ok(found);
            }
            self.fill()?;
        }
        bail!("the broker does not answer")
    }
}
