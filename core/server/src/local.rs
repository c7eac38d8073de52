//! The Unix socket in the data directory, over which the commands of this machine need no password.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use polymq_driver::Accepting;
use polymq_http::{Http, LocalListener};
use polymq_model::VhostName;

/// Its name in the data directory.
const SOCKET: &str = "control.sock";

/// The socket; its file goes when it is dropped.
pub(crate) struct LocalSocket {
    path: PathBuf,
    file: (u64, u64),
    accepting: Accepting,
}

impl LocalSocket {
    /// Serves it, where there is a data directory. A broker without it serves as well as any, so
    /// that what keeps it from being there is only told.
    pub(crate) fn serve(data_dir: &Path, vhost: &VhostName, http: &Http) -> Option<Self> {
        // A store in memory has none, unless whoever starts us has made it.
        if !data_dir.is_dir() {
            return None;
        }
        let path = data_dir.join(SOCKET);
        let served = Self::listen(&path).and_then(|(socket, file)| {
            let listener = LocalListener { socket, may_enter, vhost: vhost.clone() };
            let accepting = http.serve_local(listener)?;
            Ok(Self { path: path.clone(), file, accepting })
        });
        match served {
            Ok(socket) => Some(socket),
            Err(error) => {
                let path = path.display();
                tracing::warn!(event = "local_socket_failed", %path, %error);
                None
            }
        }
    }

    /// Takes the place of the socket of a broker that has ended without a word: whoever has the
    /// store has the folder.
    fn listen(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = UnixListener::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok((socket, identity(path)?))
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // The file first: whoever finds that nobody answers any more finds no file either. One that
        // has come after us may have put its own there.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
        self.accepting.stop();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Root, and the user that this process runs as: both can read the store anyway.
fn may_enter(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_broker_that_is_gone_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        // Its file keeps its number as long as somebody has the socket.
        let (_first, file) = LocalSocket::listen(&path).unwrap();
        let (_second, other) = LocalSocket::listen(&path).unwrap();
        assert_ne!(file, other);
        let plain = dir.path().join("plain");
        fs::write(&plain, "kept").unwrap();
        assert!(LocalSocket::listen(&plain).is_err());
        assert_eq!(fs::read_to_string(&plain).unwrap(), "kept");
    }

    #[test]
    fn root_and_our_own_user_may_enter() {
        let own = rustix::process::geteuid().as_raw();
        assert!(may_enter(0) && may_enter(own));
        assert!(!may_enter(own + 1) || own + 1 == 0);
    }
}
