//! What a value in the configuration may look like, and how it is shown again.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use polymq_contract::PasswordsInClear;
use serde_json::{Value, json};

use super::mask;

/// A value before its type is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// From the environment or a flag: only text, the key decides what it means.
    Text(String),
    /// A string of a file.
    Str(String),
    /// A whole number of a file.
    Int(i64),
    /// A truth value of a file.
    Bool(bool),
    /// An array of a file.
    List(Vec<Raw>),
    /// Anything that no key takes; holds the word for it.
    Other(&'static str),
}

impl Raw {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Str(text) => Some(text),
            Self::Int(_) | Self::Bool(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    /// A list: an array of a file, or text with commas.
    fn items(&self) -> Option<Vec<Raw>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Text(text) => {
                Some(text.split(',').map(|item| Self::Text(item.trim().to_owned())).collect())
            }
            Self::Str(_) | Self::Int(_) | Self::Bool(_) | Self::Other(_) => None,
        }
    }
}

/// A type that a key may have.
pub(crate) trait Setting: Sized {
    /// Words for "expected ...".
    fn expects() -> String;
    /// Reads a value; `None` when it does not fit.
    fn read(raw: &Raw) -> Option<Self>;
    /// The value as it would stand in a file.
    fn show(&self) -> String;
    /// What a file may hold, as JSON Schema.
    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

impl Setting for bool {
    fn expects() -> String {
        "true or false".to_owned()
    }

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Bool(value) => Some(*value),
            Raw::Text(text) => text.parse().ok(),
            Raw::Str(_) | Raw::Int(_) | Raw::List(_) | Raw::Other(_) => None,
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A number of bytes, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteCount(pub(crate) u64);

const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Splits `16MiB` into number and unit and multiplies them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let number: u64 = text.get(..digits)?.replace('_', "").parse().ok()?;
    let unit = text.get(digits..)?.trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The largest unit that shows `number` without a remainder.
fn unscaled(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |factor: u64| number >= factor && number.is_multiple_of(factor);
    let (unit, factor) =
        units.iter().find(|(_, factor)| fits(*factor)).or_else(|| units.last()).unwrap_or(&("", 1));
    format!("\"{}{unit}\"", number / factor)
}

/// Text that `scaled` reads.
fn scaled_pattern(units: &[(&str, u64)]) -> String {
    let units: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
    format!("[0-9][0-9_]* *({})", units.join("|"))
}

/// Text that matches an expression as a whole.
fn pattern(expression: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{expression}$") })
}

impl ByteCount {
    /// As a size in memory, cut at what this machine can address.
    pub(crate) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for ByteCount {
    fn expects() -> String {
        "a size with its unit, such as \"16MiB\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        scaled(raw.text()?, &BYTE_UNITS).map(Self)
    }
    fn show(&self) -> String {
        unscaled(self.0, &BYTE_UNITS)
    }
    fn schema() -> Value {
        pattern(&scaled_pattern(&BYTE_UNITS))
    }
}

/// Largest first, so that a value is shown in its largest whole unit.
const TIME_UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    fn expects() -> String {
        "a time with its unit (ms, s, m, h, d), such as \"30s\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        scaled(raw.text()?, &TIME_UNITS_MS).map(Self::from_millis)
    }
    fn show(&self) -> String {
        if self.is_zero() {
            return "\"0s\"".to_owned();
        }
        unscaled(u64::try_from(self.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS_MS)
    }
    fn schema() -> Value {
        pattern(&scaled_pattern(&TIME_UNITS_MS))
    }
}

/// How long consumers may take; `None` leaves it to the type of their queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConsumerTimeout(pub(crate) Option<Duration>);

impl Setting for ConsumerTimeout {
    fn expects() -> String {
        format!("\"default\", or {}", Duration::expects())
    }
    fn read(raw: &Raw) -> Option<Self> {
        if raw.text() == Some("default") {
            return Some(Self(None));
        }
        Duration::read(raw).map(|time| Self(Some(time)))
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| quoted("default"), |time| time.show())
    }
}

/// How much memory: a share of what the process may use, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryMark {
    Percent(u8),
    Bytes(ByteCount),
}

impl Setting for MemoryMark {
    fn expects() -> String {
        "a share such as \"60%\", or a size such as \"2GiB\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        if let Some(share) = raw.text()?.strip_suffix('%') {
            let share: u8 = share.trim().parse().ok()?;
            return (1..=100).contains(&share).then_some(Self::Percent(share));
        }
        ByteCount::read(raw).map(Self::Bytes)
    }
    fn show(&self) -> String {
        match self {
            Self::Percent(share) => format!("\"{share}%\""),
            Self::Bytes(bytes) => bytes.show(),
        }
    }
    fn schema() -> Value {
        pattern(&format!("(([1-9][0-9]?|100) *%|{})", scaled_pattern(&BYTE_UNITS)))
    }
}

