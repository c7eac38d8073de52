//! Checks logins: passwords, SCRAM, client certificates, and clients that show nothing.
//!
//! All wrong logins look and cost alike, whether the user exists or not. Hashing never runs on a
//! connection's task.

mod cache;
mod directory;
mod failures;
mod md5;
mod oauth;
mod password;
mod pool;
mod random;
mod scram;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use polymq_broker::{
    Authenticator, Conversation, Credentials, Grant, HashReply, LoginReply, LoginStep,
    TOKEN_PREFIX, UserRecord,
};
use polymq_contract::{
    Account, Login, PasswordsInClear, Peer, Refusal, RefusalKind, ScramHash, Secret,
};
use polymq_model::UserName;
use polymq_scram::Verifier;

use self::{cache::VerifiedLogins, failures::LoginFailures, oauth::Provider, pool::HashingPool};
pub(crate) use self::{
    directory::Directory,
    oauth::check_keys,
    random::{fill_random, random},
};
use crate::config::{
    AuthOauth,
    value::{Mechanism, PlainWithoutTls},
};

/// Hashing threads: more would only take the cores from the messages.
const THREADS_MAX: usize = 4;
/// Logins that wait for a hash. Longer queues would outlast the login timeout.
const WAITING_MAX: usize = 512;

/// The answer to all wrong logins.
const WRONG: &str = "wrong user name or password";

/// What the operator decided about logins.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) plain_without_tls: PlainWithoutTls,
    /// The user that clients without credentials become.
    pub(crate) anonymous: Option<UserName>,
    pub(crate) failures_per_minute: u32,
    /// Of all users together, from one address.
    pub(crate) failures_per_address: u32,
}

/// The authenticator of this server.
pub(crate) struct Logins {
    inner: Arc<Inner>,
    pool: HashingPool<Job>,
}

struct Inner {
    policy: ArcSwap<Policy>,
    directory: OnceLock<Box<dyn Directory>>,
    verified: VerifiedLogins,
    failures: LoginFailures,
    /// Whose signed tokens are taken.
    provider: ArcSwapOption<Provider>,
    process_key: [u8; 32],
}

/// Work for a thread of the pool.
enum Job {
    Check(Box<Check>),
    Hash(Secret, HashReply),
}

impl Job {
    fn run(self) {
        match self {
            Self::Check(check) => check.run(),
            Self::Hash(password, reply) => reply(
                credentials(password.expose())
                    .map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string())),
            ),
        }
    }

    /// Too many wait.
    fn refuse(self) {
        let text = "too many clients log in at once; try again in a moment";
        let refusal = Refusal::new(RefusalKind::Limit, text);
        match self {
            Self::Check(check) => (check.reply)(Err(refusal)),
            Self::Hash(_, reply) => reply(Err(refusal)),
        }
    }
}

/// A password to verify.
struct Check {
    inner: Arc<Inner>,
    attempt: Attempt,
    password: Secret,
    record: Option<Arc<UserRecord>>,
    reply: LoginReply,
}

/// Who tries, and from where.
struct Attempt {
    user: String,
    address: Option<IpAddr>,
    is_loopback: bool,
}

impl Logins {
    /// Starts the hashing threads.
    ///
    /// Errors: when the system gives no randomness or no thread, or the keys of the identity
    /// provider cannot be read.
    pub(crate) fn start(policy: Policy, oauth: &AuthOauth) -> anyhow::Result<Self> {
        let process_key = random()?;
        let inner = Inner {
            provider: ArcSwapOption::new(Provider::start(oauth)?.map(Arc::new)),
            verified: VerifiedLogins::new(&process_key),
            failures: LoginFailures::new(policy.failures_per_minute, policy.failures_per_address),
            policy: ArcSwap::from_pointee(policy),
            directory: OnceLock::new(),
            process_key,
        };
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        let pool = HashingPool::start(threads.clamp(1, THREADS_MAX), WAITING_MAX, Job::run)?;
        Ok(Self { inner: Arc::new(inner), pool })
    }

    /// Another policy from now on; connections that have logged in stay.
    pub(crate) fn set_policy(&self, policy: Policy) {
        let (per_user, per_address) = (policy.failures_per_minute, policy.failures_per_address);
        self.inner.failures.set_bounds(per_user, per_address);
        self.inner.policy.store(Arc::new(policy));
    }

