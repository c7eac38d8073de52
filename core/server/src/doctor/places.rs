//! Where the broker keeps and listens: the data directory, its disk, ports, certificates.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Finding;
use crate::{
    config::{Config, EndpointProtocol},
    process, store, tls,
};

/// How long a port may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// File systems on which a sync does not mean what it should, by their number in statfs(2).
const UNSAFE_DISKS: [(u64, &str); 4] =
    [(0x6969, "nfs"), (0x0102_1994, "tmpfs"), (0xff53_4d42, "cifs"), (0x6573_5546, "fuse")];

pub(super) fn data_dir(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "data directory";
    let Some(path) = store::data_dir(config) else {
        let advice = "set storage.backend = \"file\" to keep messages";
        return vec![Finding::warning(CHECK, "nothing survives the process", advice)];
    };
    let shown = path.display();
    let found = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![Finding::ok(CHECK, format!("`{shown}` will be made"))];
        }
        Err(error) => {
            let advice = format!("let the broker's user read `{shown}`");
            return vec![Finding::failed(CHECK, format!("`{shown}`: {error}"), advice)];
        }
        Ok(found) => found,
    };
    let mode = found.permissions().mode();
    let is_ours = found.uid() == rustix::process::getuid().as_raw();
    vec![if !found.is_dir() {
        Finding::failed(CHECK, format!("`{shown}` is no directory"), "set server.data_dir")
    } else if mode & 0o022 != 0 {
        let found = format!("others may write to `{shown}`");
        Finding::failed(CHECK, found, format!("chmod go-w {shown}"))
    } else if mode & 0o055 != 0 {
        let found = format!("others may read `{shown}`");
        Finding::warning(CHECK, found, format!("chmod go= {shown}"))
    } else if !is_ours {
        let found = format!("`{shown}` belongs to user {}", found.uid());
        Finding::warning(CHECK, found, "run this as the user that the broker runs as")
    } else {
        Finding::ok(CHECK, format!("`{shown}`"))
    }]
}

/// The folder itself, or what is above it as long as it does not exist.
fn existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => path = parent,
            None => return PathBuf::from("."),
        }
    }
    path.to_owned()
}

pub(super) fn disk(config: &Config) -> Vec<Finding> {
    let Some(path) = store::disk(config) else { return Vec::new() };
    let path = existing(&path);
    let mut findings = Vec::new();
    let (low, resume) = (config.disk_free.low.0, config.disk_free.resume.0);
    match process::disk_free_bytes(&path) {
        None => {}
        Some(free) if free < resume => {
            let found = format!("{} MiB free", free >> 20);
            let advice = format!(
                "free space until there are {} MiB, or lower limits.disk_free",
                resume >> 20
            );
            findings.push(if free < low {
                Finding::failed("disk", format!("{found}: publishers wait"), advice)
            } else {
                Finding::warning("disk", found, advice)
            });
        }
        Some(free) => findings.push(Finding::ok("disk", format!("{} MiB free", free >> 20))),
    }
    let kind = rustix::fs::statfs(&path).ok().map(|disk| disk.f_type as u64 & 0xffff_ffff);
    let named = UNSAFE_DISKS.iter().find(|(number, _)| Some(*number) == kind);
    if let Some((_, name)) = named {
        findings.push(Finding::warning(
            "disk",
            format!("the data directory is on {name}"),
            "use a local disk: a sync may not mean that data is kept",
        ));
    }
    findings
}

/// What answers on an HTTP listener of this configuration.
fn running_version(config: &Config) -> Option<String> {
    let is_http = |protocol| matches!(protocol, EndpointProtocol::Http | EndpointProtocol::Metrics);
    let endpoints = config.endpoints.iter().filter(|endpoint| is_http(endpoint.protocol));
    let addresses = endpoints.filter(|endpoint| endpoint.tls.is_none());
    let mut addresses = addresses.flat_map(|endpoint| endpoint.addresses.iter());
    addresses.find_map(|address| {
        let answer = get(*address, "/metrics?prefix=polymq").ok()?;
        let line = answer.lines().find(|line| line.starts_with("polymq_build_info{"))?;
        let (_, rest) = line.split_once("version=\"")?;
        rest.split_once('"').map(|(version, _)| version.to_owned())
    })
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.take(1 << 20).read_to_string(&mut answer)?;
    Ok(answer)
}

pub(super) fn ports(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let running = running_version(config);
    let mut findings = Vec::new();
    let all = config.endpoints.iter().flat_map(|endpoint| {
        endpoint.addresses.iter().map(move |address| (&endpoint.name, *address))
    });
    for (name, address) in all.filter(|(_, address)| address.port() != 0) {
        match TcpListener::bind(address) {
            Ok(_) if running.is_some() => findings.push(Finding::warning(
                CHECK,
                format!("a broker runs, and nobody listens on {address} ({name})"),
                "reload its configuration, `polymq reload`, or see its log",
            )),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse && running.is_some() => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => findings.push(Finding::failed(
                CHECK,
                format!("somebody else listens on {address} ({name})"),
                format!(
                    "see who with `ss -ltnp 'sport = {}'`; or give listeners.{name}.bind another \
                     port",
                    address.port()
                ),
            )),
            Err(error) => findings.push(Finding::failed(
                CHECK,
                format!("{name} cannot listen on {address}: {error}"),
                format!("set listeners.{name}.bind to an address of this machine"),
            )),
        }
    }
    if findings.is_empty() {
        let found = if running.is_some() { "served by a broker" } else { "free" };
        findings.push(Finding::ok(CHECK, found));
    }
    let own = env!("CARGO_PKG_VERSION");
    findings.push(match running {
        Some(version) if version != own => Finding::warning(
            "version",
            format!("a broker {version} runs, and this is {own}"),
            "restart the broker to use this version",
        ),
        Some(_) => Finding::ok("version", format!("{own} runs")),
        None => Finding::ok("version", format!("{own}; no broker runs here")),
    });
    findings
}

pub(super) fn certificates(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let loaded = match tls::load(&config.tls) {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = "name files in PEM that the broker's user may read";
            return vec![Finding::failed(CHECK, format!("{error:#}"), advice)];
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut findings = Vec::new();
    for (name, certificate) in &loaded {
        let Some(settings) = config.tls.get(name) else { continue };
        let mode = fs::metadata(&settings.key_file).map(|found| found.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o007 != 0) {
            let path = settings.key_file.display();
            let found = format!("everybody may read the key `{path}`");
            findings.push(Finding::warning(CHECK, found, format!("chmod o= {path}")));
        }
        let Some(ends) = certificate.expires_unix_secs() else { continue };
        let days = ends.saturating_sub(now) / 86_400;
        let advice = "renew it, and `polymq reload`";
        findings.push(if ends <= now {
            Finding::failed(CHECK, format!("`{name}` has expired"), advice)
        } else if ends - now <= settings.expiry_warning.as_secs() {
            Finding::warning(CHECK, format!("`{name}` ends in {days} days"), advice)
        } else {
            Finding::ok(CHECK, format!("`{name}` ends in {days} days"))
        });
    }
    findings
}