impl Setting for String {
    fn expects() -> String {
        "a text in quotes".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        raw.text().map(str::to_owned)
    }
    fn show(&self) -> String {
        quoted(self)
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for PathBuf {
    fn expects() -> String {
        "a path in quotes".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        raw.text().map(Self::from)
    }
    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

/// Where something is. It may hold a password, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask::urls(&self.0))
    }
}

impl Setting for Url {
    fn expects() -> String {
        "a text such as \"https://example.org/\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        raw.text().map(|text| Self(text.to_owned()))
    }
    fn show(&self) -> String {
        quoted(&mask::urls(&self.0))
    }
}

macro_rules! number {
    ($($kind:ty),*) => { $(
        impl Setting for $kind {
            fn expects() -> String {
                format!("a whole number from 0 to {}", <$kind>::MAX)
            }
            fn read(raw: &Raw) -> Option<Self> {
                match raw {
                    Raw::Int(number) => Self::try_from(*number).ok(),
                    Raw::Text(text) => text.replace('_', "").parse().ok(),
                    Raw::Str(_) | Raw::Bool(_) | Raw::List(_) | Raw::Other(_) => None,
                }
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn schema() -> Value {
                json!({ "type": "integer", "minimum": 0, "maximum": <$kind>::MAX })
            }
        }
    )* };
}
number!(u16, u32);

impl<T: Setting> Setting for Vec<T> {
    fn expects() -> String {
        format!("a list, each item {}", T::expects())
    }
    fn read(raw: &Raw) -> Option<Self> {
        raw.items()?.iter().map(T::read).collect()
    }
    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(T::show).collect();
        format!("[{}]", items.join(", "))
    }
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// Where a listener listens: `:5672`, `0.0.0.0:5672`, `[::1]:5672`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bind {
    /// `None` takes `server.default_address`.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

impl Setting for Bind {
    fn expects() -> String {
        "an address and port such as \"0.0.0.0:5672\", \"[::1]:5672\" or \":5672\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        let (address, port) = raw.text()?.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let address = if address.is_empty() { None } else { Some(address.parse().ok()?) };
        Some(Self { address, port })
    }
    fn show(&self) -> String {
        match self.address {
            Some(address) => format!("\"{}\"", std::net::SocketAddr::new(address, self.port)),
            None => format!("\":{}\"", self.port),
        }
    }
    fn schema() -> Value {
        pattern("(\\[[0-9a-fA-F:.]+\\]|[0-9.]*):[0-9]{1,5}")
    }
}

impl Setting for IpAddr {
    fn expects() -> String {
        "an IP address such as \"127.0.0.1\"".to_owned()
    }
    fn read(raw: &Raw) -> Option<Self> {
        raw.text()?.parse().ok()
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// Defines an enum whose values are words in the configuration.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $( $(#[$item:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $( $(#[$item])* $variant, )* }

        impl $name {
            const WORDS: &[(&str, Self)] = &[ $( ($word, Self::$variant), )* ];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $( Self::$variant => $word, )* })
            }
        }

        impl Setting for $name {
            fn expects() -> String {
                let words: Vec<_> =
                    Self::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            fn read(raw: &Raw) -> Option<Self> {
                let text = raw.text()?;
                Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
            }
            fn show(&self) -> String {
                format!("\"{self}\"")
            }
            fn schema() -> Value {
                let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                json!({ "type": "string", "enum": words })
            }
        }
    };
}

words! {
    /// Which engine keeps what must survive.
    Backend {
        /// A write-ahead log in the data directory.
        File = "file",
        /// Nothing survives.
        Memory = "memory",
        /// A database of PostgreSQL.
        Postgres = "postgres",
        /// A database in one file of the data directory.
        Sqlite = "sqlite",
    }
}
words! {
    /// What the confirm of a persistent message means.
    Kept {
        /// It is on the disk.
        Sync = "sync",
        /// It is in the page cache, and soon on the disk.
        Interval = "interval",
        /// It is in the page cache.
        Os = "os",
    }
}
words! {
    /// What to do about messages that are damaged on the disk.
    OnDamage {
        /// Their queue is served up to them.
        Stop = "stop",
        /// Their queue goes on behind them.
        Skip = "skip",
        /// A store that has any is not served.
        Refuse = "refuse",
    }
}
words! {
    /// A way to log in.
    Mechanism {
        Plain = "PLAIN",
        ScramSha256 = "SCRAM-SHA-256",
        ScramSha1 = "SCRAM-SHA-1",
        External = "EXTERNAL",
    }
}
words! {
    /// Whether passwords may travel in clear text.
    PlainWithoutTls {
        Allow = "allow",
        Loopback = "loopback",
        Never = "never",
    }
}

impl From<PlainWithoutTls> for PasswordsInClear {
    fn from(setting: PlainWithoutTls) -> Self {
        match setting {
            PlainWithoutTls::Allow => Self::Anywhere,
            PlainWithoutTls::Loopback => Self::Loopback,
            PlainWithoutTls::Never => Self::Nowhere,
        }
    }
}

words! {
    /// How log lines look.
    LogFormat {
        Auto = "auto",
        Text = "text",
        Json = "json",
    }
}
words! {
    /// Whether clients show a certificate.
    ClientAuth {
        None = "none",
        Optional = "optional",
        Required = "required",
    }
}
words! {
    /// The part of a client certificate that names its user.
    CertificateUser {
        CommonName = "cn",
        DnsName = "dns",
        Email = "email",
        Uri = "uri",
    }
}
words! {
    /// A protocol over WebSocket.
    WebSocketProtocol {
        Amqp = "amqp",
        Mqtt = "mqtt",
        Stomp = "stomp",
        Xmpp = "xmpp",
        Json = "json",
    }
}
words! {
    /// What a listener speaks.
    ListenerProtocol {
        /// As the listener's name says.
        ByName = "",
        Amqp = "amqp",
        Mqtt = "mqtt",
        Http = "http",
        Metrics = "metrics",
        Stomp = "stomp",
        Xmpp = "xmpp",
        /// What the first bytes of each connection say.
        Auto = "auto",
    }
}