    /// Tells where users are found. Until then nobody exists.
    pub(crate) fn find_users_in(&self, directory: impl Directory + 'static) {
        // A second call would come from a second broker, which a process does not have.
        let _ = self.inner.directory.set(Box::new(directory));
    }

    /// True when there is such a user.
    pub(crate) fn knows(&self, user: &str) -> bool {
        self.inner.find(user).is_some()
    }

    fn check_password(&self, user: String, password: Secret, peer: &Peer, reply: LoginReply) {
        let inner = &self.inner;
        let attempt = Attempt::new(user, peer);
        if let Err(refusal) = inner.may_send_password(peer) {
            return reply(Err(refusal));
        }
        // It proves nothing, whatever hash was brought in for the user.
        if password.expose().is_empty() {
            return reply(Err(inner.refuse(&attempt, "empty password")));
        }
        // Nobody guesses a token, so that wrong ones keep no right one out.
        if inner.is_token(password.expose()) {
            return reply(inner.token(attempt, password.expose()));
        }
        if let Err(refusal) = inner.may_try(&attempt) {
            return reply(Err(refusal));
        }
        let record = inner.find(&attempt.user);
        let stored = Inner::stored_hash(record.as_deref());
        let digest = inner.verified.digest(&attempt.user, password.expose(), stored);
        if inner.verified.contains(&digest, Instant::now()) {
            return reply(inner.admit(&attempt, record.as_deref(), Vec::new(), None));
        }
        let check = Check { inner: Arc::clone(inner), attempt, password, record, reply };
        if let Err(job) = self.pool.run(Job::Check(Box::new(check))) {
            job.refuse();
        }
    }
}

/// Verified instead of the hash of a user who does not exist; its parameters are those of
/// [`password::hash`].
const DECOY: &str = "$argon2id$v=19$m=7168,t=5,p=1$bm9ib2R5IGhhcyB0aGlz\
     $AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

impl Authenticator for Logins {
    fn step(
        &self,
        conversation: &Arc<Conversation>,
        login: Login,
        peer: &Arc<Peer>,
        reply: LoginReply,
    ) {
        match login {
            Login::Password { user, password } => self.check_password(user, password, peer, reply),
            Login::Anonymous => reply(self.inner.anonymous(peer)),
            Login::Certificate { identity } => reply(self.inner.certificate(&identity, peer)),
            Login::Configured => reply(self.inner.configured(peer)),
            Login::ScramFirst { scram, message } => {
                reply(self.inner.scram_first(conversation, (scram, message.expose()), peer));
            }
            Login::ScramFinal { message } => {
                reply(self.inner.scram_final(conversation, message.expose(), peer));
            }
        }
    }

    fn hash(&self, password: Secret, reply: HashReply) {
        if let Err(job) = self.pool.run(Job::Hash(password, reply)) {
            job.refuse();
        }
    }
}

impl Check {
    fn run(self) {
        let Self { inner, attempt, password, record, reply } = self;
        let stored = Inner::stored_hash(record.as_deref());
        if !password::verify(password.expose(), stored) || record.is_none() {
            return reply(Err(inner.refuse(&attempt, "wrong user or password")));
        }
        let digest = inner.verified.digest(&attempt.user, password.expose(), stored);
        inner.verified.insert(digest, Instant::now());
        reply(inner.admit(&attempt, record.as_deref(), Vec::new(), None));
        // Whoever has just logged in need not wait for it.
        if password::is_imported(stored)
            && let Ok(better) = credentials(password.expose())
            && let Some(directory) = inner.directory.get()
        {
            directory.improve(&attempt.user, stored, better);
        }
    }
}

impl Attempt {
    fn new(user: String, peer: &Peer) -> Self {
        let address = peer.address.map(|address| address.ip().to_canonical());
        Self { user, address, is_loopback: peer.is_loopback }
    }
}

impl Inner {
    fn find(&self, user: &str) -> Option<Arc<UserRecord>> {
        self.directory.get()?.find(user)
    }

    fn stored_hash(record: Option<&UserRecord>) -> &str {
        match record {
            Some(record) if !record.password_hash.is_empty() => &record.password_hash,
            Some(_) | None => DECOY,
        }
    }

