use std::{
    io::{Read, Write},
    net::TcpListener,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use polymq_broker::{Credentials, UserRecord};
use serde_json::{Value, json};

use super::{
    super::{Attempt, Directory, PlainWithoutTls, Policy},
    *,
};

const NOW: f64 = 1_800_000_000.0;

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider with a key of each kind.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { rsa, ec }
    }

    fn jwks(&self) -> String {
        // DER of a key of 2048 bits: heads of 9 bytes before the modulus and 2 before the exponent.
        let public = self.rsa.public_key().as_ref();
        let (n, e) = (&public[9..265], &public[267..270]);
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "oct", "k": encoded("secret"), "kid": "hmac" },
            { "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": encoded(n),
              "e": encoded(e) },
            { "kty": "EC", "crv": "P-256", "kid": "e", "x": encoded(&point[1..33]),
              "y": encoded(&point[33..]) },
        ] })
        .to_string()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let key = &self.rsa;
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{signed}.{}", encoded(signature))
    }
}

fn settings(jwks: &str) -> AuthOauth {
    AuthOauth {
        jwks: crate::config::value::Url(jwks.to_owned()),
        issuer: "https://issuer".into(),
        audience: "polymq".into(),
        scope_prefix: "polymq.".into(),
        scope_claim: "scope".into(),
        user_claim: "sub".into(),
        refresh: Duration::from_secs(3600),
        ca_file: "/no/such/file".into(),
    }
}

struct World {
    issuer: Issuer,
    provider: Provider,
    file: tempfile::NamedTempFile,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::new();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(issuer.jwks().as_bytes()).unwrap();
        let settings = settings(file.path().to_str().unwrap());
        let provider = Provider::start(&settings).unwrap().unwrap();
        Self { issuer, provider, file }
    }

    fn check(&self, token: &str) -> Result<(UserName, Arc<Grant>), &'static str> {
        assert!(Provider::is_token(token.as_bytes()), "{token}");
        self.provider.check_at(token.as_bytes(), NOW)
    }

    /// What comes of usual claims after a change.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> Result<String, &'static str> {
        let mut claims = claims();
        change(&mut claims);
        let token = self.issuer.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims);
        self.check(&token).map(|(user, _)| user.as_str().to_owned())
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer", "aud": ["other", "polymq"], "sub": "ann", "exp": NOW + 60.0,
        "scope": "openid polymq.read:*/q polymq.tag:monitoring",
    })
}

#[test]
fn tokens_of_both_algorithms_are_taken_with_and_without_a_key_id() {
    let world = World::new();
    for header in [
        json!({ "alg": "RS256", "kid": "r" }),
        json!({ "alg": "ES256", "kid": "e", "typ": "JWT" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "ES256" }),
    ] {
        let token = world.issuer.sign(&header, &claims());
        let (user, _) = world.check(&token).unwrap();
        assert_eq!(user.as_str(), "ann");
    }
}

