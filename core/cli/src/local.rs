//! The broker of this machine, over the Unix socket in its data directory. The kernel tells it who
//! connects: root, and the user that the broker runs as, need no password.

use std::{
    fmt,
    io::{self, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
};

use ureq::{
    Error,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
    },
};

/// Its name in the data directory.
const SOCKET: &str = "control.sock";
/// Data directories where nobody names one: of a broker that somebody has started in this folder,
/// and of one that runs as a service.
const USUAL: [&str; 2] = ["./data", "/var/lib/polymq"];

/// The folders in which a broker of this machine may keep its data.
pub(crate) fn data_dirs(named: Option<&Path>) -> Vec<PathBuf> {
    match named {
        Some(named) => vec![named.to_owned()],
        None => USUAL.iter().map(PathBuf::from).filter(|dir| is_trusted(dir)).collect(),
    }
}

/// A folder that a stranger has put in our way could show us a broker of his own.
fn is_trusted(dir: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    dir.is_absolute() || dir.metadata().is_ok_and(|dir| dir.uid() == own || dir.uid() == 0)
}

/// The socket of a broker that runs with one of these data directories.
pub(crate) fn socket(data_dirs: &[PathBuf]) -> Option<PathBuf> {
    let sockets = data_dirs.iter().map(|dir| dir.join(SOCKET));
    sockets.into_iter().find(|socket| UnixStream::connect(socket).is_ok())
}

/// Has every request go over a Unix socket.
#[derive(Debug)]
pub(crate) struct Local(pub(crate) PathBuf);

impl<In: Transport> Connector<In> for Local {
    type Out = Wire;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<In>,
    ) -> Result<Option<Wire>, Error> {
        let socket = UnixStream::connect(&self.0)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Wire { socket, buffers }))
    }
}

/// A connection over a Unix socket.
pub(crate) struct Wire {
    socket: UnixStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.socket.set_write_timeout(timeout.for_write().not_zero().map(|time| *time))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.socket.write_all(output).map_err(|error| late(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.socket.set_read_timeout(timeout.for_read().not_zero().map(|time| *time))?;
        let input = self.buffers.input_append_buf();
        let count = loop {
            match self.socket.read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| late(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// What comes between two answers is no answer: the other end has closed, or is confused.
    fn is_open(&mut self) -> bool {
        let is_silent = || -> io::Result<bool> {
            self.socket.set_nonblocking(true)?;
            let read = (&self.socket).read(&mut [0]);
            self.socket.set_nonblocking(false)?;
            Ok(read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
        };
        is_silent().unwrap_or(false)
    }
}

/// A timeout of a socket shows itself as `WouldBlock`.
fn late(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_counts_when_somebody_listens() {
        let (gone, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(UnixListener::bind(gone.path().join(SOCKET)).unwrap());
        let dirs = [gone.path().to_owned(), there.path().to_owned()];
        assert_eq!(socket(&dirs), None);
        let _listening = UnixListener::bind(there.path().join(SOCKET)).unwrap();
        assert_eq!(socket(&dirs), Some(there.path().join(SOCKET)));
        assert_eq!(data_dirs(Some(there.path())), [there.path()]);
    }
}
