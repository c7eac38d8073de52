//! From the protocol header to `open-ok`.

use std::time::Duration;

use amq_protocol::{
    protocol::connection::{
        AMQPMethod, OpenOk, Start, StartOk, Tune, TuneOk, UpdateSecret, UpdateSecretOk,
    },
    types::{AMQPValue, FieldTable},
};
use bytes::{Buf, BytesMut};
use polymq_contract::{Answer, Command, Effects, Introduction, Login, Refusal, Secret};
use polymq_model::{Now, Table, Value, value::find};

use crate::{
    codec::{cold, frame::FRAME_BYTES_MIN, id, table},
    connection::{Capabilities, Purpose, put_method},
    refusal::{Exception, ReplyCode, Step},
    session::{Phase, Session},
};

/// What a client of this protocol sends first, and what others are answered with.
pub(crate) const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

const LOCALE: &str = "en_US";

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

impl Session {
    /// Takes the protocol header. Any other is answered with ours, as the specification asks
    /// (section 4.2.2).
    pub(crate) fn on_header(&mut self, input: &mut BytesMut, effects: &mut Effects) {
        let seen = input.get(..PROTOCOL_HEADER.len().min(input.len())).unwrap_or_default();
        if !PROTOCOL_HEADER.starts_with(seen) {
            effects.out.buffer().extend_from_slice(&PROTOCOL_HEADER);
            return self.close(effects, "protocol_error", "the peer does not speak AMQP 0-9-1");
        }
        if seen.len() < PROTOCOL_HEADER.len() {
            return;
        }
        input.advance(PROTOCOL_HEADER.len());
        self.phase = Phase::Start;
        put_method(effects.out.frame(), AMQPMethod::Start(self.start()));
    }

