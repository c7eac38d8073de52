//! `polymq init`: the files with which a broker begins.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use polymq_model::carry::rfc3339_from_ms;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::{cli::InitArgs, config};

/// The unit of the package.
const UNIT: &str = include_str!("../../../packaging/systemd/polymq.service");
/// What the unit of the package names.
const UNIT_PROGRAM: &str = "/usr/bin/polymq";
/// How long a certificate holds. Whoever needs one for longer has an authority.
const CERTIFICATE_YEARS: i32 = 2;

/// A file that is to be written.
struct NewFile {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// Writes the files.
///
/// Errors: one of them is there, or cannot be written. What was written before stays.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let dir = std::path::absolute(&args.dir)?;
    let program = std::env::current_exe().context("where this program is")?;
    let files = files(&dir, &program, args.tls)?;
    for NewFile { path, .. } in &files {
        if path.exists() {
            bail!("`{}` is there already; nothing was written", path.display());
        }
    }
    for file in &files {
        if !args.dry_run {
            write(file).with_context(|| format!("`{}` cannot be written", file.path.display()))?;
        }
        writeln!(std::io::stdout(), "{}", file.path.display())?;
    }
    let (config, dir) = (dir.join("polymq.toml"), dir.display());
    // The key is its owner's alone, and the service is somebody else.
    let key = if args.tls {
        format!("  chgrp polymq {dir}/tls/key.pem && chmod 640 {dir}/tls/key.pem\n")
    } else {
        String::new()
    };
    let next = format!(
        "\nNext:\n  polymq check {0}\n  polymq server {0}\nor, as a service:\n  \
         useradd --system --home-dir /var/lib/polymq --shell /usr/sbin/nologin polymq\n{key}  \
         cp {dir}/polymq.service /etc/systemd/system/ && systemctl enable --now polymq\n",
        config.display()
    );
    write!(std::io::stderr(), "{next}")?;
    Ok(ExitCode::SUCCESS)
}

fn files(dir: &Path, program: &Path, tls: bool) -> anyhow::Result<Vec<NewFile>> {
    let config = dir.join("polymq.toml");
    let mut text = config::starter();
    let mut files = Vec::new();
    if tls {
        let (certificate, key) = (dir.join("tls/cert.pem"), dir.join("tls/key.pem"));
        text.push_str(&tls_tables(&certificate, &key));
        let (certificate_text, key_text) = own_certificate()?;
        files.push(NewFile { path: certificate, text: certificate_text, mode: 0o644 });
        files.push(NewFile { path: key, text: key_text, mode: 0o600 });
    }
    let unit = unit(&config, program);
    files.push(NewFile { path: config, text, mode: 0o644 });
    files.push(NewFile { path: dir.join("polymq.service"), text: unit, mode: 0o644 });
    Ok(files)
}

fn write(file: &NewFile) -> std::io::Result<()> {
    if let Some(folder) = file.path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create_new(true).mode(file.mode).open(&file.path)?;
    out.write_all(file.text.as_bytes())?;
    out.sync_all()
}

/// The unit of the package with this program and this configuration.
fn unit(config: &Path, program: &Path) -> String {
    let (config, program) = (config.display(), program.display());
    UNIT.replace(&format!("{UNIT_PROGRAM} check"), &format!("{program} check {config}"))
        .replace(&format!("{UNIT_PROGRAM} server"), &format!("{program} server {config}"))
        .replace(&format!("{UNIT_PROGRAM} reload"), &format!("{program} reload"))
}

/// Listeners with TLS beside those in clear text, with the ports that clients expect.
fn tls_tables(certificate: &Path, key: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let mut text = "\n# Made by `polymq init --tls`.\n".to_owned();
    for (name, protocol, port) in [
        ("amqps", "amqp", 5671),
        ("mqtts", "mqtt", 8883),
        ("stomps", "stomp", 61614),
        ("xmpps", "xmpp", 5223),
        ("https", "http", 15671),
    ] {
        text.push_str(&format!(
            "[listeners.{name}]\nprotocol = \"{protocol}\"\nbind = [\":{port}\"]\ntls = \"own\"\n\n"
        ));
    }
    let (certificate, key) = (quoted(certificate), quoted(key));
    text.push_str(&format!(
        "# A certificate that signs itself: clients must be told to trust it.\n\
         [tls.own]\ncert_file = {certificate}\nkey_file = {key}\n"
    ));
    text
}

/// A certificate for the names of this machine, and its key, as PEM.
fn own_certificate() -> anyhow::Result<(String, String)> {
    let mut names: Vec<_> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let is_name =
        |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if !host.is_empty() && is_name(host) && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let cannot = "a certificate cannot be made";
    let mut params = CertificateParams::new(names).context(cannot)?;
    let (year, month, day) = today().context(cannot)?;
    params.not_before = date_time_ymd(year, month, day);
    // Every month has a 28th.
    params.not_after = date_time_ymd(year + CERTIFICATE_YEARS, month, day.min(28));
    let key = KeyPair::generate().context(cannot)?;
    let certificate = params.self_signed(&key).context(cannot)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Year, month and day in UTC.
fn today() -> Option<(i32, u8, u8)> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let date = rfc3339_from_ms(i64::try_from(since_1970.as_millis()).ok()?);
    let (date, _) = date.split_once('T')?;
    let mut parts = date.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_this_program_and_this_file() {
        let unit = unit(Path::new("/x/polymq.toml"), Path::new("/y/polymq"));
        assert!(!unit.contains(UNIT_PROGRAM), "{unit}");
        let start = "ExecStart=/y/polymq server /x/polymq.toml --data-dir /var/lib/polymq\n";
        assert!(unit.contains(start), "{unit}");
        assert!(unit.contains("ExecStartPre=/y/polymq check /x/polymq.toml --set "), "{unit}");
    }
}
