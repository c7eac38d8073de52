//! What clients of XMPP see of topics, queues and rooms that they may not read.

use polymq_broker::TopicSyntax;

use super::{USER, allow, bound};
use crate::{
    amqp::Amqp,
    world::World,
    xmpp_client::{CLIENT, Xml, Xmpp},
};

const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";

/// The addresses and nodes that discovery names; the condition of an error instead.
fn items(xmpp: &mut Xmpp, address: &str) -> Result<Vec<String>, String> {
    let answer = xmpp.ask("get", Some(address), &format!("<query xmlns='{ITEMS}'/>"));
    if let Some(error) = answer.child(CLIENT, "error") {
        return Err(error.children[0].name.clone());
    }
    let items = answer.child(ITEMS, "query").unwrap().children.iter();
    let named = items.filter(|child| child.name == "item");
    Ok(named
        .map(|item| item.attr("node").or_else(|| item.attr("jid")).unwrap().to_owned())
        .collect())
}

/// Goes into a room, and returns what is said of that: conditions of errors and codes of statuses.
fn join(xmpp: &mut Xmpp, room: &str, nick: &str) -> Vec<String> {
    xmpp.send(&format!("<presence to='{room}@rooms.d/{nick}'/>"));
    told(xmpp)
}

/// What presence has said since the last look: conditions of errors and codes of statuses.
fn told(xmpp: &mut Xmpp) -> Vec<String> {
    let all = xmpp.presence();
    let codes = |xml: &Xml| -> Vec<String> {
        let user = xml.child(MUC_USER, "x").into_iter().flat_map(|x| &x.children);
        user.filter_map(|status| Some(status.attr("code")?.to_owned())).collect()
    };
    let condition = |xml: &Xml| Some(xml.child(CLIENT, "error")?.children[0].name.clone());
    all.iter().flat_map(|xml| codes(xml).into_iter().chain(condition(xml))).collect()
}

/// `guest` is in the rooms `open` and `closed`; the user may read only the first.
fn rooms(world: &World) -> (Xmpp, Xmpp) {
    let mut guest = Xmpp::connect(world, "guest", "r");
    for room in ["open", "closed"] {
        assert_eq!(join(&mut guest, room, "host"), ["100", "110", "201"]);
    }
    bound(world, "rooms/open", "rooms/open", TopicSyntax::Slash);
    (guest, Xmpp::connect(world, USER, "r"))
}

#[test]
fn rooms_that_may_not_be_read_are_not_seen() {
    let world = World::new();
    let (mut guest, mut xmpp) = rooms(&world);
    assert_eq!(items(&mut guest, "rooms.d").unwrap(), ["closed@rooms.d", "open@rooms.d"]);
    assert_eq!(items(&mut xmpp, "rooms.d").unwrap(), ["open@rooms.d"]);
    assert_eq!(items(&mut xmpp, "open@rooms.d").unwrap(), ["open@rooms.d/host"]);
    assert_eq!(items(&mut xmpp, "closed@rooms.d").unwrap_err(), "forbidden");
    // Without a right to the exchange there is nothing to see.
    allow(&world, ".*", ".*", "^q$");
    assert_eq!(items(&mut xmpp, "rooms.d").unwrap_err(), "forbidden");
    assert_eq!(items(&mut xmpp, "open@rooms.d").unwrap_err(), "forbidden");
}

#[test]
fn rooms_that_may_not_be_read_are_not_entered_and_leave_no_queues() {
    let world = World::new();
    let (mut guest, mut xmpp) = rooms(&world);
    let before = world.broker().queues().len();
    // Neither says whether the nickname is taken.
    for nick in ["host", "other"] {
        assert_eq!(join(&mut xmpp, "closed", nick), ["forbidden"], "{nick}");
    }
    assert_eq!(join(&mut xmpp, "open", "host"), ["conflict"]);
    assert_eq!(world.broker().queues().len(), before);
    assert!(guest.presence().is_empty(), "nobody has heard of it");
    assert_eq!(join(&mut xmpp, "open", "other"), ["100", "110"]);
    // Whoever is not in a room says nothing there, and asks nobody in it.
    xmpp.send("<message type='groupchat' to='closed@rooms.d'><body>x</body></message>");
    xmpp.send("<message to='closed@rooms.d/host'><body>x</body></message>");
    let bodies =
        |all: Vec<Xml>| all.iter().filter(|xml| xml.child(CLIENT, "body").is_some()).count();
    assert_eq!(bodies(guest.messages()), 0);
}

#[test]
fn occupant_is_removed_with_the_right_to_the_room() {
    let world = World::new();
    let (mut guest, mut xmpp) = rooms(&world);
    join(&mut xmpp, "open", "other");
    guest.presence();
    bound(&world, "rooms/open", "elsewhere", TopicSyntax::Slash);
    assert_eq!(told(&mut xmpp), ["110", "321"]);
    assert_eq!(told(&mut guest), ["321"]);
    assert_eq!(items(&mut guest, "open@rooms.d").unwrap(), ["open@rooms.d/host"]);
    assert_eq!(join(&mut xmpp, "open", "other"), ["forbidden"]);
}

#[test]
fn subject_is_set_by_those_who_may_write_to_the_room() {
    let world = World::new();
    let (mut guest, mut xmpp) = rooms(&world);
    bound(&world, "elsewhere", "rooms/open", TopicSyntax::Slash);
    let subject = |text: &str| {
        format!("<message type='groupchat' to='open@rooms.d'><subject>{text}</subject></message>")
    };
    join(&mut xmpp, "open", "other");
    guest.send(&subject("true"));
    xmpp.send(&subject("false"));
    let mut late = Xmpp::connect(&world, "u1", "r");
    late.send("<presence to='open@rooms.d/late'/>");
    assert_eq!(late.message().text_of(CLIENT, "subject"), Some("true"));
}

#[test]
fn topics_and_queues_that_may_not_be_read_are_not_listed() {
    let world = World::new();
    let mut amqp = Amqp::connect(&world);
    amqp.declare("q");
    amqp.declare("secret");
    let mut guest = Xmpp::connect(&world, "guest", "r");
    let retain = "<publish-options><x xmlns='jabber:x:data' type='submit'>\
                  <field var='pubsub#persist_items'><value>true</value></field></x>\
                  </publish-options>";
    for node in ["a.1", "b.1"] {
        let answer = guest.publish(node, "i", "<x xmlns='urn:x'/>", retain);
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    }
    assert_eq!(items(&mut guest, "topics.d").unwrap(), ["a.1", "b.1"]);
    allow(&world, ".*", ".*", "^(q|amq\\.topic)$");
    bound(&world, "", "a/#", TopicSyntax::Slash);
    let mut xmpp = Xmpp::connect(&world, USER, "r");
    assert_eq!(items(&mut xmpp, "topics.d").unwrap(), ["a.1"]);
    assert_eq!(items(&mut xmpp, "queues.d").unwrap(), ["q@queues.d"]);
}