    fn is_token(&self, text: &[u8]) -> bool {
        let is_ours = text.starts_with(TOKEN_PREFIX.as_bytes());
        is_ours || (self.provider.load().is_some() && Provider::is_token(text))
    }

    /// A token in place of a password; the user that comes with it is empty or the token's.
    fn token(&self, attempt: Attempt, text: &[u8]) -> Result<LoginStep, Refusal> {
        let found = match &*self.provider.load() {
            Some(provider) if !text.starts_with(TOKEN_PREFIX.as_bytes()) => {
                // Whoever chooses names at the provider must not get what is kept under one here.
                provider.check(text).and_then(|found| match self.find(found.0.as_str()) {
                    None => Ok(found),
                    Some(_) => Err("a local user has the name in the token"),
                })
            }
            Some(_) | None => {
                let found = self.directory.get().and_then(|directory| directory.token(text));
                found.ok_or("unknown or expired token")
            }
        };
        let (user, grant) = found.map_err(|why| self.refuse_token(&attempt, why))?;
        if !attempt.user.is_empty() && attempt.user != user.as_str() {
            return Err(self.refuse_token(&attempt, "the token is somebody else's"));
        }
        let record = self.find(user.as_str());
        let attempt = Attempt { user: user.as_str().to_owned(), ..attempt };
        self.admit(&attempt, record.as_deref(), Vec::new(), Some(grant))
    }

    fn offers(&self, mechanism: Mechanism) -> Result<(), Refusal> {
        if self.policy.load().mechanisms.contains(&mechanism) {
            return Ok(());
        }
        let text = format!("logins by {mechanism} are switched off (auth.mechanisms)");
        Err(Refusal::new(RefusalKind::LoginFailed, text))
    }

    fn may_send_password(&self, peer: &Peer) -> Result<(), Refusal> {
        self.offers(Mechanism::Plain)?;
        if PasswordsInClear::from(self.policy.load().plain_without_tls).allow(peer) {
            return Ok(());
        }
        let text = "passwords are taken over TLS only (auth.plain_without_tls)";
        Err(Refusal::new(RefusalKind::LoginFailed, text))
    }

    fn may_try(&self, attempt: &Attempt) -> Result<(), Refusal> {
        if self.failures.allows(&attempt.user, attempt.address, Instant::now()) {
            return Ok(());
        }
        let text = "too many failed logins; wait a minute (auth.login_failures_per_minute, \
                    auth.login_failures_per_address)";
        Err(Refusal::new(RefusalKind::TooManyLogins, text))
    }

    fn anonymous(&self, peer: &Peer) -> Result<LoginStep, Refusal> {
        let policy = self.policy.load();
        let Some(user) = &policy.anonymous else {
            let attempt = Attempt::new(String::new(), peer);
            return Err(self.refuse(&attempt, "no credentials and no auth.anonymous_user"));
        };
        let attempt = Attempt::new(user.as_str().to_owned(), peer);
        let record = self.find(user.as_str());
        self.admit(&attempt, record.as_deref(), Vec::new(), None)
    }

    /// Errors: nobody is one.
    fn administrator(&self) -> Result<UserName, Refusal> {
        let found = self.directory.get().and_then(|directory| directory.administrator());
        found.ok_or_else(|| {
            let text = "no user has the tag administrator; a start with \
                        POLYMQ_ADMIN_PASSWORD_FILE makes one";
            Refusal::new(RefusalKind::LoginFailed, text)
        })
    }

    /// A connection that we have opened ourselves, whose other end has shown that it is the one
    /// that the configuration names; or one of somebody for whom the kernel stands.
    fn configured(&self, peer: &Peer) -> Result<LoginStep, Refusal> {
        let user = match &peer.account {
            Some(Account::Local) => Some(self.administrator()?),
            other => other.as_ref().and_then(Account::configured).cloned(),
        };
        let user = user.map(|user| user.as_str().to_owned());
        let attempt = Attempt { is_loopback: true, ..Attempt::new(user.unwrap_or_default(), peer) };
        let record = self.find(&attempt.user);
        self.admit(&attempt, record.as_deref(), Vec::new(), None)
    }

