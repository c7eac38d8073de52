//! What a job is to do, and what is known about it: for people, and for the store.

use polymq_model::{UserName, VhostName};
use serde::{Deserialize, Serialize};

/// Refused messages that are named in a record at most.
pub(super) const REFUSED_MAX: usize = 100;

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveTo {
    /// To the end of a queue, as they are.
    Queue(String),
    /// Through an exchange, as if they were published again.
    Exchange {
        /// The exchange.
        exchange: String,
        /// The routing key; `None` keeps that of each message.
        key: Option<String>,
    },
}

/// How dead letters go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Straight to the queue in which they died last.
    #[default]
    Queue,
    /// Through the exchange, with the routing keys, by which they had come there.
    Exchange,
}

/// What is done with the chosen messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Everything that no consumer has is removed at once.
    Purge,
    /// They are removed.
    Delete,
    /// They go elsewhere.
    Move(MoveTo),
    /// Copies go elsewhere.
    Copy(MoveTo),
    /// Dead letters go back to where they died.
    Retry(Via),
}

impl Work {
    /// The word for people and tools.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Delete => "delete",
            Self::Move(_) => "move",
            Self::Copy(_) => "copy",
            Self::Retry(_) => "retry",
        }
    }
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The virtual host.
    #[serde(with = "as_text")]
    pub vhost: VhostName,
    /// The queue whose messages are chosen.
    pub queue: String,
    /// What is done with them.
    pub work: Work,
    /// Their positions. Without any, `filter` and `limit` choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seqs: Vec<u64>,
    /// Only messages of which this is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The most messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most messages a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It has not begun.
    Queued,
    /// It is at work.
    Running,
    /// It has done everything.
    Done,
    /// It ended with an error.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// The broker ended while it was at work.
    Interrupted,
}

impl JobState {
    /// True when it goes on no more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// A message that stayed where it was, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedMessage {
    /// Its position.
    pub seq: u64,
    /// A lower-case sentence.
    pub reason: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its number, which is its own for ever.
    pub id: u64,
    /// What it is to do.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: JobState,
    /// Who wanted it.
    pub by: String,
    /// When it was wanted, in ms since 1970.
    pub created_ms: u64,
    /// When it began, in ms since 1970; 0 before that.
    #[serde(default)]
    pub started_ms: u64,
    /// When it ended, in ms since 1970; 0 before that.
    #[serde(default)]
    pub finished_ms: u64,
    /// Messages that it has done its work with.
    #[serde(default)]
    pub done: u64,
    /// About how many it has to look at; `None` when nobody knows.
    #[serde(default)]
    pub total: Option<u64>,
    /// Messages that it has looked at.
    #[serde(default)]
    pub scanned: u64,
    /// Messages that stayed where they were, because their target did not take them.
    #[serde(default)]
    pub refused: u64,
    /// The first of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_messages: Vec<RefusedMessage>,
    /// Messages that were gone before it came to them.
    #[serde(default)]
    pub missed: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JobRecord {
    pub(super) fn new(id: u64, spec: JobSpec, by: &UserName, created_ms: u64) -> Self {
        Self {
            id,
            spec,
            state: JobState::Queued,
            by: by.as_str().to_owned(),
            created_ms,
            started_ms: 0,
            finished_ms: 0,
            done: 0,
            total: None,
            scanned: 0,
            refused: 0,
            refused_messages: Vec::new(),
            missed: 0,
            error: None,
        }
    }

    pub(super) fn note_refused(&mut self, seq: u64, reason: String) {
        self.refused += 1;
        if self.refused_messages.len() < REFUSED_MAX {
            self.refused_messages.push(RefusedMessage { seq, reason });
        }
    }

    pub(super) fn end(&mut self, state: JobState, now_ms: u64) {
        self.state = state;
        self.finished_ms = now_ms;
    }
}

/// A name of a virtual host as text.
mod as_text {
    use polymq_model::VhostName;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(name: &VhostName, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<VhostName, D::Error> {
        VhostName::new(String::deserialize(input)?).map_err(D::Error::custom)
    }
}
