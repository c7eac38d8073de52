//! The package for Debian: what is in it, and whether that fits together; and what of the image can
//! be looked at without building it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "what is skipped is told")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_polymq");

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn is_there(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: {tool} is missing");
    }
    is_there
}

/// The package, unpacked.
fn unpacked(dir: &Path) -> PathBuf {
    let build = packaging().join("deb/build");
    let built =
        run(Command::new(build).arg(PROGRAM).arg(dir.join("out")).env("DEB_COMPRESSION", "none"));
    let package = String::from_utf8(built.stdout).unwrap();
    let tree = dir.join("tree");
    run(Command::new("dpkg-deb").arg("-R").arg(package.trim()).arg(&tree));
    tree
}

#[test]
fn the_package_has_what_a_service_needs_and_listens_on_loopback() {
    if !is_there("dpkg-deb") {
        assert!(std::env::var_os("CI").is_none(), "CI must have it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = unpacked(dir.path());
    for (file, mode) in [
        ("usr/bin/polymq", 0o755),
        ("etc/polymq/polymq.toml", 0o644),
        ("usr/lib/systemd/system/polymq.service", 0o644),
        ("usr/lib/sysusers.d/polymq.conf", 0o644),
        ("usr/share/man/man1/polymq.1.gz", 0o644),
        ("usr/share/man/man1/polymq-queue-move.1.gz", 0o644),
        ("usr/share/bash-completion/completions/polymq", 0o644),
        ("usr/share/zsh/vendor-completions/_polymq", 0o644),
        ("usr/share/fish/vendor_completions.d/polymq.fish", 0o644),
        ("usr/share/nushell/vendor/autoload/polymq.nu", 0o644),
        ("usr/share/doc/polymq/copyright", 0o644),
        ("usr/share/doc/polymq/docs/operate.md", 0o644),
        ("DEBIAN/postinst", 0o755),
        ("DEBIAN/prerm", 0o755),
        ("DEBIAN/postrm", 0o755),
    ] {
        let found = fs::metadata(tree.join(file)).unwrap_or_else(|_| panic!("no {file}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
    let read = |file: &str| fs::read_to_string(tree.join(file)).unwrap();
    assert_eq!(read("DEBIAN/conffiles"), "/etc/polymq/polymq.toml\n");
    let control = read("DEBIAN/control");
    let version = format!("Version: {}-1\n", env!("CARGO_PKG_VERSION"));
    for line in ["Package: polymq\n", &version, "Depends: libc6 (>= 2."] {
        assert!(control.contains(line), "{control}");
    }

    let program = tree.join("usr/bin/polymq");
    let checked = run(Command::new(program).arg("check").arg(tree.join("etc/polymq/polymq.toml")));
    let checked = String::from_utf8(checked.stdout).unwrap();
    let set: Vec<_> = checked.lines().filter(|line| !line.ends_with("# default")).collect();
    assert_eq!(set.len(), 1, "{set:?}");
    assert!(set[0].starts_with("server.data_dir = \"/var/lib/polymq\""), "{set:?}");

    let sums = read("DEBIAN/md5sums");
    assert!(sums.lines().any(|line| line.ends_with("  usr/bin/polymq")), "{sums}");
    if is_there("systemd-analyze") {
        // The names of users and the paths are those of the tree.
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/passwd"), "polymq:x:990:990::/var/lib/polymq:/bin/false\n")
            .unwrap();
        fs::write(tree.join("etc/group"), "polymq:x:990:\n").unwrap();
        let verified = run(Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no", "--root"])
            .arg(&tree)
            .arg("polymq.service"));
        assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
    }
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

/// The page of metrics of a broker to which nothing has happened yet.
fn metrics(data: &Path) -> String {
    let mut server = Command::new(PROGRAM)
        .args(["server", "--port", "0", "--print-ports", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ports: Value = serde_json::from_str(&line).unwrap();
    let port = u16::try_from(ports["metrics"].as_u64().unwrap()).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    // As the image asks, over the socket in the data directory.
    run(Command::new(PROGRAM).args(["health", "--data-dir"]).arg(data).env_remove("POLYMQ_URL"));
    server.kill().unwrap();
    server.wait().unwrap();
    page
}

/// Every text at this name, wherever it stands.
fn texts<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(name).and_then(Value::as_str));
            map.values().for_each(|inner| texts(inner, name, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| texts(inner, name, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let page = metrics(&dir.path().join("data"));
    let file = packaging().join("docker/grafana/dashboards/polymq.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = queries.iter().flat_map(|query| query.split(|c| !is_part(c)));
    let asked: BTreeSet<_> = words.filter(|word| word.starts_with("polymq_")).collect();
    assert!(asked.len() > 10, "{asked:?}");
    let is_served = |name: &str| {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        page.contains(&format!("# TYPE {family} ")) || page.contains(&format!("# TYPE {name} "))
    };
    let missing: Vec<_> = asked.into_iter().filter(|name| !is_served(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_image_is_built_by_our_compiler_and_sets_what_there_is() {
    let text = fs::read_to_string(packaging().join("docker/Dockerfile")).unwrap();
    let toolchain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rust-toolchain.toml");
    let toolchain = fs::read_to_string(toolchain).unwrap();
    let version = text.split("FROM rust:").nth(1).unwrap().split('-').next().unwrap();
    assert!(toolchain.contains(&format!("channel = \"{version}.")), "{version}: {toolchain}");

    let joined = text.replace("\\\n", " ");
    let variables = joined.split_whitespace().filter(|word| word.starts_with("POLYMQ__"));
    let variables: Vec<_> = variables.map(|word| word.split_once('=').unwrap()).collect();
    assert!(!variables.is_empty());
    let checked = run(Command::new(PROGRAM).arg("check").envs(variables.iter().copied()));
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    let exposed = text.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let binds = checked.lines().filter(|line| line.contains(".bind = "));
    for bind in binds {
        let port = bind.split(['"', ':']).find(|part| part.parse::<u16>().is_ok()).unwrap();
        assert!(exposed.split(' ').any(|exposed| exposed == port), "{port} of {bind}");
    }
}
