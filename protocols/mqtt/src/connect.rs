//! From CONNECT to CONNACK: sections 3.1, 3.2 and 4.12.

use bytes::{BufMut, BytesMut};
use polymq_contract::{
    Answer, Command, Effects, Introduction, Login, OpenClientSession, Refusal, Scram, Secret,
};
use polymq_model::Now;

use crate::{
    ask::Ask,
    client::Client,
    codec::{
        Fault, Header, PacketKind, Reason, Version,
        ack::{Auth, Disconnect},
        connack::{Granted, put_connack_3, put_connack_5},
        connect::{Connect, ConnectProperties},
        property::id,
        writer::{Properties, put_reason, reason_string},
    },
    refusal::{Codes, codes},
    session::{Phase, Session},
    will::PendingWill,
};

/// The one method of enhanced authentication.
pub(crate) const SCRAM: &str = "SCRAM-SHA-256";

/// What is kept of CONNECT until CONNACK.
#[derive(Debug)]
pub(crate) struct Connecting {
    clean_start: bool,
    keep_alive_secs: u16,
    vhost: Option<String>,
    session_expiry_asked: u32,
    receive_max: Option<u16>,
    topic_alias_max: u16,
    wants_response_topic: bool,
    will: Option<PendingWill>,
    /// The client's next AUTH is due.
    awaits_auth: bool,
    /// The client's first message of SCRAM has gone to the broker.
    has_begun: bool,
    /// Last message of the server in an enhanced authentication.
    server_final: Vec<u8>,
}

impl Session {
    /// CONNECT.
    pub(crate) fn on_connect(
        &mut self,
        header: &Header,
        body: &[u8],
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let packet = match Connect::decode(body, self.entries_max()) {
            Ok(packet) => packet,
            Err(wrong) => {
                let Some(version) = wrong.version else { return Err(wrong.fault) };
                self.shared.counters.faults.add(1);
                let text = wrong.fault.text;
                self.refuse_connect(version, wrong.fault.reason, &text, effects);
                return Ok(());
            }
        };
        self.client.version = packet.version;
        self.client.wants_problems = packet.properties.request_problem;
        // Also a refusal must fit [MQTT-3.2.2-19].
        let packet_bytes_max = packet.properties.packet_bytes_max.unwrap_or(u32::MAX);
        self.client.packet_bytes_max = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        let checked = header.check(packet.version);
        if let Err(fault) = checked.and_then(|()| self.take_connect(&packet, now, effects)) {
            self.shared.counters.faults.add(1);
            self.refuse_connect(packet.version, fault.reason, &fault.text, effects);
        }
        Ok(())
    }

