//! A client of XMPP. What it receives is parsed by quick-xml, which the server does not use for
//! that.

use std::collections::VecDeque;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use quick_xml::{
    NsReader,
    escape::{escape, unescape},
    events::{BytesStart, Event},
    name::ResolveResult,
};

use crate::world::{DOMAIN, Speaks, World};

pub(crate) const CLIENT: &str = "jabber:client";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
const STREAM: &str = "<stream:stream to='d' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// An element.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Xml {
    pub(crate) ns: String,
    pub(crate) name: String,
    /// Attributes without namespaces, and `xml:lang`.
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Xml>,
    pub(crate) text: String,
}

impl Xml {
    pub(crate) fn attr(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn child(&self, ns: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.ns == ns && child.name == name)
    }

    pub(crate) fn text_of(&self, ns: &str, name: &str) -> Option<&str> {
        self.child(ns, name).map(|child| child.text.as_str())
    }

    /// Type and condition of the error that this stanza is, and what it says.
    pub(crate) fn stanza_error(&self) -> (String, String) {
        assert_eq!(self.attr("type"), Some("error"), "{self:?}");
        let error = self.child(CLIENT, "error").unwrap();
        let condition = error.children.first().unwrap();
        assert_eq!(condition.ns, STANZAS);
        let text = error.text_of(STANZAS, "text").unwrap_or_default();
        (format!("{} {}", error.attr("type").unwrap(), condition.name), text.to_owned())
    }

    pub(crate) fn write(&self, out: &mut String) {
        out.push_str(&format!("<{} xmlns='{}'", self.name, escape(&self.ns)));
        for (name, value) in &self.attributes {
            out.push_str(&format!(" {name}='"));
            push_odd(value, out);
            out.push('\'');
        }
        out.push('>');
        push_odd(&self.text, out);
        self.children.iter().for_each(|child| child.write(out));
        out.push_str(&format!("</{}>", self.name));
    }

    /// What comes after a stream header.
    fn parse(text: &str) -> Vec<Self> {
        let mut reader = NsReader::from_str(text);
        let mut open: Vec<Self> = vec![Self::default()];
        loop {
            match reader.read_event().expect("well-formed XML") {
                Event::Start(start) => open.push(Self::of(&reader, &start)),
                Event::Empty(start) => {
                    let element = Self::of(&reader, &start);
                    open.last_mut().unwrap().children.push(element);
                }
                Event::End(_) => {
                    let Some(done) = open.pop() else { break };
                    let Some(parent) = open.last_mut() else { break };
                    parent.children.push(done);
                }
                Event::Text(text) => {
                    open.last_mut().unwrap().text.push_str(&text);
                }
                Event::GeneralRef(name) => {
                    let reference = format!("&{};", &*name);
                    open.last_mut().unwrap().text.push_str(&unescape(&reference).unwrap());
                }
                Event::Decl(_) => {}
                Event::Eof => break,
                other => panic!("XMPP forbids {other:?}"),
            }
        }
        // The stream itself is still open.
        assert!(open.len() <= 2, "an element is not closed in {text}");
        open.pop().map(|stream| stream.children).unwrap_or_default()
    }

    fn of(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Self {
        let (ns, name) = reader.resolver().resolve_element(start.name());
        let ns = match ns {
            ResolveResult::Bound(ns) => ns.into_inner().to_owned(),
            _ => String::new(),
        };
        let attributes = start.attributes().map(|attribute| {
            let attribute = attribute.unwrap();
            let name = attribute.key.into_inner().to_owned();
            (name, unescape(&attribute.value).unwrap().into_owned())
        });
        let name = name.into_inner().to_owned();
        let attributes = attributes.filter(|(name, _)| !name.starts_with("xmlns"));
        Self { ns, name, attributes: attributes.collect(), ..Self::default() }
    }
}

/// White space as references, so that no parser may change it.
fn push_odd(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\r' | '\n' | '\t' => out.push_str(&format!("&#{};", u32::from(c))),
            _ => out.push_str(&escape(c.encode_utf8(&mut [0; 4]) as &str)),
        }
    }
}

pub(crate) struct Xmpp {
    world: World,
    link: usize,
    jid: String,
    received: VecDeque<Xml>,
    last_id: u32,
}

