//! Conversations with real bytes; the broker is played by the test.

mod component;
mod framing;
mod queues;
mod services;
mod sessions;
mod streams;

use std::{sync::Arc, time::Duration, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use polymq_contract::{
    Answer, ChannelBindings, Command, Delivery, Effects, Event, EventBatch, Offer, Outbox, Peer,
    ProtocolSession, Refusal, RefusalKind, TlsPeer, Transport,
};
use polymq_model::{
    ConsumerId, Limits, Message, NewMessage, Now, RequestId, Seq, UserName, VhostName,
    format::PLAIN_FORMAT, message::Body,
};

use crate::{ComponentSettings, Session, Settings, Xmpp, jid::Domains};

pub(super) const HEAD: &str = "<?xml version='1.0'?><stream:stream to='d' version='1.0' \
                               xmlns='jabber:client' \
                               xmlns:stream='http://etherx.jabber.org/streams'>";
pub(super) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

pub(super) fn peer() -> Peer {
    Peer {
        address: None,
        local: None,
        is_loopback: true,
        tls: None,
        offers_tls: false,
        account: None,
        transport: Transport::Stream,
        listener: "test".into(),
        vhost: VhostName::new("/").unwrap(),
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        domain: "d".to_owned(),
        stanza_bytes_max: 20_000,
        resume_timeout: Duration::from_secs(300),
        ping_after: Duration::from_secs(60),
        offer: Offer::default(),
        entropy: Box::new(|bytes| bytes.fill(7)),
    }
}

/// A session, and everything that it has asked for.
pub(super) struct World {
    pub(super) session: Session,
    pub(super) effects: Effects,
    pub(super) outbox: Arc<Outbox>,
    input: BytesMut,
    started: Instant,
    ms: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&Xmpp::new(settings()), peer())
    }

    pub(super) fn with(xmpp: &Xmpp, peer: Peer) -> Self {
        let started = Instant::now();
        let now = Now { instant: started, unix_ms: 0 };
        let limits = Arc::new(Limits::default());
        let component = xmpp.component.clone();
        let (shared, peer) = (Arc::clone(&xmpp.shared), Arc::new(peer));
        let mut session = Session::new(shared, component, &peer, &limits, now);
        let outbox = Arc::new(Outbox::new(1 << 20));
        session.on_open(&outbox);
        let (effects, input) = (Effects::default(), BytesMut::new());
        Self { session, effects, outbox, input, started, ms: 0 }
    }

    /// A session that is bound as `u@d/r`.
    pub(super) fn bound() -> Self {
        Self::bound_at(&Xmpp::new(settings()), "u", "r")
    }

    pub(super) fn bound_at(xmpp: &Xmpp, user: &str, resource: &str) -> Self {
        Self::bound_over(xmpp, peer(), user, resource)
    }

    pub(super) fn bound_over(xmpp: &Xmpp, peer: Peer, user: &str, resource: &str) -> Self {
        let mut world = Self::with(xmpp, peer);
        world.log_in(user);
        let bind = "urn:ietf:params:xml:ns:xmpp-bind";
        world.say(&format!(
            "<iq type='set' id='b'><bind xmlns='{bind}'><resource>{resource}</resource></bind></iq>"
        ));
        let request = world.request();
        let said = world.answer(request, Ok(Answer::Consuming { reply_name: None }));
        assert!(said.contains(&format!("<jid>{user}@d/{resource}</jid>")), "{said}");
        world
    }

    /// Logs in with PLAIN; the stream header of the next stream has come and gone.
    pub(super) fn log_in(&mut self, user: &str) {
        self.say(HEAD);
        let plain = BASE64_STANDARD.encode(format!("\0{user}\0secret"));
        self.say(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>"));
        let request = self.request();
        self.answer(request, authenticated(user));
        let request = self.request();
        let said = self.answer(request, Ok(Answer::VhostOpened));
        assert_eq!(said, format!("<success xmlns='{SASL}'/>"));
        assert!(self.effects.logged_in);
        let said = self.say(HEAD);
        assert!(said.contains("urn:ietf:params:xml:ns:xmpp-bind"), "{said}");
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: self.started + Duration::from_millis(self.ms), unix_ms: self.ms }
    }

    /// Sends bytes, and returns what is said to them.
    pub(super) fn say(&mut self, text: &str) -> String {
        self.input.extend_from_slice(text.as_bytes());
        let now = self.now();
        self.effects.waiting = false;
        self.session.on_bytes(&mut self.input, now, &mut self.effects);
        self.said()
    }

    fn said(&mut self) -> String {
        String::from_utf8(self.effects.out.take_all().to_vec()).unwrap()
    }

    /// Hands an event to the session, then the bytes that waited for it.
    pub(super) fn event(&mut self, event: Event) -> String {
        let mut batch = EventBatch::default();
        batch.push(event);
        let now = self.now();
        self.session.on_events(&mut batch, now, &mut self.effects);
        self.say("")
    }

    /// Hands over what other sessions have said.
    pub(super) fn hear(&mut self) -> String {
        let mut batch = EventBatch::default();
        self.outbox.take(&mut batch);
        let now = self.now();
        self.session.on_events(&mut batch, now, &mut self.effects);
        self.said()
    }

    pub(super) fn answer(&mut self, request: RequestId, answer: Result<Answer, Refusal>) -> String {
        self.event(Event::Answered { request, answer: Box::new(answer) })
    }

    pub(super) fn pass(&mut self, ms: u64) -> String {
        self.ms += ms;
        let now = self.now();
        if self.session.next_timeout().is_some_and(|timeout| timeout.at <= now.instant) {
            self.session.on_timeout(now, &mut self.effects);
        }
        self.said()
    }

    /// The only command there is, beside an introduction.
    pub(super) fn command(&mut self) -> Command {
        let mut commands = std::mem::take(&mut self.effects.commands);
        commands.retain(|command| !matches!(command, Command::Introduce(_)));
        assert_eq!(commands.len(), 1, "{commands:?}");
        commands.remove(0)
    }

    /// The number of the only command there is.
    pub(super) fn request(&mut self) -> RequestId {
        self.command().request().expect("a request")
    }

    pub(super) fn is_closed(&self) -> bool {
        self.effects.close.is_some()
    }

    /// A message for a consumer.
    pub(super) fn deliver(&mut self, consumer: ConsumerId, number: u64, body: &str) -> String {
        let (redelivered, acquired, failed) = (false, 0, 0);
        let (seq, matched, message) = (Seq(number), Default::default(), message(body));
        self.event(Event::Delivered(Delivery {
            consumer,
            redelivered,
            acquired,
            failed,
            number,
            seq,
            matched,
            message,
        }))
    }
}

