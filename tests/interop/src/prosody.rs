//! Debian's Prosody, as the server that PolyMQ joins as a component.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Result, bail};
use rustix::process::{Signal, kill_process_group};

use crate::broker::{await_port, free_port, pid_of, spawn_logged};

const PROGRAM: &str = "/usr/bin/prosody";
/// The domain of its users; the component is `mq.` before it.
const DOMAIN: &str = "example.test";
const SECRET: &str = "between us";
/// Users, each with its name as password.
const USERS: [&str; 2] = ["alice", "bob"];

/// A Prosody of its own, with its data in a folder of the test. Dropping it ends the process.
pub(crate) struct Prosody {
    process: Child,
    /// Port for its clients.
    pub(crate) client_port: u16,
    component_port: u16,
}

impl Prosody {
    /// True when it is installed.
    pub(crate) fn is_installed() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts it and waits for its ports.
    ///
    /// Errors: when it ends early or is not ready in time.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let (client_port, component_port) = (free_port()?, free_port()?);
        let data = dir.join("prosody");
        fs::create_dir_all(&data)?;
        let config = dir.join("prosody.cfg.lua");
        let (folder, log) = (data.display(), dir.join("prosody.log"));
        let text = format!(
            "run_as_root = true\npidfile = \"{folder}/pid\"\ndata_path = \"{folder}\"\n\
             modules_enabled = {{ \"roster\", \"saslauth\", \"disco\", \"presence\", \"message\", \
             \"iq\", \"ping\", \"component\" }}\nmodules_disabled = {{ \"s2s\", \"tls\" }}\n\
             interfaces = {{ \"127.0.0.1\" }}\nc2s_ports = {{ {client_port} }}\n\
             component_ports = {{ {component_port} }}\ns2s_ports = {{}}\nhttp_ports = {{}}\n\
             https_ports = {{}}\nc2s_direct_tls_ports = {{}}\n\
             c2s_require_encryption = false\nallow_unencrypted_plain_auth = true\n\
             authentication = \"internal_plain\"\nlog = {{ info = \"{}\" }}\n\
             VirtualHost \"{DOMAIN}\"\nComponent \"mq.{DOMAIN}\"\n\
             component_secret = \"{SECRET}\"\n",
            log.display()
        );
        fs::write(&config, text)?;
        for user in USERS {
            let mut register = Command::new("/usr/bin/prosodyctl");
            register.arg("--config").arg(&config).args(["register", user, DOMAIN, user]);
            let out = register.stdin(Stdio::null()).output()?;
            if !out.status.success() {
                bail!("prosodyctl register: {}", String::from_utf8_lossy(&out.stdout));
            }
        }
        fs::write(dir.join("secret"), SECRET)?;
        let mut command = Command::new(PROGRAM);
        command.arg("-F").arg("--config").arg(&config);
        let mut process = spawn_logged(&mut command, dir, Stdio::null())?;
        for port in [client_port, component_port] {
            await_port(port, &mut process, Duration::from_secs(60))?;
        }
        Ok(Self { process, client_port, component_port })
    }

    /// Settings of PolyMQ that make it the component.
    pub(crate) fn settings(&self, dir: &Path) -> Vec<String> {
        let key = |name: &str, value: &str| format!("components.prosody.{name}={value}");
        vec![
            key("address", &format!("127.0.0.1:{}", self.component_port)),
            key("domain", &format!("mq.{DOMAIN}")),
            key("secret_file", &dir.join("secret").display().to_string()),
            key("user", "guest"),
        ]
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        let _ = kill_process_group(pid_of(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}