impl Xmpp {
    /// A client that has logged in, bound a resource, and is there.
    pub(crate) fn connect(world: &World, user: &str, resource: &str) -> Self {
        let mut client = Self::away(world, user, resource);
        client.send("<presence/>");
        client.received.clear();
        client
    }

    /// A client that has bound a resource and says nothing.
    pub(crate) fn away(world: &World, user: &str, resource: &str) -> Self {
        let link = world.open(Speaks::Xmpp);
        let jid = format!("{user}@{DOMAIN}/{resource}");
        let (world, received) = (world.clone(), VecDeque::new());
        let mut client = Self { world, link, jid, received, last_id: 0 };
        client.send(STREAM);
        let plain = BASE64_STANDARD.encode(format!("\0{user}\0secret"));
        client.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        ));
        client.received.clear();
        client.send(STREAM);
        client.received.clear();
        let answer = client.ask(
            "set",
            None,
            &format!(
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
                 </bind>"
            ),
        );
        assert_eq!(answer.attr("type"), Some("result"));
        client
    }

    pub(crate) fn jid(&self) -> &str {
        &self.jid
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.world.send(self.link, text.as_bytes());
        self.take();
    }

    fn take(&mut self) {
        let bytes = self.world.receive(self.link);
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        let whole = match text.contains("<stream:stream") {
            true => text.to_owned(),
            false => format!("{STREAM}{text}"),
        };
        self.received.extend(Xml::parse(&whole));
    }

    /// Sends `<iq/>` and returns its answer.
    pub(crate) fn ask(&mut self, kind: &str, to: Option<&str>, payload: &str) -> Xml {
        self.last_id += 1;
        let id = format!("iq{}", self.last_id);
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.answer_to(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>"), &id)
    }

    /// Sends a stanza with this id and returns its answer.
    pub(crate) fn answer_to(&mut self, stanza: &str, id: &str) -> Xml {
        self.send(stanza);
        self.answer(id).expect("an answer")
    }

    /// What has come with this id.
    pub(crate) fn answer(&mut self, id: &str) -> Option<Xml> {
        self.take();
        let at = self.received.iter().position(|xml| xml.attr("id") == Some(id))?;
        self.received.remove(at)
    }

    /// Starts a consumer, which settles by the stream.
    pub(crate) fn consume(&mut self, queue: &str) {
        let consume = "<consume xmlns='urn:polymq:queue:1'/>";
        self.send(&format!("<presence to='{queue}'>{consume}</presence>"));
    }

    /// Subscribes to topics until the client goes.
    pub(crate) fn subscribe(&mut self, pattern: &str) {
        let jid = self.jid.clone();
        let payload = format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'>\
             <subscribe node='{pattern}' jid='{jid}'/></pubsub>"
        );
        let answer = self.ask("set", Some("topics.d"), &payload);
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    }

    /// Publishes an item.
    pub(crate) fn publish(&mut self, node: &str, id: &str, item: &str, beside: &str) -> Xml {
        let payload = format!(
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'>\
             <item id='{id}'>{item}</item></publish>{beside}</pubsub>"
        );
        self.ask("set", Some("topics.d"), &payload)
    }

    /// Every message since the last call.
    pub(crate) fn messages(&mut self) -> Vec<Xml> {
        self.stanzas("message")
    }

    /// All presence since the last call.
    pub(crate) fn presence(&mut self) -> Vec<Xml> {
        self.stanzas("presence")
    }

    fn stanzas(&mut self, name: &str) -> Vec<Xml> {
        self.take();
        let all = std::mem::take(&mut self.received);
        all.into_iter().filter(|xml| xml.name == name).collect()
    }

    pub(crate) fn message(&mut self) -> Xml {
        let mut all = self.messages();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Sends what was received to another place, as a client that copies it would.
    pub(crate) fn republish(&mut self, received: &Xml, to: &str) {
        let mut copy = received.clone();
        copy.attributes.retain(|(name, _)| !matches!(name.as_str(), "from" | "to"));
        copy.attributes.push(("to".to_owned(), to.to_owned()));
        copy.children.retain(|child| child.ns != "urn:xmpp:delay");
        let mut text = String::new();
        copy.write(&mut text);
        self.send(&text);
    }
}
