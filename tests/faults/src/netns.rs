//! A network that a broker shares with nobody but the threads that enter it, so that routes can be
//! taken away in it.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    process::Command,
};

use anyhow::{Result, ensure};
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::broker::Home;

/// An address of the client that is cut off.
pub const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// Has brokers of this home start in a network of their own. Where that is not permitted they do
/// not start.
pub fn isolate(home: &mut Home) {
    home.wrap(&["unshare", "-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
}

/// Moves this thread into the network of a process, for good.
///
/// Errors: when that is not permitted.
pub fn enter(pid: u32) -> Result<()> {
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Connects to a port of this network from one of its addresses.
///
/// Errors: those of the socket.
pub fn connect_from(address: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(IpAddr::V4(address), 0))?;
    connect(&socket, &SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))?;
    Ok(socket.into())
}

/// Nothing reaches this address of the network any more.
///
/// Errors: when there is no `ip`, or it may not do that.
pub fn cut(address: Ipv4Addr) -> Result<()> {
    let route = ["route", "add", "blackhole", &format!("{address}/32"), "table", "local"];
    let output = Command::new("ip").args(route).output()?;
    ensure!(output.status.success(), "ip says {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
