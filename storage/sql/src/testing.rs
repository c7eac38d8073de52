//! A PostgreSQL of its own for tests and measurements: started on a socket in a new folder, ended
//! and removed when the last user lets go.
//!
//! The server refuses to run as root, so there it runs as the user `postgres`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

const ROLE: &str = "polymq";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    folder: PathBuf,
    settings: Vec<String>,
    postmaster: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl PostgresServer {
    /// The server that all tests of this process share.
    ///
    /// Panics: when PostgreSQL is not installed or does not start.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server with these settings, such as `fsync=off`.
    ///
    /// Panics: when PostgreSQL is not installed or does not start.
    pub fn start(settings: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "polymq-postgres-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let server = Self {
            programs: programs(),
            folder,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            postmaster: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.run(server.program("initdb").arg("-D").arg(server.data()).args([
            "--username",
            ROLE,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        server.begin();
        server
    }

    /// Starts it; it must not run.
    ///
    /// Panics: when it does not start.
    pub fn begin(&self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(["-h", ""]);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let mut start = || {
            let log = fs::File::create(self.folder.join("log")).unwrap();
            command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
        };
        let mut child = start();
        let started = Instant::now();
        while !self.answers() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < START_TIMEOUT, "PostgreSQL does not start: {}", log());
            sleep(Duration::from_millis(20));
            // It ends at once while a process of a killed one still has the memory they share.
            if child.try_wait().unwrap().is_some() {
                child = start();
            }
        }
        *self.postmaster.lock() = Some(child);
    }

    /// Ends it like a crash of the machine it runs on.
    pub fn kill(&self) {
        if let Some(mut child) = self.postmaster.lock().take() {
            // Its children end by themselves when they miss it, but not at once.
            let children = children(&child);
            let _ = child.kill();
            for pid in children {
                signal("-KILL", &pid);
            }
            let _ = child.wait();
        }
    }

    /// Stops all its processes where they are, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal_all("-STOP");
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.signal_all("-CONT");
    }

    fn signal_all(&self, name: &str) {
        let postmaster = self.postmaster.lock();
        if let Some(child) = &*postmaster {
            // The postmaster first, so that it starts no more of them.
            signal(name, &child.id().to_string());
            for pid in children(child) {
                signal(name, &pid);
            }
        }
    }

    /// Ends it as [`kill`](Self::kill) does, and starts it with the files of a copy that
    /// [`copy`](Self::copy) has made.
    ///
    /// Panics: when it does not start.
    pub fn go_back_to(&self, copy: &Path) {
        self.kill();
        fs::remove_dir_all(self.data()).unwrap();
        fs::rename(copy, self.data()).unwrap();
        self.begin();
    }

    /// Copies its files as a backup does; it is ended for that, and started again.
    ///
    /// Panics: when it does not start.
    pub fn copy(&self) -> PathBuf {
        self.kill();
        let copy = self.folder.join("copy");
        let status = Command::new("cp").arg("-a").arg(self.data()).arg(&copy).status().unwrap();
        assert!(status.success());
        self.begin();
        copy
    }

    /// Makes an empty database and answers its URL.
    ///
    /// Panics: when it cannot be made.
    pub fn new_database(&self) -> String {
        let name = format!("polymq_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = self.program("createdb");
        self.run(createdb.arg("-h").arg(&self.folder).args(["-U", ROLE, &name]));
        self.url(&name)
    }

    /// The socket it listens on.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// Runs statements in the database of `url` and answers what they print.
    ///
    /// Panics: when they fail.
    pub fn sql(&self, url: &str, statements: &str) -> String {
        let output = self
            .program("psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statements, url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://{ROLE}@localhost/{database}?host={folder}")
    }

    fn answers(&self) -> bool {
        let mut ready = self.program("pg_isready");
        let ready =
            ready.arg("-q").arg("-h").arg(&self.folder).args(["-U", ROLE, "-d", "postgres"]);
        ready.status().unwrap().success()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match other_user() {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                command.arg("--clear-groups").arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(&self.folder).env("LC_ALL", "C");
        command
    }

    fn run(&self, command: &mut Command) {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {error}");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.postmaster.lock().take() {
            // Fast shutdown: sessions are ended, everything is written.
            signal("-INT", &child.id().to_string());
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn children(child: &Child) -> Vec<String> {
    let list = format!("/proc/{0}/task/{0}/children", child.id());
    let children = fs::read_to_string(list).unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

fn signal(signal: &str, pid: &str) {
    let _ = Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status();
}

/// User and group to run the server as, when we are root.
fn other_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let ids = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"]));
    Some(ids.expect("PostgreSQL does not run as root, and there is no user `postgres`"))
}

/// Where Debian keeps the programs of the newest version, or where the path leads.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|entry| entry.path().join("bin")).collect();
    let number = |folder: &PathBuf| {
        let version = folder.parent().and_then(Path::file_name)?;
        version.to_str()?.parse::<u32>().ok()
    };
    folders.sort_by_key(number);
    let of_path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.into_iter().rev().chain(std::env::split_paths(&of_path));
    let found = all.into_iter().find(|folder| folder.join("initdb").is_file());
    found.expect("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin nor in PATH")
}
