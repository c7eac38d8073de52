//! Namespaces.

macro_rules! namespaces {
    ($($name:ident = $text:literal;)*) => { $(
        #[doc = concat!("`", $text, "`")]
        pub const $name: &str = $text;
    )* };
}

namespaces! {
    CLIENT = "jabber:client";
    COMPONENT = "jabber:component:accept";
    STREAM = "http://etherx.jabber.org/streams";
    FRAMING = "urn:ietf:params:xml:ns:xmpp-framing";
    STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams";
    STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas";
    TLS = "urn:ietf:params:xml:ns:xmpp-tls";
    SASL = "urn:ietf:params:xml:ns:xmpp-sasl";
    SASL_BINDING = "urn:xmpp:sasl-cb:0";
    BIND = "urn:ietf:params:xml:ns:xmpp-bind";
    SESSION = "urn:ietf:params:xml:ns:xmpp-session";
    ROSTER = "jabber:iq:roster";
    ROSTER_VERSIONS = "urn:xmpp:features:rosterver";
    SM = "urn:xmpp:sm:3";
    PING = "urn:xmpp:ping";
    DISCO_INFO = "http://jabber.org/protocol/disco#info";
    DISCO_ITEMS = "http://jabber.org/protocol/disco#items";
    RSM = "http://jabber.org/protocol/rsm";
    VERSION = "jabber:iq:version";
    DELAY = "urn:xmpp:delay";
    ADDRESSES = "http://jabber.org/protocol/address";
    AMP = "http://jabber.org/protocol/amp";
    SHIM = "http://jabber.org/protocol/shim";
    HINTS = "urn:xmpp:hints";
    JSON = "urn:xmpp:json:0";
    ORIGIN_ID = "urn:xmpp:sid:0";
    RECEIPTS = "urn:xmpp:receipts";
    CARBONS = "urn:xmpp:carbons:2";
    FORWARD = "urn:xmpp:forward:0";
    PUBSUB = "http://jabber.org/protocol/pubsub";
    PUBSUB_EVENT = "http://jabber.org/protocol/pubsub#event";
    PUBSUB_OWNER = "http://jabber.org/protocol/pubsub#owner";
    PUBSUB_ERRORS = "http://jabber.org/protocol/pubsub#errors";
    MUC = "http://jabber.org/protocol/muc";
    MUC_OWNER = "http://jabber.org/protocol/muc#owner";
    MUC_USER = "http://jabber.org/protocol/muc#user";
    COMMANDS = "http://jabber.org/protocol/commands";
    DATA_FORMS = "jabber:x:data";
    QUEUE = "urn:polymq:queue:1";
    PROPERTIES = "urn:polymq:properties:1";
    DATA = "urn:polymq:data:1";
    XML = "http://www.w3.org/XML/1998/namespace";
}
