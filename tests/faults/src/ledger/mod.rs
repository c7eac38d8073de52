//! What every client saw, as records of 40 bytes, and the checker that judges them.
//!
//! ```text
//! kind u8 | protocol u8 | flags u16 | producer u32 | n u64 | queue u32 | connection u32
//! time_ns u64 | value u64
//! ```
//!
//! All numbers are little-endian. Records live in memory, in a process that no case kills, and are
//! written to a file when a case fails.

mod body;
mod checker;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub use body::{BadBody, Body};
pub use checker::{Counted, Findings, Plan, check};

/// Bytes of a record.
pub const RECORD_BYTES: usize = 40;
/// Flag of a delivery: the broker says that it may have been delivered before.
pub const REDELIVERED: u16 = 1;
/// Flag of a delivery: its body is not one of ours.
pub const DAMAGED: u16 = 2;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A publisher is about to send.
    Sent,
    /// The broker confirmed.
    Confirmed,
    /// The broker refused.
    Refused,
    /// The connection was lost before an answer.
    Unknown,
    /// A consumer got it.
    Delivered,
    /// A consumer is about to acknowledge it.
    Acked,
    /// The broker has promised that the acknowledgement stands.
    AckDurable,
    /// The runner is about to do harm.
    Fault,
    /// The broker is ready again.
    Ready,
}

impl Kind {
    const ALL: [(Self, u8); 9] = [
        (Self::Sent, b's'),
        (Self::Confirmed, b'c'),
        (Self::Refused, b'n'),
        (Self::Unknown, b'u'),
        (Self::Delivered, b'd'),
        (Self::Acked, b'a'),
        (Self::AckDurable, b'k'),
        (Self::Fault, b'f'),
        (Self::Ready, b'r'),
    ];

    fn letter(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(b'?', |(_, letter)| *letter)
    }

    fn of(letter: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == letter).map(|(kind, _)| *kind)
    }
}

/// The protocol a client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Protocol {
    /// The runner itself.
    #[default]
    None = 0,
    /// AMQP 0-9-1.
    Amqp = 1,
    /// MQTT.
    Mqtt = 2,
    /// STOMP.
    Stomp = 3,
    /// XMPP.
    Xmpp = 4,
    /// HTTP.
    Http = 5,
}

impl Protocol {
    /// All of them, at the places of their numbers.
    const ALL: [Self; 6] =
        [Self::None, Self::Amqp, Self::Mqtt, Self::Stomp, Self::Xmpp, Self::Http];
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub protocol: Protocol,
    /// [`REDELIVERED`] and [`DAMAGED`].
    pub flags: u16,
    /// Who published the message.
    pub producer: u32,
    /// Its number for that producer, from 1.
    pub n: u64,
    /// Where it was delivered; 0 for publishers.
    pub queue: u32,
    /// The connection, unique in a run.
    pub connection: u32,
    /// Since the run began.
    pub time_ns: u64,
    /// The life of the broker, from 1, for deliveries, acknowledgements and faults.
    pub value: u64,
}

impl Record {
    /// A record of nothing but its kind.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            protocol: Protocol::None,
            flags: 0,
            producer: 0,
            n: 0,
            queue: 0,
            connection: 0,
            time_ns: 0,
            value: 0,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        let fields = [
            &[self.kind.letter(), self.protocol as u8][..],
            &self.flags.to_le_bytes(),
            &self.producer.to_le_bytes(),
            &self.n.to_le_bytes(),
            &self.queue.to_le_bytes(),
            &self.connection.to_le_bytes(),
            &self.time_ns.to_le_bytes(),
            &self.value.to_le_bytes(),
        ];
        for (slot, byte) in out.iter_mut().zip(fields.concat()) {
            *slot = byte;
        }
        out
    }

    /// Reads it back; `None` for bytes that are no record.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let u32_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        let [kind, protocol, low, high, ..] = *bytes;
        Some(Self {
            kind: Kind::of(kind)?,
            protocol: *Protocol::ALL.get(usize::from(protocol))?,
            flags: u16::from_le_bytes([low, high]),
            producer: u32_at(4)?,
            n: u64_at(8)?,
            queue: u32_at(16)?,
            connection: u32_at(20)?,
            time_ns: u64_at(24)?,
            value: u64_at(32)?,
        })
    }
}

/// The records of a run, written by many threads, in the order of their times.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    records: Mutex<Vec<Record>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { began: Instant::now(), records: Mutex::default() }
    }
}

impl Ledger {
    /// Adds a record and gives it its time.
    pub fn write(&self, record: Record) {
        self.write_all([record]);
    }

    /// Adds records that happen together.
    pub fn write_all(&self, records: impl IntoIterator<Item = Record>) {
        let mut kept = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let since = self.began.elapsed().as_nanos();
        let time_ns = u64::try_from(since).unwrap_or(u64::MAX);
        kept.extend(records.into_iter().map(|record| Record { time_ns, ..record }));
    }

    /// A copy of what has been written.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the records to a file.
    ///
    /// Errors: those of the file.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let bytes: Vec<u8> = self.records().iter().flat_map(Record::encode).collect();
        std::fs::write(path, bytes)
    }
}
