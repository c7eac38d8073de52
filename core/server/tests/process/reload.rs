//! What a running server does with a changed configuration, and what its manager hears.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{ChildStderr, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{
    Server,
    management::{run, told},
};

/// Reads the log up to a line with this event.
pub(crate) fn logged(log: &mut BufReader<ChildStderr>, event: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "no {event} in {lines:?}");
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let is_last = line["event"] == event;
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

pub(crate) fn start(data: &Path, config: &Path) -> (Server, BufReader<ChildStderr>) {
    let flags = ["--config", config.to_str().unwrap()];
    let mut server = Server::start_with(data, &flags, |command| {
        command.stderr(Stdio::piped());
    });
    let log = BufReader::new(server.child.stderr.take().unwrap());
    (server, log)
}

#[test]
fn a_changed_file_is_applied_as_far_as_it_goes_and_a_broken_one_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "[auth]\nmechanisms = [\"SCRAM-SHA-256\"]\n").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let login = || server.mqtt_login(Some(("admin", password.trim())));
    assert_ne!(login(), 0, "passwords are off");

    fs::write(&file, "[server]\nname = \"other\"\n[auth]\nmechanisms = [\"PLAIN\"]\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_reloaded");
    let told_of = |event: &str, key: &str| {
        told.iter().any(|line| line["event"] == event && line["key"] == key)
    };
    assert!(told_of("configuration_changed", "auth.mechanisms"), "{told:?}");
    assert!(told_of("configuration_waits", "server.name"), "{told:?}");
    assert_eq!(login(), 0);

    fs::write(&file, "[auth]\nanonymous_user = \"nobody\"\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_refused");
    let text = told.last().unwrap()["error"].as_str().unwrap();
    assert!(text.contains("there is no user `nobody`"), "{text}");
    assert_eq!(login(), 0, "nothing has changed");

    fs::write(&file, "[auth]\nmechanism = [\"PLAIN\"]\n").unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_refused");
    let text = told.last().unwrap()["error"].as_str().unwrap();
    assert!(text.contains("polymq.toml:2:1") && text.contains("mechanisms"), "{text}");
    assert_eq!(login(), 0);
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut heard = [0; 200];
        let count = manager.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..count]).into_owned()
    };
    let server = Server::start_with(&dir.path().join("data"), &[], |command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    assert_eq!(hear(), "READY=1");
    server.signal("-HUP");
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");
    assert_eq!(server.stop("-TERM"), Some(0));
    assert_eq!(hear(), "STOPPING=1");
}

/// Where a listener listens, as the broker says.
fn port_of(listeners: &Value, name: &str) -> Option<u16> {
    let found = listeners.as_array().unwrap().iter().find(|one| one["name"] == name)?;
    found["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().ok()
}

#[test]
fn listeners_limits_and_certificates_change_while_clients_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let mut client = server.connect("stomp");
    let login = format!("CONNECT\nlogin:admin\npasscode:{}\n\n\0", password.trim());
    client.write_all(login.as_bytes()).unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"CONNECTED");

    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = format!(
        "[limits]\nmessage_size = \"1MiB\"\n[listeners]\nmqtt = {{ vhost = \"devices\" }}\n\
         stomp = {{ bind = [] }}\n\
         amqps = {{ protocol = \"amqp\", bind = [\":0\"], tls = \"own\" }}\n\
         [tls.own]\ncert_file = {cert:?}\nkey_file = {key:?}\nexpiry_warning = \"900_000d\"\n",
    );
    fs::write(&file, text).unwrap();
    server.signal("-HUP");
    let told_lines = logged(&mut log, "configuration_reloaded");
    let waits = told_lines.iter().find(|line| line["event"] == "configuration_waits");
    assert_eq!(waits, None, "all of it is applied");
    assert!(told_lines.iter().any(|line| line["event"] == "certificate_ends"), "{told_lines:?}");

    let listeners = told(&server, &data, &["listener", "ls"]);
    assert_eq!(port_of(&listeners, "stomp"), None, "{listeners}");
    let mqtt = u64::from(port_of(&listeners, "mqtt").unwrap());
    assert_eq!(mqtt, server.ports["mqtt"], "a listener that becomes another keeps its port");
    assert!(port_of(&listeners, "amqps").is_some(), "{listeners}");
    let status = told(&server, &data, &["status"]);
    assert_eq!(status["limits"]["message_bytes_max"], 1 << 20);
    let ready = server.get("/health/ready");
    assert!(ready.contains("200 OK") && ready.contains("certificates"), "{ready}");
    for (within, code) in [("1h", 0), ("900000d", 1)] {
        let check = format!("cert:{within}");
        let output = run(&server, &data, &["health", "--check", &check]);
        assert_eq!(output.status.code(), Some(code), "{check}: {output:?}");
    }
    let login = || server.mqtt_login(Some(("admin", password.trim())));
    assert_eq!(login(), 5, "nobody has rights in the new virtual host yet");
    run(&server, &data, &["perm", "set", "admin", ".*", ".*", ".*", "--vhost", "devices"]);
    assert_eq!(login(), 0);
    // Whoever came by a listener that is gone stays.
    client.write_all(b"SEND\ndestination:/queue/q\nreceipt:r\n\nx\0").unwrap();
    let mut answer = [0; 400];
    let mut text = String::new();
    while !text.contains("RECEIPT") {
        let count = client.read(&mut answer).unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&answer[..count]));
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("[listeners]\nmqtt = {{ bind = [\"{}\"] }}\n", taken.local_addr().unwrap());
    fs::write(&file, text).unwrap();
    server.signal("-HUP");
    // With --port 0 the address is a free one, whatever the file says.
    logged(&mut log, "configuration_reloaded");
    let listeners = told(&server, &data, &["listener", "ls"]);
    assert_eq!(port_of(&listeners, "amqps"), None, "{listeners}");
    assert!(port_of(&listeners, "stomp").is_some(), "{listeners}");
}

