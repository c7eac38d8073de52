//! The package for Debian: what is in it, and whether that fits together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "what is skipped is told")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

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
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/deb/build");
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
