use std::{net::SocketAddr, sync::mpsc};

use polymq_contract::{Scram, Secret, TlsPeer, Transport};
use polymq_model::VhostName;

use super::*;

const REMOTE: &str = "192.0.2.7:4000";
const LOCAL: &str = "127.0.0.1:4000";

/// Users of a test, and the better hashes that they were given.
struct Users {
    users: [(&'static str, Arc<UserRecord>); 4],
    improved: mpsc::Sender<(String, Credentials)>,
}

impl Directory for Users {
    fn find(&self, user: &str) -> Option<Arc<UserRecord>> {
        self.users.iter().find(|(name, _)| *name == user).map(|(_, record)| Arc::clone(record))
    }

    fn administrator(&self) -> Option<UserName> {
        self.users
            .iter()
            .find(|(name, _)| *name == "guest")
            .map(|_| UserName::new("guest").unwrap())
    }

    fn token(&self, text: &[u8]) -> Option<(UserName, Arc<Grant>)> {
        let grant = || Arc::new(Grant::of_provider(["read:*/*"], None));
        (text == b"pmq_good").then(|| (UserName::new("ann").unwrap(), grant()))
    }

    fn improve(&self, user: &str, _: &str, better: Credentials) {
        self.improved.send((user.to_owned(), better)).unwrap();
    }
}

struct World {
    logins: Logins,
    improved: mpsc::Receiver<(String, Credentials)>,
    conversation: Arc<Conversation>,
}

impl World {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy {
            mechanisms: vec![Mechanism::Plain, Mechanism::ScramSha256, Mechanism::External],
            plain_without_tls: PlainWithoutTls::Allow,
            anonymous: None,
            failures_per_minute: 3,
            failures_per_address: 0,
        };
        change(&mut policy);
        let logins = Logins::start(policy, &no_provider()).unwrap();
        let ann = Arc::new(user_record(b"pencil", &[]).unwrap());
        let guest = Arc::new(public_record(b"guest", &[]).unwrap());
        let mut bob = user_record(b"x", &[]).unwrap();
        // SHA-256 over four bytes of salt and `test12`, the example of RabbitMQ's documentation.
        let imported = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        bob.password_hash = format!("$rabbit-sha256${imported}");
        let (sender, improved) = mpsc::channel();
        // Of another broker, where the password was empty.
        let blank = Arc::new(user_record(b"", &[]).unwrap());
        let users = [("ann", ann), ("guest", guest), ("bob", Arc::new(bob)), ("blank", blank)];
        logins.find_users_in(Users { users, improved: sender });
        Self { logins, conversation: Arc::default(), improved }
    }

    fn step(&self, login: Login, peer: &Peer) -> Result<LoginStep, Refusal> {
        let (sender, receiver) = mpsc::channel();
        let reply = Box::new(move |result| sender.send(result).unwrap());
        self.logins.step(&self.conversation, login, &Arc::new(peer.clone()), reply);
        receiver.recv().unwrap()
    }

    fn password(&self, user: &str, password: &str, from: &str) -> Result<String, String> {
        let password = Secret::new(password.as_bytes());
        let login = Login::Password { user: user.to_owned(), password };
        user_of(self.step(login, &peer(from)))
    }
}

fn no_provider() -> AuthOauth {
    AuthOauth {
        jwks: crate::config::value::Url(String::new()),
        issuer: String::new(),
        audience: String::new(),
        scope_prefix: String::new(),
        scope_claim: String::new(),
        user_claim: String::new(),
        refresh: std::time::Duration::from_secs(3600),
        ca_file: std::path::PathBuf::new(),
    }
}

fn user_of(result: Result<LoginStep, Refusal>) -> Result<String, String> {
    match result {
        Ok(LoginStep::Done { user, .. }) => Ok(user.to_string()),
        Ok(LoginStep::Challenge(_)) => Ok("challenge".to_owned()),
        Err(refusal) => Err(refusal.text),
    }
}

fn peer(from: &str) -> Peer {
    let address: SocketAddr = from.parse().unwrap();
    Peer {
        address: Some(address),
        local: None,
        is_loopback: address.ip().is_loopback(),
        tls: None,
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: "amqp".into(),
        vhost: VhostName::new("/").unwrap(),
    }
}

#[test]
fn empty_password_opens_no_account() {
    let world = World::new(|_| {});
    let wrong = || Err("wrong user name or password".into());
    assert_eq!(world.password("blank", "", REMOTE), wrong());
    assert_eq!(world.password("eve", "", REMOTE), wrong());
}

#[test]
fn right_password_lets_in_and_wrong_ones_look_like_unknown_users() {
    let world = World::new(|_| {});
    assert_eq!(world.password("ann", "pencil", REMOTE), Ok("ann".into()));
    assert_eq!(world.password("ann", "pencil", REMOTE), Ok("ann".into()));
    let wrong = world.password("ann", "pen", REMOTE);
    assert_eq!(wrong, Err("wrong user name or password".into()));
    assert_eq!(wrong, world.password("eve", "pencil", REMOTE));
}

#[test]
fn decoy_costs_what_a_real_hash_costs() {
    let parameters = |hash: &str| hash.rsplitn(3, '$').nth(2).map(str::to_owned);
    let real = password::hash(b"x").unwrap();
    assert_eq!(parameters(DECOY), parameters(&real));
    assert!(argon2::password_hash::phc::PasswordHash::new(DECOY).is_ok());
}

#[test]
fn failures_close_the_door_even_to_the_right_password() {
    let world = World::new(|_| {});
    for _ in 0..3 {
        world.password("ann", "pen", REMOTE).unwrap_err();
    }
    let refused = world.password("ann", "pencil", REMOTE).unwrap_err();
    assert!(refused.contains("too many failed logins"), "{refused}");
    assert_eq!(world.password("ann", "pencil", LOCAL), Ok("ann".into()));
}

#[test]
fn user_for_loopback_is_refused_from_elsewhere_with_the_reason() {
    let world = World::new(|_| {});
    assert_eq!(world.password("guest", "guest", LOCAL), Ok("guest".into()));
    let refused = world.password("guest", "guest", REMOTE).unwrap_err();
    assert!(refused.contains("from loopback only"), "{refused}");
    let refused = world.password("guest", "wrong", REMOTE).unwrap_err();
    assert_eq!(refused, "wrong user name or password");
}

#[test]
fn clients_without_credentials_become_the_anonymous_user() {
    let world = World::new(|_| {});
    user_of(world.step(Login::Anonymous, &peer(LOCAL))).unwrap_err();
    let world = World::new(|policy| policy.anonymous = UserName::new("guest").ok());
    assert_eq!(user_of(world.step(Login::Anonymous, &peer(LOCAL))), Ok("guest".into()));
    user_of(world.step(Login::Anonymous, &peer(REMOTE))).unwrap_err();
}

#[test]
fn clear_passwords_can_be_kept_to_loopback_and_tls() {
    let world = World::new(|policy| policy.plain_without_tls = PlainWithoutTls::Loopback);
    world.password("ann", "pencil", LOCAL).unwrap();
    let refused = world.password("ann", "pencil", REMOTE).unwrap_err();
    assert!(refused.contains("over TLS only"), "{refused}");
    let mut encrypted = peer(REMOTE);
    encrypted.tls = Some(Arc::new(TlsPeer::default()));
    let login = Login::Password { user: "ann".into(), password: Secret::new("pencil") };
    assert_eq!(user_of(world.step(login, &encrypted)), Ok("ann".into()));
}

#[test]
fn mechanism_that_is_off_lets_nobody_in() {
    let world = World::new(|policy| policy.mechanisms = vec![Mechanism::ScramSha256]);
    let refused = world.password("ann", "pencil", LOCAL).unwrap_err();
    assert!(refused.contains("PLAIN are switched off"), "{refused}");
}

#[test]
fn certificate_lets_in_the_user_it_names() {
    let world = World::new(|_| {});
    let login = |identity: &str| Login::Certificate { identity: identity.to_owned() };
    user_of(world.step(login(""), &peer(REMOTE))).unwrap_err();
    let mut ann = peer(REMOTE);
    let tls = TlsPeer { certificate_user: Some("ann".into()), ..TlsPeer::default() };
    ann.tls = Some(Arc::new(tls));
    assert_eq!(user_of(world.step(login(""), &ann)), Ok("ann".into()));
    assert_eq!(user_of(world.step(login("ann"), &ann)), Ok("ann".into()));
    user_of(world.step(login("guest"), &ann)).unwrap_err();
}

#[test]
fn scram_challenges_everybody_alike_and_needs_its_first_message() {
    let world = World::new(|_| {});
    let final_message = Secret::new("c=biws,r=x,p=AAAA");
    let last = || Login::ScramFinal { message: final_message.clone() };
    user_of(world.step(last(), &peer(LOCAL))).unwrap_err();
    for user in ["ann", "nobody"] {
        let message = Secret::new(format!("n,,n={user},r=abc"));
        let first = world.step(Login::ScramFirst { scram: Scram::SHA256, message }, &peer(LOCAL));
        let Ok(LoginStep::Challenge(challenge)) = first else { panic!("{first:?}") };
        let challenge = String::from_utf8(challenge).unwrap();
        assert!(challenge.starts_with("r=abc") && challenge.ends_with(",i=4096"), "{challenge}");
        let refused = user_of(world.step(last(), &peer(LOCAL))).unwrap_err();
        assert_eq!(refused, "wrong user name or password");
    }
}

#[test]
fn a_token_lets_in_its_user_wherever_a_password_does() {
    let world = World::new(|_| {});
    assert_eq!(world.password("ann", "pmq_good", REMOTE), Ok("ann".into()));
    assert_eq!(world.password("", "pmq_good", REMOTE), Ok("ann".into()));
    let somebody_else = world.password("guest", "pmq_good", REMOTE).unwrap_err();
    assert_eq!(somebody_else, "wrong user name or password");
    assert_eq!(world.password("ann", "pmq_bad", REMOTE).unwrap_err(), somebody_else);
}

#[test]
fn wrong_tokens_keep_nobody_out() {
    let world = World::new(|policy| policy.failures_per_address = 3);
    for user in ["ann", ""] {
        for _ in 0..4 {
            let refused = world.password(user, "pmq_bad", REMOTE).unwrap_err();
            assert_eq!(refused, "wrong user name or password");
        }
    }
    assert_eq!(world.password("", "pmq_good", REMOTE), Ok("ann".into()));
    assert_eq!(world.password("ann", "pencil", REMOTE), Ok("ann".into()));
}

#[test]
fn a_token_does_not_help_to_guess_its_users_password() {
    let world = World::new(|_| {});
    for _ in 0..3 {
        world.password("ann", "pen", REMOTE).unwrap_err();
        assert_eq!(world.password("ann", "pmq_good", REMOTE), Ok("ann".into()));
    }
    let refused = world.password("ann", "pencil", REMOTE).unwrap_err();
    assert!(refused.contains("too many failed logins"), "{refused}");
}

#[test]
fn wrong_proofs_of_scram_close_the_door_as_wrong_passwords_do() {
    let world = World::new(|_| {});
    for _ in 0..3 {
        let message = Secret::new("n,,n=ann,r=abc");
        let first = world.step(Login::ScramFirst { scram: Scram::SHA256, message }, &peer(REMOTE));
        assert!(matches!(first, Ok(LoginStep::Challenge(_))), "{first:?}");
        let message = Secret::new("c=biws,r=x,p=AAAA");
        user_of(world.step(Login::ScramFinal { message }, &peer(REMOTE))).unwrap_err();
    }
    let refused = world.password("ann", "pencil", REMOTE).unwrap_err();
    assert!(refused.contains("too many failed logins"), "{refused}");
    let message = Secret::new("n,,n=ann,r=abc");
    let first = world.step(Login::ScramFirst { scram: Scram::SHA256, message }, &peer(REMOTE));
    assert!(user_of(first).unwrap_err().contains("too many failed logins"));
}

#[test]
fn an_imported_hash_is_replaced_at_the_first_login() {
    let world = World::new(|_| {});
    world.password("bob", "test13", LOCAL).unwrap_err();
    assert_eq!(world.password("bob", "test12", LOCAL), Ok("bob".into()));
    let (user, better) = world.improved.recv().unwrap();
    assert_eq!(user, "bob");
    assert!(password::verify(b"test12", &better.password_hash) && !better.scram.is_empty());
}