    fn certificate(&self, identity: &str, peer: &Peer) -> Result<LoginStep, Refusal> {
        self.offers(Mechanism::External)?;
        let named = peer.tls.as_ref().and_then(|tls| tls.certificate_user.clone());
        let attempt = Attempt::new(named.unwrap_or_default(), peer);
        if attempt.user.is_empty() {
            return Err(self.refuse(&attempt, "no client certificate that names a user"));
        }
        if !identity.is_empty() && identity != attempt.user {
            return Err(self.refuse(&attempt, "the certificate is somebody else's"));
        }
        let record = self.find(&attempt.user);
        self.admit(&attempt, record.as_deref(), Vec::new(), None)
    }

    /// Lets a client in that has proved who it is.
    fn admit(
        &self,
        attempt: &Attempt,
        record: Option<&UserRecord>,
        server_final: Vec<u8>,
        grant: Option<Arc<Grant>>,
    ) -> Result<LoginStep, Refusal> {
        // Users of an identity provider are known to it alone.
        let is_foreign = grant.as_ref().is_some_and(|grant| grant.is_of_provider());
        let user = UserName::new(&attempt.user).ok().filter(|_| record.is_some() || is_foreign);
        let Some(user) = user else { return Err(self.refuse(attempt, "no such user")) };
        if record.is_some_and(|record| record.loopback_only) && !attempt.is_loopback {
            // The client knows the password, so the reason tells it nothing it could misuse.
            let mut refusal = self.refuse(attempt, "the user is for loopback only");
            refusal.text = format!("user `{user}` may log in from loopback only");
            return Err(refusal);
        }
        // Whoever holds a token could guess the password between its logins otherwise.
        if grant.is_none() {
            self.failures.forget(&attempt.user, attempt.address);
        }
        Ok(LoginStep::Done { user, server_final, grant })
    }

    /// Counts and logs a failure; the answer is the same for all of them.
    fn refuse(&self, attempt: &Attempt, reason: &'static str) -> Refusal {
        let of_user = self.failures.note(&attempt.user, attempt.address, Instant::now());
        self.refused(attempt, reason, Some(of_user))
    }

    /// As [`refuse`](Self::refuse), of a token: its failure counts against nobody else.
    fn refuse_token(&self, attempt: &Attempt, reason: &'static str) -> Refusal {
        self.refused(attempt, reason, None)
    }

    fn refused(&self, attempt: &Attempt, reason: &'static str, of_user: Option<u32>) -> Refusal {
        if let Some(failures) = self.failures.to_say(Instant::now()) {
            tracing::warn!(
                event = "login_failed",
                user = attempt.user.escape_debug().to_string(),
                address = attempt.address.map(tracing::field::display),
                reason,
                failures,
                failures_this_minute = of_user,
            );
        }
        Refusal::new(RefusalKind::LoginFailed, WRONG)
    }
}

/// The verifiers of all mechanisms of SCRAM.
fn verifiers(password: &[u8]) -> anyhow::Result<String> {
    let of = |hash| anyhow::Ok(Verifier::of_password(hash, password, random()?));
    Ok(format!("{} {}", of(ScramHash::Sha256)?, of(ScramHash::Sha1)?))
}

/// What proves a password.
///
/// Errors: when it cannot be hashed.
fn credentials(password: &[u8]) -> anyhow::Result<Credentials> {
    Ok(Credentials { password_hash: password::hash(password)?, scram: verifiers(password)? })
}

/// Whether this is the password of a user.
pub(crate) fn is_password(password: &[u8], record: &UserRecord) -> bool {
    password::verify(password, &record.password_hash)
}

/// Makes the record of a user who logs in with `password`.
///
/// Errors: when the password cannot be hashed.
pub(crate) fn user_record(password: &[u8], tags: &[&str]) -> anyhow::Result<UserRecord> {
    let Credentials { password_hash, scram } = credentials(password)?;
    Ok(UserRecord {
        password_hash,
        scram,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        loopback_only: false,
    })
}

/// Makes the record of a user whose password everybody knows, and who may come from loopback
/// only.
///
/// Errors: when the password cannot be hashed.
pub(crate) fn public_record(password: &[u8], tags: &[&str]) -> anyhow::Result<UserRecord> {
    Ok(UserRecord {
        password_hash: password::hash_public(password)?,
        scram: verifiers(password)?,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        loopback_only: true,
    })
}
