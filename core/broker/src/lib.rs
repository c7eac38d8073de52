//! The broker: routing, exchanges, queues, retained messages, client sessions, permissions.
//!
//! It knows no protocol and no storage engine, opens no socket and no file, and reads no clock: the
//! present and random bytes are handed in. Commands of connections come in by plain calls and
//! events leave by their outboxes.
#![forbid(unsafe_code)]

pub mod access;
mod admin;
mod bans;
mod blocking;
mod broker;
mod browse;
mod chance;
mod client_session;
mod connection;
mod conversion;
mod core;
mod counters;
mod dead_letters;
mod declare;
mod definitions;
mod explain;
mod hash;
mod jobs;
mod login;
mod mailbox;
mod management;
mod policies;
mod preview;
mod publishing;
mod queue;
mod recover;
mod retained;
mod rights;
mod routing;
mod schedule;
mod statistics;
mod stored_message;
mod tenants;
mod tick;
mod tokens;
mod topology;
mod trace;
mod vhost;
mod vhost_deletion;
mod view;

pub use access::{
    Access, Credentials, Grant, PermissionQuestion, PermissionRecord, Principal, Role, Tags,
    TopicPermissionRecord, TopicSyntax, UserRecord, Verdict,
};
pub use bans::{Ban, BanTarget, BanView};
pub use broker::{BrokerHandle, QueueView};
pub use browse::{BROWSE_MESSAGES_MAX, Browse, BrowseFrom, Browsed, BrowsedMessage, MessageFields};
pub use core::{Entropy, Parts};
pub use counters::{Counters, PROTOCOLS, ProtocolCounters, SIZE_BOUNDS, TotalCounters};
pub use dead_letters::{DeadLetterGroup, DeadLetters};
pub use declare::QueueChange;
pub use explain::{Explained, Step};
pub use jobs::{
    JobPreview, JobRecord, JobSpec, JobState, JobStep, MoveTo, RefusedMessage, Via, Work,
};
pub use login::{AcceptEverybody, Authenticator, Conversation, HashReply, LoginReply, LoginStep};
pub use management::{
    AuditEntry, AuditResult, AuditSink, Definition, Difference, Effect, Import, ImportPlan,
    Manager, NewBinding, PermissionView, TopicPermissionView, UserChange, UserView,
};
pub use policies::{ApplyTo, PolicyKind, PolicyRecord};
pub use preview::PolicyMatches;
pub use queue::{MessageState, QueueCounts};
pub use recover::Recovered;
pub use retained::Amount as RetainedAmount;
pub use schedule::{ScheduledAt, ScheduledRights, ScheduledView};
pub use statistics::{Activity, Sample, Span, Summary};
pub use tenants::{UserLimits, VhostLimits, VhostRecord, VhostView, limit_from};
pub use tokens::{NewToken, TOKEN_PREFIX, TokenView};
pub use trace::{NewTrace, TraceEvent, TraceFilter, TraceView};
pub use view::{
    BindingView, ChannelView, ConnectionRef, ConnectionTotals, ConsumerView, ExchangeView,
    QueueDetails, QueueList, QueueRef, UnackedView,
};