#[test]
fn tokens_that_are_signed_in_another_way_or_by_others_are_refused() {
    let world = World::new();
    let stranger = Issuer::new();
    let good = json!({ "alg": "RS256", "kid": "r" });
    let token = world.issuer.sign(&good, &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut changed = claims();
    changed["sub"] = json!("root");
    let forged =
        format!("{}.{}.{signature}", encoded(good.to_string()), encoded(changed.to_string()));
    for (token, why) in [
        (stranger.sign(&good, &claims()), "wrong signature"),
        (forged, "wrong signature"),
        (format!("{signed}."), "wrong signature"),
        (world.issuer.sign(&json!({ "alg": "RS256", "kid": "x" }), &claims()), "unknown key"),
        // A key of one kind does not verify the other kind.
        (world.issuer.sign(&json!({ "alg": "ES256", "kid": "r" }), &claims()), "unknown key"),
        (world.issuer.sign(&json!({ "alg": "none" }), &claims()), "no token that we can read"),
        (
            world.issuer.sign(&json!({ "alg": "HS256", "kid": "hmac" }), &claims()),
            "no token that we can read",
        ),
        (
            world.issuer.sign(&json!({ "alg": "RS256", "crit": ["x"] }), &claims()),
            "no token that we can read",
        ),
    ] {
        assert_eq!(world.check(&token).unwrap_err(), why, "{token}");
    }
}

#[test]
fn expiry_counts_as_a_number_of_any_kind_and_must_be_there() {
    let world = World::new();
    for good in [json!(NOW + 1.0), json!(NOW as u64 + 1), json!("1800000001"), json!(NOW + 0.5)] {
        assert_eq!(world.changed(|claims| claims["exp"] = good.clone()).unwrap(), "ann", "{good}");
    }
    for bad in [json!(NOW), json!(NOW as u64 - 1), json!("1799999999.5"), json!(0), json!(-5)] {
        assert_eq!(world.changed(|claims| claims["exp"] = bad.clone()).unwrap_err(), "expired");
    }
    for none in [json!(null), json!(true), json!("soon"), json!([1])] {
        let refused = world.changed(|claims| claims["exp"] = none);
        assert_eq!(refused.unwrap_err(), "no time of expiry");
    }
    let mut whole = claims();
    whole["exp"] = json!("1800000001.5");
    let token = world.issuer.sign(&json!({ "alg": "ES256" }), &whole);
    let (_, grant) = world.check(&token).unwrap();
    assert!(format!("{grant:?}").contains("expires_ms: Some(1800000001500)"), "{grant:?}");
}

#[test]
fn issuer_audience_beginning_and_user_must_fit() {
    let world = World::new();
    let refused = |name: &str, value: Value| world.changed(|claims| claims[name] = value).err();
    assert_eq!(refused("iss", json!("https://other")), Some("another issuer"));
    assert_eq!(refused("iss", json!(null)), Some("another issuer"));
    assert_eq!(refused("aud", json!("other")), Some("another audience"));
    assert_eq!(refused("aud", json!("polymq")), None);
    assert_eq!(refused("aud", json!(null)), Some("another audience"));
    assert_eq!(refused("nbf", json!(NOW + 10.0)), None);
    assert_eq!(refused("nbf", json!(NOW + 1000.0)), Some("not good yet"));
    assert_eq!(refused("nbf", json!("later")), Some("not good yet"));
    assert_eq!(refused("sub", json!("")), Some("no user"));
    assert_eq!(refused("sub", json!(7)), Some("no user"));
    let by_client = world.changed(|claims| {
        claims.as_object_mut().unwrap().remove("sub");
        claims["client_id"] = json!("service");
    });
    assert_eq!(by_client.unwrap(), "service");
}

#[test]
fn only_scopes_with_the_prefix_count_in_a_text_or_a_list() {
    let world = World::new();
    for scopes in [
        json!("read:*/* polymq.read:*/q polymq.tag:monitoring"),
        json!(["read:*/*", "polymq.read:*/q", "polymq.tag:monitoring"]),
    ] {
        let mut claims = claims();
        claims["scope"] = scopes;
        let token = world.issuer.sign(&json!({ "alg": "ES256" }), &claims);
        let (_, grant) = world.check(&token).unwrap();
        let shown = format!("{grant:?}");
        assert_eq!(shown.matches("Scope {").count(), 1, "{shown}");
        assert!(shown.contains("tags: [\"monitoring\"]"), "{shown}");
    }
}

#[test]
fn what_is_no_token_is_no_token() {
    let world = World::new();
    for text in ["eyJ.a.b", "eyJh.eyJ.", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"] {
        assert!(world.check(text).is_err(), "{text}");
    }
    assert!(!Provider::is_token(b"eyJust a password") && !Provider::is_token(b"a.b.c"));
    let huge = format!("eyJ{}.a.b", "a".repeat(100_000));
    assert_eq!(world.check(&huge).unwrap_err(), "no token that we can read");
}

#[test]
fn a_new_key_in_the_file_is_found_when_a_token_names_it() {
    let mut world = World::new();
    let next = Issuer::new();
    let token = next.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims());
    std::fs::write(world.file.path(), next.jwks()).unwrap();
    world.check(&token).unwrap_err();
    // The thread that reads keys was asked just now.
    let begun = std::time::Instant::now();
    while world.check(&token).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the new key is not read");
        thread::yield_now();
    }
    world.issuer = next;
}