pub(super) fn authenticated(user: &str) -> Result<Answer, Refusal> {
    let (impersonator, server_final) = (false, Vec::new());
    Ok(Answer::Authenticated { user: UserName::new(user).unwrap(), impersonator, server_final })
}

pub(super) fn refused(kind: RefusalKind) -> Result<Answer, Refusal> {
    Err(Refusal::new(kind, "no"))
}

pub(super) fn message(body: &str) -> Message {
    let new = NewMessage {
        format: &PLAIN_FORMAT,
        exchange: "",
        key: "q",
        props: &[],
        body: Body::Slice(body.as_bytes()),
        durable: true,
        priority: None,
        qos: 1,
        retain: false,
        deadline_ms: 0,
        arrived_ms: 0,
        extra_keys: Vec::new(),
    };
    new.build(&mut Vec::new())
}

/// A peer whose connection is encrypted.
pub(super) fn tls_peer() -> Peer {
    let bindings = ChannelBindings { exporter: Some([1; 32]), server_end_point: Vec::new() };
    let tls = TlsPeer { bindings, ..TlsPeer::default() };
    Peer { tls: Some(Arc::new(tls)), ..peer() }
}

pub(super) fn component() -> Xmpp {
    let secret = polymq_contract::Secret::new("s");
    let xmpp = Xmpp::component(settings(), ComponentSettings { domain: "mq.d".into(), secret });
    assert_eq!(xmpp.shared.domains, Domains::Component("mq.d".into()));
    xmpp
}
