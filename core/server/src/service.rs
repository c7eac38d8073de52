//! What a service manager is told, in the words of `sd_notify(3)`.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// A service manager that wants to be told, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Service(Option<SocketAddr>);

impl Service {
    /// The manager that has started this process.
    pub(crate) fn from_env() -> Self {
        let address =
            env::var("NOTIFY_SOCKET").ok().and_then(|place| match place.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok(),
                None => SocketAddr::from_pathname(&place).ok(),
            });
        Self(address)
    }

    /// How often the manager wants a sign of life: half the time after which it loses patience.
    pub(crate) fn sign_of_life_every(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let is_ours = |pid: String| pid == std::process::id().to_string();
        if !env::var("WATCHDOG_PID").map_or(true, is_ours) {
            return None;
        }
        let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        Some(Duration::from_micros(micros / 2)).filter(|every| !every.is_zero())
    }

    /// Clients may come.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read again; [`ready`](Self::ready) follows.
    pub(crate) fn reloading(&self, monotonic_micros: u64) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={monotonic_micros}"));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A sign of life.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// A manager that does not listen is no reason to stop a broker.
    fn tell(&self, state: &str) {
        let Some(address) = &self.0 else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(state.as_bytes(), address)
        });
        if let Err(error) = sent {
            tracing::debug!(event = "service_manager_deaf", %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_each_state() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = Service(Some(SocketAddr::from_pathname(&path).unwrap()));
        service.ready();
        service.reloading(7);
        service.stopping();
        let mut heard = [0; 100];
        for expected in ["READY=1", "RELOADING=1\nMONOTONIC_USEC=7", "STOPPING=1"] {
            let count = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..count], expected.as_bytes());
        }
    }

    #[test]
    fn nobody_needs_to_listen() {
        Service(None).ready();
        Service(Some(SocketAddr::from_pathname("/nowhere/at/all").unwrap())).ready();
    }
}