#[test]
fn the_bound_of_failures_and_pages_change_while_clients_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    fs::write(&file, "[auth]\nlogin_failures_per_minute = 1\n").unwrap();
    let (server, mut log) = start(&data, &file);
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    let login = |password: &str| server.mqtt_login(Some(("admin", password)));
    assert_ne!(login("wrong"), 0);
    assert_ne!(login(password.trim()), 0, "nobody may try again within this minute");

    // One connection lasts over the reload, and is answered by the pages that hold.
    let mut client = server.connect("http");
    let mut ask = |path: &str, origin: &str| {
        write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n{origin}\r\n").unwrap();
        let mut answer = String::new();
        while !answer.contains("\r\n\r\n") {
            let mut part = [0; 4096];
            let count = client.read(&mut part).unwrap();
            assert!(count > 0, "closed after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&part[..count]));
        }
        answer
    };
    let page = "Origin: https://app.example\r\n";
    assert!(ask("/health/live", "").starts_with("HTTP/1.1 200"));
    assert!(!ask("/health/live", page).contains("access-control-allow-origin"));
    let text = "[auth]\nlogin_failures_per_minute = 0\n[http]\npath_prefix = \"/broker\"\n\
                cors_origins = [\"https://app.example\"]\nconnections = 9\nlogin_idle = \"1h\"\n\
                web_sockets = [\"json\"]\n";
    fs::write(&file, text).unwrap();
    server.signal("-HUP");
    let told = logged(&mut log, "configuration_reloaded");
    assert!(told.iter().all(|line| line["event"] != "configuration_waits"), "{told:?}");
    assert_eq!(login(password.trim()), 0);
    assert!(ask("/health/live", "").starts_with("HTTP/1.1 404"));
    let answer = ask("/broker/health/live", page);
    assert!(answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    assert!(ask("/broker/api/overview", "").starts_with("HTTP/1.1 401"));
    assert!(ask("/broker/ws/mqtt", "").starts_with("HTTP/1.1 404"));
}

#[test]
fn an_address_that_is_taken_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("polymq.toml"));
    let names = ["amqp", "mqtt", "stomp", "xmpp", "http", "metrics"];
    let free: Vec<_> =
        names.iter().map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> = free.iter().map(|one| one.local_addr().unwrap()).collect();
    drop(free);
    let config = |mqtt: std::net::SocketAddr| {
        let line = |(name, address): (&&str, &std::net::SocketAddr)| {
            let address = if *name == "mqtt" { mqtt } else { *address };
            format!("{name} = {{ bind = [\"{address}\"] }}\n")
        };
        let lines: String = names.iter().zip(&ports).map(line).collect();
        format!("[listeners]\n{lines}")
    };
    fs::write(&file, config(ports[1])).unwrap();
    let mut command = std::process::Command::new(super::PROGRAM);
    command.arg("server").arg("--data-dir").arg(&data).arg(&file);
    command.args(["--print-ports"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let server = Server { child, ports: serde_json::from_str(&line).unwrap() };

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(&file, config(taken.local_addr().unwrap())).unwrap();
    server.signal("-HUP");
    let told_lines = logged(&mut log, "configuration_refused");
    let text = told_lines.last().unwrap()["error"].as_str().unwrap();
    assert!(text.contains("listener `mqtt` cannot listen on"), "{text}");
    let password = fs::read_to_string(data.join("initial-admin-password")).unwrap();
    assert_eq!(server.mqtt_login(Some(("admin", password.trim()))), 0);

    let moved = taken.local_addr().unwrap();
    drop(taken);
    server.signal("-HUP");
    logged(&mut log, "configuration_reloaded");
    let listeners = told(&server, &data, &["listener", "ls"]);
    assert_eq!(port_of(&listeners, "mqtt"), Some(moved.port()), "{listeners}");
}