    fn start(&self) -> Start {
        let peer = &self.connection.peer;
        let has_certificate = peer.tls.as_ref().is_some_and(|tls| tls.certificate_user.is_some());
        let settings = &self.connection.shared.settings;
        let offered = settings.offer.now();
        let passwords: &[&str] = if offered.plain_for(peer) { &["PLAIN", "AMQPLAIN"] } else { &[] };
        let is_external = (offered.external && has_certificate) || peer.is_known();
        let external: &[&str] = if is_external { &["EXTERNAL"] } else { &[] };
        let mechanisms = [passwords, external].concat().join(" ");
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES {
            capabilities.insert(cold::short(name), AMQPValue::Boolean(true));
        }
        let mut properties = FieldTable::default();
        properties.insert(cold::short("capabilities"), AMQPValue::FieldTable(capabilities));
        for (name, text) in [
            ("product", "PolyMQ"),
            ("version", settings.version.as_str()),
            ("platform", "Rust"),
            ("information", "Licensed under the Apache License 2.0"),
            ("cluster_name", settings.cluster_name.as_str()),
        ] {
            properties.insert(cold::short(name), AMQPValue::LongString(text.into()));
        }
        Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: mechanisms.as_str().into(),
            locales: LOCALE.into(),
        }
    }

    /// A method of class `connection` that is valid in one phase only.
    pub(crate) fn on_handshake(
        &mut self,
        class: AMQPMethod,
        table: Table,
        method: (u16, u16),
        now: Now,
        effects: &mut Effects,
    ) -> Step {
        match (self.phase, class) {
            (Phase::Start, AMQPMethod::StartOk(ok)) => self.on_start_ok(&ok, &table, effects),
            (Phase::Tune, AMQPMethod::TuneOk(ok)) => self.on_tune_ok(&ok, now),
            (Phase::Open, AMQPMethod::Open(open)) => {
                let vhost = open.virtual_host.as_str();
                let vhost = (!vhost.is_empty()).then(|| vhost.to_owned());
                let introduction = std::mem::take(&mut self.connection.introduction);
                effects.commands.push(Command::Introduce(Box::new(introduction)));
                let request = self.connection.expect(Purpose::OpenVhost, method);
                effects.commands.push(Command::OpenVhost { request, vhost });
                Ok(())
            }
            (phase, _) => {
                let code = match phase {
                    Phase::Running => ReplyCode::ChannelError,
                    _ => ReplyCode::CommandInvalid,
                };
                let text = format!("unexpected method in connection state {phase:?}");
                Err(Exception::new(code, method, text))
            }
        }
    }

    fn on_start_ok(&mut self, ok: &StartOk, properties: &Table, effects: &mut Effects) -> Step {
        self.connection.capabilities = capabilities(properties);
        let mechanism = ok.mechanism.as_str();
        self.connection.introduction = Introduction {
            protocol: "AMQP 0-9-1",
            mechanism: mechanism.to_owned(),
            client_properties: properties.clone(),
            ..Introduction::default()
        };
        let response = ok.response.as_bytes();
        let login = match mechanism {
            "PLAIN" => plain(response).map_err(|identity| {
                let text = format!("'{identity}' is not the user whose password this is");
                Exception::new(ReplyCode::AccessRefused, id::START_OK, text)
            })?,
            "AMQPLAIN" => amqplain(response, self.connection.login_table_bounds()),
            "EXTERNAL" => String::from_utf8(response.to_vec())
                .ok()
                .map(|identity| Login::Certificate { identity }),
            other => {
                let text = format!("unknown authentication mechanism '{other}'");
                return Err(Exception::new(ReplyCode::CommandInvalid, id::START_OK, text));
            }
        };
        let Some(login) = login else {
            let text = format!("malformed {mechanism} response");
            return Err(Exception::new(ReplyCode::SyntaxError, id::START_OK, text));
        };
        self.phase = Phase::Authenticate;
        let request = self.connection.expect(Purpose::Authenticate, id::START_OK);
        effects.commands.push(Command::Authenticate { request, login: Box::new(login) });
        Ok(())
    }

    /// The answer to the login.
    pub(crate) fn on_authenticated(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        match answer {
            Ok(Answer::Authenticated { user, impersonator, .. }) => {
                user.as_str().clone_into(&mut self.connection.user);
                self.connection.impersonator = impersonator;
                self.phase = Phase::Tune;
                put_method(effects.out.frame(), AMQPMethod::Tune(self.tune()));
            }
            Ok(_) => {
                let text = "the login did not complete";
                let exception = Exception::new(ReplyCode::InternalError, id::START_OK, text);
                self.refuse_connection(&exception, now, effects);
            }
            // The capability exists because older clients take a close in this phase for a protocol
            // error.
            Err(refusal) if self.connection.capabilities.authentication_failure_close => {
                let exception = Exception::refused(&refusal, (0, 0));
                self.refuse_connection(&exception, now, effects);
            }
            Err(refusal) => self.close(effects, "login_failed", refusal.text),
        }
    }

    /// The client shows a new token before its old one ends (RabbitMQ's extension).
    pub(crate) fn on_update_secret(&mut self, update: &UpdateSecret, effects: &mut Effects) {
        let method = id::CONNECTION_UPDATE_SECRET;
        let request = self.connection.expect(Purpose::UpdateSecret, method);
        let password = Secret::new(update.new_secret.as_bytes());
        let login = Login::Password { user: self.connection.user.clone(), password };
        effects.commands.push(Command::Authenticate { request, login: Box::new(login) });
    }

    pub(crate) fn on_secret_updated(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Err(refusal) = answer else {
            return put_method(effects.out.frame(), AMQPMethod::UpdateSecretOk(UpdateSecretOk {}));
        };
        let text = format!("new secret was refused: {}", refusal.text);
        let method = id::CONNECTION_UPDATE_SECRET;
        let exception = Exception::new(ReplyCode::NotAllowed, method, text);
        self.refuse_connection(&exception, now, effects);
    }

    fn tune(&self) -> Tune {
        let limits = &self.connection.limits;
        Tune {
            channel_max: limits.channels_max,
            frame_max: limits.amqp_frame_bytes_max.max(FRAME_BYTES_MIN),
            heartbeat: u16::try_from(limits.heartbeat.as_secs()).unwrap_or(u16::MAX),
        }
    }

    fn on_tune_ok(&mut self, ok: &TuneOk, now: Now) -> Step {
        let ours = self.tune();
        let frame_max = negotiated("frame_max", ok.frame_max, FRAME_BYTES_MIN, ours.frame_max)?;
        let channel_max =
            negotiated("channel_max", ok.channel_max.into(), 1, ours.channel_max.into())?;
        self.connection.channel_max = u16::try_from(channel_max).unwrap_or(u16::MAX);
        self.agreed_frame_max(frame_max);
        let introduction = &mut self.connection.introduction;
        introduction.channels_max = self.connection.channel_max;
        introduction.frame_bytes_max = frame_max;
        introduction.heartbeat_secs = ok.heartbeat.into();
        let interval = Duration::from_secs(ok.heartbeat.into());
        self.connection.heartbeat.start(interval, now.instant);
        self.phase = Phase::Open;
        Ok(())
    }

    /// Frames stay small until the virtual host is open; the agreed size is kept for then.
    fn agreed_frame_max(&mut self, frame_max: u32) {
        self.connection.agreed_frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
    }

    /// The answer to `connection.open`.
    pub(crate) fn on_vhost_opened(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        match answer {
            Ok(_) => {
                self.phase = Phase::Running;
                self.deadline = None;
                self.connection.frame_max = self.connection.agreed_frame_max;
                effects.logged_in = true;
                put_method(effects.out.frame(), AMQPMethod::OpenOk(OpenOk {}));
            }
            Err(refusal) => {
                let exception = Exception::refused(&refusal, id::CONNECTION_OPEN);
                self.refuse_connection(&exception, now, effects);
            }
        }
    }
}