    fn take_connect(
        &mut self,
        packet: &Connect<'_>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        self.check_client_id(packet)?;
        let properties = &packet.properties;
        let expiry_asked = match packet.version {
            Version::V5 => properties.session_expiry_secs,
            // A session of MQTT 3 that is not clean has no end of its own.
            Version::V31 | Version::V311 if packet.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        let will = packet.will.as_ref().map(|will| self.take_will(will)).transpose()?.flatten();
        let (vhost, user) = split_user(packet.user);
        self.client = Client {
            version: packet.version,
            id: packet.client_id.to_owned(),
            user: user.unwrap_or_default().to_owned(),
            impersonator: false,
            packet_bytes_max: self.client.packet_bytes_max,
            wants_problems: properties.request_problem,
            auth_method: properties.auth_method.map(ToOwned::to_owned),
            session_expiry_secs: expiry_asked.min(self.limits.session_expiry_max_secs),
        };
        let mut connecting = Connecting {
            clean_start: packet.clean_start,
            keep_alive_secs: packet.keep_alive_secs,
            vhost: vhost.map(ToOwned::to_owned),
            session_expiry_asked: expiry_asked,
            receive_max: properties.receive_max,
            topic_alias_max: properties.topic_alias_max,
            wants_response_topic: properties.request_response,
            will,
            awaits_auth: false,
            has_begun: false,
            server_final: Vec::new(),
        };
        match self.first_login(packet, user)? {
            Some(login) => {
                connecting.has_begun = true;
                self.authenticate(login, Ask::Login, effects);
            }
            None => {
                connecting.awaits_auth = true;
                self.put_auth(Reason::CONTINUE_AUTHENTICATION, &[], effects);
            }
        }
        self.keep_alive.packet_came(now.instant);
        self.phase = Phase::Connecting(Box::new(connecting));
        Ok(())
    }

    fn check_client_id(&self, packet: &Connect<'_>) -> Result<(), Fault> {
        let (id, max) = (packet.client_id, self.limits.client_id_bytes_max);
        if id.len() > max {
            let text = format!("a client identifier has at most {max} bytes, not {}", id.len());
            return Err(Fault::new(Reason::CLIENT_ID_INVALID, text));
        }
        // [MQTT-3.1.3-8] of version 3.1.1; version 3.1 demands at least one character. Its upper
        // bound of 23 is commonly passed over by clients, and so it is here.
        let may_be_empty = match packet.version {
            Version::V31 => false,
            Version::V311 => packet.clean_start,
            Version::V5 => true,
        };
        if id.is_empty() && !may_be_empty {
            let text = "an empty client identifier needs a clean session of MQTT 3.1.1 or later";
            return Err(Fault::new(Reason::CLIENT_ID_INVALID, text));
        }
        Ok(())
    }

    /// The first step of the login; `None` when the client's first message is to be asked for.
    fn first_login(
        &self,
        packet: &Connect<'_>,
        user: Option<&str>,
    ) -> Result<Option<Login>, Fault> {
        let ConnectProperties { auth_method, auth_data, .. } = packet.properties;
        match (auth_method, auth_data) {
            (Some(SCRAM), _) if !self.shared.offer.now().scram_sha_256 => {
                let text = "SCRAM-SHA-256 is switched off";
                return Err(Fault::new(Reason::BAD_AUTHENTICATION_METHOD, text));
            }
            (Some(SCRAM), Some(data)) => {
                return Ok(Some(Login::ScramFirst {
                    scram: Scram::SHA256,
                    message: Secret::new(data),
                }));
            }
            (Some(SCRAM), None) => return Ok(None),
            (Some(_), _) => {
                let text = "the one authentication method is SCRAM-SHA-256";
                return Err(Fault::new(Reason::BAD_AUTHENTICATION_METHOD, text));
            }
            (None, _) => {}
        }
        let certificate = self.peer.tls.as_ref().is_some_and(|tls| tls.certificate_user.is_some());
        Ok(Some(match (user, packet.password) {
            (None, None) if certificate => Login::Certificate { identity: String::new() },
            (None, None) => Login::Anonymous,
            (user, password) => Login::Password {
                user: user.unwrap_or_default().to_owned(),
                password: Secret::new(password.unwrap_or_default()),
            },
        }))
    }

    pub(crate) fn authenticate(&mut self, login: Login, ask: Ask, effects: &mut Effects) {
        let request = self.asked.ask(ask);
        effects.commands.push(Command::Authenticate { request, login: Box::new(login) });
    }

    /// Sends AUTH.
    pub(crate) fn put_auth(&mut self, reason: Reason, data: &[u8], effects: &mut Effects) {
        let mut properties = Properties::default();
        let method = self.client.auth_method.as_deref().unwrap_or(SCRAM);
        properties.binary(id::AUTHENTICATION_METHOD, method.as_bytes());
        if !data.is_empty() {
            properties.binary(id::AUTHENTICATION_DATA, data);
        }
        let mut packet = BytesMut::new();
        put_reason(&mut packet, PacketKind::Auth, reason, &properties);
        self.put_answer(&packet, effects);
    }

    /// Sends an answer, or ends the connection of a client that takes no packet as large as that
    /// [MQTT-3.1.2-24].
    pub(crate) fn put_answer(&mut self, packet: &[u8], effects: &mut Effects) {
        if packet.len() <= self.client.packet_bytes_max {
            effects.out.frame().put_slice(packet);
            return;
        }
        let text = format!(
            "an answer of {} bytes is due, and the client takes at most {}",
            packet.len(),
            self.client.packet_bytes_max
        );
        self.disconnect(Reason::PACKET_TOO_LARGE, "packet_too_large", &text, effects);
    }

    /// A packet between CONNECT and CONNACK: only AUTH and DISCONNECT may come.
    pub(crate) fn on_packet_before_connack(
        &mut self,
        header: &Header,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let entries_max = self.entries_max();
        let Phase::Connecting(connecting) = &mut self.phase else { return Ok(()) };
        match header.kind {
            PacketKind::Disconnect => {
                Disconnect::decode(body, self.client.version, entries_max)?;
                self.close("client", "the client disconnected before it was connected", effects);
                Ok(())
            }
            PacketKind::Auth if connecting.awaits_auth => {
                let auth = Auth::decode(body, entries_max)?;
                if auth.reason != Reason::CONTINUE_AUTHENTICATION {
                    return Err(Fault::protocol("AUTH does not continue the authentication"));
                }
                if self.client.auth_method.as_deref() != Some(auth.method) {
                    return Err(Fault::protocol("AUTH names another method than CONNECT"));
                }
                let message = Secret::new(auth.data);
                let begins = !std::mem::replace(&mut connecting.has_begun, true);
                connecting.awaits_auth = false;
                let login = match begins {
                    true => Login::ScramFirst { scram: Scram::SHA256, message },
                    false => Login::ScramFinal { message },
                };
                self.authenticate(login, Ask::Login, effects);
                Ok(())
            }
            _ => Err(Fault::protocol("only AUTH and DISCONNECT may come before CONNACK")),
        }
    }

    /// The answer to a step of the login.
    pub(crate) fn on_logged_in(&mut self, answer: Result<Answer, Refusal>, effects: &mut Effects) {
        let Phase::Connecting(connecting) = &mut self.phase else { return };
        match answer {
            Ok(Answer::Challenge(message)) => {
                connecting.awaits_auth = true;
                self.put_auth(Reason::CONTINUE_AUTHENTICATION, &message, effects);
            }
            Ok(Answer::Authenticated { user, impersonator, server_final }) => {
                connecting.server_final = server_final;
                let vhost = connecting.vhost.take();
                let introduction = Introduction {
                    protocol: match self.client.version {
                        Version::V31 => "MQTT 3-1",
                        Version::V311 => "MQTT 3-1-1",
                        Version::V5 => "MQTT 5-0",
                    },
                    client_id: self.client.id.clone(),
                    heartbeat_secs: connecting.keep_alive_secs.into(),
                    ..Introduction::default()
                };
                effects.commands.push(Command::Introduce(Box::new(introduction)));
                self.client.user = user.as_str().to_owned();
                self.client.impersonator = impersonator;
                effects.logged_in = true;
                let request = self.asked.ask(Ask::Vhost);
                effects.commands.push(Command::OpenVhost { request, vhost });
            }
            Ok(_) => self.close("bug", "the broker answered something else", effects),
            Err(refusal) => self.refuse_login(&refusal, effects),
        }
    }

    /// The virtual host is open, or not.
    pub(crate) fn on_vhost(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        if let Err(refusal) = answer {
            return self.refuse_login(&refusal, effects);
        }
        let Phase::Connecting(connecting) = &mut self.phase else { return };
        let will = connecting.will.take();
        let (clean_start, receive_max) = (connecting.clean_start, connecting.receive_max);
        let receive_max = self.outbound.limit_window(receive_max);
        let will = will.map(|will| self.make_will(&will, now));
        let id = &self.client.id;
        let open = OpenClientSession {
            request: self.asked.ask(Ask::ClientSession),
            client_id: (!id.is_empty()).then(|| id.clone()),
            clean_start,
            expiry_secs: self.client.session_expiry_secs,
            receive_max,
            will,
        };
        effects.commands.push(Command::OpenClientSession(Box::new(open)));
    }

    /// The client session is open, or not.
    pub(crate) fn on_client_session(
        &mut self,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        let opened = match answer {
            Ok(Answer::ClientSession(opened)) => opened,
            Ok(_) => return self.close("bug", "the broker answered something else", effects),
            Err(refusal) => return self.refuse_login(&refusal, effects),
        };
        self.has_client_session = true;
        let phase = std::mem::replace(&mut self.phase, Phase::Open);
        let Phase::Connecting(connecting) = phase else {
            self.phase = phase;
            return;
        };
        let assigned = self.client.id.is_empty();
        self.client.id = opened.client_id;
        let outlives = self.client.session_expiry_secs > 0;
        self.outbound.open(connecting.topic_alias_max, self.client.packet_bytes_max, outlives);
        self.accept(&connecting, opened.present, assigned, now, effects);
        self.inbound.resume(&opened.received);
        self.outbound.resume(&opened.in_flight, opened.unsure_before, effects);
        self.resume_subscriptions(opened.subscriptions, effects);
    }

    /// Sends CONNACK.
    fn accept(
        &mut self,
        connecting: &Connecting,
        present: bool,
        assigned: bool,
        now: Now,
        effects: &mut Effects,
    ) {
        let (asked, max) = (connecting.keep_alive_secs, self.limits.keep_alive_max_secs);
        let is_shortened = self.client.is_v5() && max > 0 && (asked == 0 || asked > max);
        let keep_alive_secs = if is_shortened { max } else { asked };
        self.keep_alive.start(keep_alive_secs, now.instant);
        match self.client.version {
            // The flag for a present session came with version 3.1.1.
            Version::V31 => return put_connack_3(effects.out.frame(), false, 0),
            Version::V311 => return put_connack_3(effects.out.frame(), present, 0),
            Version::V5 => {}
        }
        let expiry = self.client.session_expiry_secs;
        let response = response_topic(&self.client.id);
        let packet_bytes_max = self.packet_bytes_max();
        let granted = Granted {
            session_expiry_secs: (expiry != connecting.session_expiry_asked).then_some(expiry),
            receive_max: self.limits.receive_max.max(1),
            packet_bytes_max: u32::try_from(packet_bytes_max).unwrap_or(u32::MAX),
            client_id: assigned.then_some(self.client.id.as_str()),
            topic_alias_max: self.limits.topic_alias_max,
            keep_alive_secs: is_shortened.then_some(keep_alive_secs),
            response_information: connecting.wants_response_topic.then_some(response.as_str()),
            authentication: self
                .client
                .auth_method
                .as_deref()
                .map(|method| (method, connecting.server_final.as_slice())),
        };
        let mut properties = granted.properties(false);
        if properties.encoded_len() + 7 > self.client.packet_bytes_max {
            properties = granted.properties(true);
        }
        if properties.encoded_len() + 7 > self.client.packet_bytes_max {
            // [MQTT-3.1.2-24]: no packet larger than that, not even this one.
            return self.close("packet_too_large", "the client cannot take CONNACK", effects);
        }
        put_connack_5(effects.out.frame(), present, Reason::SUCCESS, &properties);
    }

    fn refuse_login(&mut self, refusal: &Refusal, effects: &mut Effects) {
        let Codes { connack, connack_3, .. } = codes(refusal.kind);
        if self.client.is_v5() {
            return self.refuse_connect(Version::V5, connack, &refusal.text, effects);
        }
        put_connack_3(effects.out.frame(), false, connack_3);
        self.close("login_refused", &refusal.text, effects);
    }

    /// Answers CONNECT with a failure where the version has a code for it, and closes.
    pub(crate) fn refuse_connect(
        &mut self,
        version: Version,
        reason: Reason,
        text: &str,
        effects: &mut Effects,
    ) {
        match (version, reason) {
            (Version::V5, _) => {
                let properties = reason_string(self.client.problem(text));
                put_connack_5(effects.out.frame(), false, reason, &properties);
            }
            // [MQTT-3.1.2-2] and [MQTT-3.1.3-9] of version 3.1.1.
            (_, Reason::UNSUPPORTED_VERSION) => put_connack_3(effects.out.frame(), false, 1),
            (_, Reason::CLIENT_ID_INVALID) => put_connack_3(effects.out.frame(), false, 2),
            (_, Reason::SERVER_UNAVAILABLE) => put_connack_3(effects.out.frame(), false, 3),
            _ => {}
        }
        self.close("connect_refused", text, effects);
    }
}

/// Splits `vhost:user` at the first colon.
fn split_user(user: Option<&str>) -> (Option<&str>, Option<&str>) {
    match user.and_then(|user| user.split_once(':')) {
        Some((vhost, user)) => (Some(vhost), Some(user)),
        None => (None, user),
    }
}

/// The beginning of topics for answers to a client: section 3.2.2.3.14.
fn response_topic(client_id: &str) -> String {
    let mut topic = "response/".to_owned();
    polymq_model::address::encode_mqtt_level(client_id, &mut topic);
    topic
}
