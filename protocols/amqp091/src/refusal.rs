//! How a no is told: reply codes, exceptions, and the one table from [`RefusalKind`] to them.

use amq_protocol::protocol::{AMQPHardError, AMQPSoftError};
use polymq_contract::{Refusal, RefusalKind};
use polymq_model::limits::RAISE_LOGIN_SIZE;

use crate::{
    codec::{cold::MethodError, frame::FrameError, id, reader::Malformed, table::TableError},
    session::Phase,
};

/// A reply code of the specification, section 1.2 of its XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyCode {
    /// 403, channel.
    AccessRefused,
    /// 404, channel.
    NotFound,
    /// 405, channel.
    ResourceLocked,
    /// 406, channel.
    PreconditionFailed,
    /// 320, connection.
    ConnectionForced,
    /// 501, connection.
    FrameError,
    /// 502, connection.
    SyntaxError,
    /// 503, connection.
    CommandInvalid,
    /// 504, connection.
    ChannelError,
    /// 505, connection.
    UnexpectedFrame,
    /// 506, connection.
    ResourceError,
    /// 530, connection.
    NotAllowed,
    /// 540, connection.
    NotImplemented,
    /// 541, connection.
    InternalError,
}

impl ReplyCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::AccessRefused => AMQPSoftError::ACCESSREFUSED.get_id(),
            Self::NotFound => AMQPSoftError::NOTFOUND.get_id(),
            Self::ResourceLocked => AMQPSoftError::RESOURCELOCKED.get_id(),
            Self::PreconditionFailed => AMQPSoftError::PRECONDITIONFAILED.get_id(),
            Self::ConnectionForced => AMQPHardError::CONNECTIONFORCED.get_id(),
            Self::FrameError => AMQPHardError::FRAMEERROR.get_id(),
            Self::SyntaxError => AMQPHardError::SYNTAXERROR.get_id(),
            Self::CommandInvalid => AMQPHardError::COMMANDINVALID.get_id(),
            Self::ChannelError => AMQPHardError::CHANNELERROR.get_id(),
            Self::UnexpectedFrame => AMQPHardError::UNEXPECTEDFRAME.get_id(),
            Self::ResourceError => AMQPHardError::RESOURCEERROR.get_id(),
            Self::NotAllowed => AMQPHardError::NOTALLOWED.get_id(),
            Self::NotImplemented => AMQPHardError::NOTIMPLEMENTED.get_id(),
            Self::InternalError => AMQPHardError::INTERNALERROR.get_id(),
        }
    }

    /// The word that reply texts begin with.
    pub fn word(self) -> &'static str {
        match self {
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// True when it closes the connection and not only the channel.
    pub fn is_hard(self) -> bool {
        !matches!(
            self,
            Self::AccessRefused | Self::NotFound | Self::ResourceLocked | Self::PreconditionFailed
        )
    }
}

/// Something the peer did wrong, or was refused: closes the channel, or the connection when the
/// code is hard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) code: ReplyCode,
    pub(crate) text: String,
    /// Class and method that caused it, zeros when none did.
    pub(crate) method: (u16, u16),
}

/// What handling a frame comes to.
pub(crate) type Step<T = ()> = Result<T, Box<Exception>>;

impl Exception {
    pub(crate) fn new(code: ReplyCode, method: (u16, u16), text: impl Into<String>) -> Box<Self> {
        Box::new(Self { code, text: text.into(), method })
    }

    /// An argument has a wrong value: 406.
    pub(crate) fn invalid(method: (u16, u16), text: impl Into<String>) -> Box<Self> {
        Self::new(ReplyCode::PreconditionFailed, method, text)
    }

    /// The broker said no to `method`.
    pub(crate) fn refused(refusal: &Refusal, method: (u16, u16)) -> Box<Self> {
        Self::new(code_of(refusal.kind, method), method, refusal.text.clone())
    }

    /// The same, in a place where only the connection can be closed.
    pub(crate) fn on_connection(mut self: Box<Self>) -> Box<Self> {
        if !self.code.is_hard() {
            self.code = ReplyCode::ChannelError;
        }
        self
    }

    /// The input is no frame.
    pub(crate) fn frame(error: FrameError, phase: Phase) -> Box<Self> {
        let mut text = error.to_string();
        let is_known = matches!(phase, Phase::Running | Phase::Closing);
        if !is_known && matches!(error, FrameError::TooLarge { .. }) {
            text.push_str(RAISE_LOGIN_SIZE);
        }
        Self::new(ReplyCode::FrameError, (0, 0), text)
    }

    pub(crate) fn method(error: MethodError, method: (u16, u16)) -> Box<Self> {
        let code = match error {
            MethodError::Unknown { .. } => ReplyCode::CommandInvalid,
            MethodError::Malformed => ReplyCode::FrameError,
            MethodError::NotText => ReplyCode::PreconditionFailed,
            MethodError::Table(_) => ReplyCode::SyntaxError,
        };
        Self::new(code, method, error.to_string())
    }

    pub(crate) fn table(error: TableError, method: (u16, u16)) -> Box<Self> {
        Self::new(ReplyCode::SyntaxError, method, error.to_string())
    }

    pub(crate) fn malformed(_: Malformed, method: (u16, u16)) -> Box<Self> {
        Self::new(ReplyCode::FrameError, method, "malformed method frame")
    }

    /// The reply text as it stands in the closing method.
    pub(crate) fn reply_text(&self) -> String {
        format!("{} - {}", self.code.word(), self.text)
    }
}

const OPEN: (u16, u16) = (10, 40);
const CHANNEL_OPEN: (u16, u16) = (20, 10);

/// The table: kind of refusal, and the method that was refused, to reply code.
pub(crate) fn code_of(kind: RefusalKind, method: (u16, u16)) -> ReplyCode {
    match kind {
        RefusalKind::StoreFailed => ReplyCode::InternalError,
        RefusalKind::LoginFailed | RefusalKind::TooManyLogins | RefusalKind::Banned => {
            ReplyCode::AccessRefused
        }
        // A virtual host that is missing, closed to the user or full: RabbitMQ answers all with
        // 530.
        _ if method == OPEN => ReplyCode::NotAllowed,
        // One channel too many costs the connection, as a channel that does not exist must.
        RefusalKind::Limit if method == CHANNEL_OPEN => ReplyCode::NotAllowed,
        RefusalKind::NotFound => ReplyCode::NotFound,
        RefusalKind::Denied | RefusalKind::Reserved => ReplyCode::AccessRefused,
        RefusalKind::Locked => ReplyCode::ResourceLocked,
        // A publish without confirms waited for room in vain. There is no other way to tell.
        RefusalKind::Full if method == id::PUBLISH => ReplyCode::ResourceError,
        // An argument that is not available yet costs the channel only.
        RefusalKind::NotAvailable if takes_arguments(method) => ReplyCode::PreconditionFailed,
        RefusalKind::NotAvailable => ReplyCode::NotImplemented,
        RefusalKind::Conflict
        | RefusalKind::Invalid
        | RefusalKind::Limit
        | RefusalKind::Full
        | RefusalKind::TooLarge => ReplyCode::PreconditionFailed,
    }
}

fn takes_arguments(method: (u16, u16)) -> bool {
    matches!(method, (40, 10 | 30 | 40) | (50, 10 | 20 | 50) | (60, 20 | 40))
}