/// The value a client chose, which must not leave what was offered.
fn negotiated(field: &str, chosen: u32, min: u32, offered: u32) -> Step<u32> {
    let refuse = |text| Err(Exception::new(ReplyCode::NotAllowed, (10, 31), text));
    if offered == 0 {
        // Zero offers any value, and zero as an answer takes the largest.
        return Ok(if chosen == 0 { u32::MAX } else { chosen.max(min) });
    }
    if chosen != 0 && chosen < min {
        return refuse(format!(
            "negotiated {field} = {chosen} is lower than the minimum allowed value ({min})"
        ));
    }
    if chosen == 0 || chosen > offered {
        return refuse(format!(
            "negotiated {field} = {chosen} is higher than the maximum allowed value ({offered})"
        ));
    }
    Ok(chosen)
}

fn capabilities(properties: &Table) -> Capabilities {
    let Some(Value::Map(said)) = find(properties, "capabilities") else {
        return Capabilities::default();
    };
    let has = |name| find(said, name).and_then(Value::as_bool) == Some(true);
    Capabilities {
        authentication_failure_close: has("authentication_failure_close"),
        consumer_cancel_notify: has("consumer_cancel_notify"),
        connection_blocked: has("connection.blocked"),
    }
}

/// RFC 4616: authorisation identity, user and password, divided by NUL; `None` when malformed.
///
/// Errors: the identity, when it is another one than the user.
fn plain(response: &[u8]) -> Result<Option<Login>, String> {
    let mut parts = response.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(identity), Some(user)) = (part(), part()) else { return Ok(None) };
    if !identity.is_empty() && identity != user {
        return Err(identity.to_owned());
    }
    Ok(parts
        .next()
        .map(|password| Login::Password { user: user.to_owned(), password: Secret::new(password) }))
}

/// RabbitMQ's own mechanism: a table without length, holding `LOGIN` and `PASSWORD`.
fn amqplain(response: &[u8], bounds: table::TableBounds) -> Option<Login> {
    let fields = table::decode(response, bounds).ok()?;
    let user = find(&fields, "LOGIN")?.as_str()?.to_owned();
    let password = match find(&fields, "PASSWORD")? {
        Value::String(text) => Secret::new(text.as_bytes()),
        Value::LongString(bytes) => Secret::new(bytes.as_slice()),
        _ => return None,
    };
    Some(Login::Password { user, password })
}