fn policy() -> Policy {
    Policy {
        mechanisms: Vec::new(),
        plain_without_tls: PlainWithoutTls::Never,
        anonymous: None,
        failures_per_minute: 0,
        failures_per_address: 0,
    }
}

#[test]
fn a_reload_reads_the_file_of_keys_again() {
    let world = World::new();
    let logins = Logins::start(policy(), &world.provider.settings).unwrap();
    let token = world.issuer.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims());
    let read = || logins.provider(&world.provider.settings).map(Option::unwrap);
    read().unwrap().check_at(token.as_bytes(), NOW).unwrap();
    std::fs::write(world.file.path(), Issuer::new().jwks()).unwrap();
    assert_eq!(read().unwrap().check_at(token.as_bytes(), NOW), Err("wrong signature"));
    std::fs::write(world.file.path(), "").unwrap();
    assert!(read().is_err());
}

/// Everybody is known here.
struct Everybody;

impl Directory for Everybody {
    fn find(&self, _: &str) -> Option<Arc<UserRecord>> {
        super::super::user_record(b"x", &[]).ok().map(Arc::new)
    }

    fn token(&self, _: &[u8]) -> Option<(UserName, Arc<Grant>)> {
        None
    }

    fn administrator(&self) -> Option<UserName> {
        None
    }

    fn improve(&self, _: &str, _: &str, _: Credentials) {}
}

#[test]
fn a_token_with_the_name_of_a_local_user_is_nobodys() {
    let world = World::new();
    let logins = Logins::start(policy(), &world.provider.settings).unwrap();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut claims = claims();
    claims["exp"] = json!(unix.as_secs() + 600);
    let token = world.issuer.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims);
    let attempt = || Attempt { user: String::new(), address: None, is_loopback: true };
    logins.inner.token(attempt(), token.as_bytes()).unwrap();
    logins.find_users_in(Everybody);
    assert!(logins.inner.token(attempt(), token.as_bytes()).is_err());
}

#[test]
fn keys_come_from_a_url_of_this_machine_without_tls_and_from_no_other() {
    let issuer = Issuer::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let body = issuer.jwks();
    let serving = thread::spawn(move || {
        let (mut socket, _) = server.accept().unwrap();
        let mut request = [0; 1024];
        let count = socket.read(&mut request).unwrap();
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").unwrap();
        String::from_utf8(request[..count].to_vec()).unwrap()
    });
    let source = KeySource::new(&settings(&format!("http://127.0.0.1:{port}/keys.json"))).unwrap();
    source.read().unwrap();
    assert!(serving.join().unwrap().starts_with("GET /keys.json HTTP/1.0\r\n"));
    for bad in
        ["http://keys.example/jwks", "https://", "https://a@b/c", "https://h:x/", "https://h/a b"]
    {
        assert!(KeySource::new(&settings(bad)).is_err(), "{bad}");
    }
    // Authorities that cannot be read are an error, never an empty trust.
    let error = KeySource::new(&settings("https://keys.example/jwks")).err().unwrap();
    assert!(format!("{error:#}").contains("ca_file"), "{error:#}");
}

#[test]
fn keys_come_over_tls_from_the_server_that_the_authorities_know() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut ca_file = tempfile::NamedTempFile::new().unwrap();
    ca_file.write_all(cert.pem().as_bytes()).unwrap();
    let issuer = Issuer::new();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![cert.der().clone()],
        rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
    )
    .unwrap();
    let config = Arc::new(config);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let body = issuer.jwks();
    let serving = thread::spawn(move || {
        for _ in 0..2 {
            let (socket, _) = server.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            let mut request = [0; 1024];
            // A client that does not trust us does not ask.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    let url = format!("https://localhost:{port}/jwks");
    let trusting = AuthOauth { ca_file: ca_file.path().to_owned(), ..settings(&url) };
    KeySource::new(&trusting).unwrap().read().unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(ca_file.path(), other.cert.pem()).unwrap();
    assert!(KeySource::new(&trusting).unwrap().read().is_err());
    serving.join().unwrap();
}
