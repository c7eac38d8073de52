//! Streams and stanzas of XMPP.

use super::Seed;

const STREAM: &str = "<?xml version='1.0'?><stream:stream to='d' version='1.0' \
                      xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// A client's side of the login and the binding, part by part.
pub fn xmpp_login() -> Vec<String> {
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' \
                mechanism='PLAIN'>AGd1ZXN0AGd1ZXN0</auth>";
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                <resource>r</resource></bind></iq>";
    [STREAM, auth, STREAM, bind].map(str::to_owned).to_vec()
}

const PROPERTIES: &str = "<properties xmlns='urn:polymq:properties:1'>\
                          <p f='priority' t='u8'>4</p><p n='x-death'>no</p>\
                          <p n='l' t='list'>[1,null]</p><p n64='YQA=' t='str64'>AGI=</p>\
                          </properties>";

/// Stanzas of messages and presence, one a line.
const STANZAS: &str = "\
<message type='chat' to='guest@d'><body>hi &lt;&amp;</body></message>
<message type='headline' to='guest@d/r'><body>x</body></message>
<message to='guest@d'><active xmlns='http://jabber.org/protocol/chatstates'/></message>
<message to='a.b@topics.d'><data xmlns='urn:polymq:data:1' encoding='base64'>AP8=</data></message>
<message to='a@topics.d'><amp xmlns='http://jabber.org/protocol/amp'><rule condition='expire-at' \
action='drop' value='2030-01-01T00:00:00Z'/></amp></message>
<message to='q@queues.d'><received xmlns='urn:xmpp:receipts' id='polymq-1'/></message>
<message type='error' id='polymq-1' to='q@queues.d'><error type='wait'/></message>
<presence><priority>5</priority><show>away</show></presence>
<presence type='unavailable'/>
<presence type='subscribe' to='v@d'/>
<presence type='subscribed' to='v@d'/>
<presence to='queues.d/Q'><consume xmlns='urn:polymq:queue:1' ack='individual'/></presence>
<presence type='unavailable' to='queues.d/Q'/>
<presence to='ops@rooms.d/me'><x xmlns='http://jabber.org/protocol/muc'/></presence>
<message type='groupchat' to='ops@rooms.d'><body>x</body></message>
<presence type='unavailable' to='ops@rooms.d/me'/>
<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='v@d' name='V'/></query></iq>
<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>
<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>
<iq type='get' id='i' to='d'><ping xmlns='urn:xmpp:ping'/></iq>
<iq type='get' id='d' to='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>
<iq type='get' id='q' to='queues.d'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
<iq type='get' id='t' to='topics.d'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>
<enable xmlns='urn:xmpp:sm:3'/>
<r xmlns='urn:xmpp:sm:3'/>
<a xmlns='urn:xmpp:sm:3' h='1'/>";

/// What is asked of nodes of PubSub: the type of the request, and what is in it.
const PUBSUB: [(&str, &str); 6] = [
    ("set", "<subscribe node='a.#' jid='guest@d/r'/>"),
    ("set", "<subscribe node='a.*'/>"),
    ("set", "<unsubscribe node='a.*' jid='guest@d'/>"),
    ("set", "<publish node='a.b'><item id='i'><e xmlns='urn:e'>x</e></item></publish>"),
    ("get", "<items node='a.b'/>"),
    ("get", "<subscriptions/>"),
];

/// Stanzas of every kind.
fn stanzas() -> Vec<String> {
    let mut all: Vec<String> = STANZAS.lines().map(str::to_owned).collect();
    all.extend(PUBSUB.iter().map(|(kind, inner)| {
        format!(
            "<iq type='{kind}' id='p' to='topics.d'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub></iq>"
        )
    }));
    all.push(format!("<message to='q@queues.d'><body>x</body>{PROPERTIES}</message>"));
    all.push(
        "<iq type='set' id='k' to='queues.d'><command \
         xmlns='http://jabber.org/protocol/commands' node='urn:polymq:command:declare'>\
         <x xmlns='jabber:x:data' type='submit'><field var='queue'><value>q</value></field></x>\
         </command></iq>"
            .to_owned(),
    );
    all.push("</stream:stream>".to_owned());
    all
}

/// What a stranger may try.
fn attacks() -> Vec<(&'static str, String)> {
    let attributes: String = (0..9999).map(|n| format!("a{n}='' ")).collect();
    vec![
        ("dtd", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>".to_owned()),
        ("entity", "<a>&undeclared;</a>".to_owned()),
        ("comment", "<!-- x --><a/>".to_owned()),
        ("instruction", "<?x y?><a/>".to_owned()),
        ("deep", "<a>".repeat(100_000)),
        ("open-attribute", format!("<a b='{}", "x".repeat(100_000))),
        ("attributes", format!("<a {attributes}/>")),
        ("prefixes", format!("<a xmlns:p='{}'>{}", "u".repeat(4000), "<p:b/>".repeat(4000))),
        ("starttls", "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned()),
    ]
}

/// Adds the seeds of all targets of XMPP.
pub(super) fn add_all(seeds: &mut Vec<Seed>) {
    let mut add = |target: &'static str, name: &str, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: name.to_owned(), bytes });
    };
    let stanzas = stanzas();
    let all = stanzas.concat();
    for mode in 0..8 {
        add("xmpp_session", &format!("all-{mode}"), [&[mode][..], all.as_bytes()].concat());
    }
    for (at, text) in stanzas.iter().enumerate() {
        let name = format!("stanza-{at}");
        add("xmpp_session", &name, [&[3][..], text.as_bytes()].concat());
        add("xmpp_xml", &name, format!("{STREAM}{text}").into_bytes());
    }
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='d' version='1.0'/>";
    let plain = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGcAZw==</auth>";
    let bind = "<iq xmlns='jabber:client' type='set' id='b'>\
                <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    let close = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";
    let stanza = |text: &String| {
        let (name, rest) = text.split_once(' ').unwrap_or((text, "/>"));
        format!("{name} xmlns='jabber:client' {rest}")
    };
    let mut framed = [open, plain, open, bind].map(str::to_owned).to_vec();
    let login = framed.clone();
    for (at, one) in stanzas.iter().map(stanza).enumerate() {
        let lines = [&login[..], &[one], &[close.to_owned()]].concat().join("\n");
        add("xmpp_framed", &format!("stanza-{at}"), lines.into_bytes());
    }
    framed.extend(stanzas.iter().map(stanza));
    framed.push(close.to_owned());
    add("xmpp_framed", "all", framed.join("\n").into_bytes());
    let login = xmpp_login().concat();
    add("xmpp_stranger", "login", login.clone().into_bytes());
    add("xmpp_xml", "login", login.into_bytes());
    for (name, text) in attacks() {
        let bytes = format!("{STREAM}{text}").into_bytes();
        add("xmpp_stranger", name, bytes.clone());
        add("xmpp_xml", name, bytes);
        add("xmpp_session", name, [&[1][..], text.as_bytes()].concat());
    }
}
