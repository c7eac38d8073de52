//! Rooms, topics and commands.

use super::*;

const OWNER: &str = "http://jabber.org/protocol/muc#owner";

/// Has a session enter the room `a` as `nick`, the broker saying yes to everything.
fn join(world: &mut World, nick: &str) -> String {
    world.say(&format!("<presence to='a@rooms.d/{nick}'/>"));
    let request = world.request();
    let queue = polymq_model::QueueName::new("own").unwrap();
    world.answer(request, Ok(Answer::QueueDeclared { queue, messages: 0, consumers: 0 }));
    let request = world.request();
    let said = world.answer(request, Ok(Answer::Done));
    world.effects.commands.clear();
    said
}

#[test] // XEP-0410.
fn ping_of_oneself_tells_whether_one_is_in_a_room() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    let ping = |id| {
        format!("<iq type='get' id='{id}' to='a@rooms.d/n'><ping xmlns='urn:xmpp:ping'/></iq>")
    };
    let said = world.say(&ping("1"));
    assert!(said.contains("<not-acceptable"), "{said}");
    join(&mut world, "n");
    let said = world.say(&ping("2"));
    assert!(said.contains("type='result' id='2'"), "{said}");
    let mut other = World::bound_at(&xmpp, "v", "r");
    join(&mut other, "m");
    world.hear();
    other.say(&ping("3"));
    let said = world.hear();
    assert!(said.contains("from='a@rooms.d/m'") && said.contains("urn:xmpp:ping"), "{said}");
    world.say("<iq type='result' id='3' to='a@rooms.d/m'/>");
    let said = other.hear();
    assert!(said.contains("from='a@rooms.d/n'") && said.contains("type='result'"), "{said}");
}

#[test] // XEP-0045, section 10.1.2.
fn instant_room_is_accepted() {
    let mut world = World::bound();
    assert!(join(&mut world, "n").contains("code='201'"));
    let submit = |fields: &str| {
        format!(
            "<iq type='set' id='o' to='a@rooms.d'><query xmlns='{OWNER}'>\
             <x xmlns='jabber:x:data' type='submit'>{fields}</x></query></iq>"
        )
    };
    let said = world.say(&submit(""));
    assert!(said.contains("type='result'"), "{said}");
    let said = world.say(&submit("<field var='muc#roomconfig_persistentroom'/>"));
    assert!(said.contains("<not-acceptable"), "{said}");
    let said =
        world.say(&format!("<iq type='get' id='o' to='a@rooms.d'><query xmlns='{OWNER}'/></iq>"));
    assert!(said.contains("type='form'"), "{said}");
}

#[test] // XEP-0045, section 7.14.
fn occupant_that_is_gone_leaves_its_room() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    join(&mut world, "n");
    let error = |condition: &str| {
        format!(
            "<message type='error' to='a@rooms.d'><error type='cancel'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
    };
    world.say(&error("service-unavailable"));
    assert_eq!(world.hear(), "");
    world.say(&error("recipient-unavailable"));
    assert!(world.hear().contains("type='unavailable'"));
}

#[test] // XEP-0059.
fn occupants_are_listed_page_by_page_in_both_directions() {
    let xmpp = Xmpp::new(settings());
    let mut worlds: Vec<World> =
        ["a", "b", "c"].map(|name| World::bound_at(&xmpp, name, "r")).into();
    for (world, nick) in worlds.iter_mut().zip(["a", "b", "c"]) {
        join(world, nick);
    }
    let world = &mut worlds[0];
    world.hear();
    let mut list = |set: &str| {
        world.say(&format!(
            "<iq type='get' id='l' to='a@rooms.d'>\
             <query xmlns='http://jabber.org/protocol/disco#items'>\
             <set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query></iq>"
        ))
    };
    let has = |said: &str, nick: &str| said.contains(&format!("jid='a@rooms.d/{nick}'"));
    let said = list("<max>2</max>");
    assert!(has(&said, "a") && has(&said, "b") && !has(&said, "c"), "{said}");
    assert!(said.contains("<count>3</count>"), "{said}");
    let said = list("<max>2</max><after>b</after>");
    assert!(!has(&said, "b") && has(&said, "c"), "{said}");
    let said = list("<max>1</max><before/>");
    assert!(!has(&said, "b") && has(&said, "c"), "{said}");
    let said = list("<max>1</max><before>c</before>");
    assert!(has(&said, "b") && !has(&said, "c"), "{said}");
}

#[test] // XEP-0060, section 7.2.3.3.
fn only_the_item_that_is_there_is_retracted() {
    let mut world = World::bound();
    let retract = |item: &str| {
        format!(
            "<iq type='set' id='r' to='topics.d'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>\
             <retract node='a'>{item}</retract></pubsub></iq>"
        )
    };
    let said = world.say(&retract(""));
    assert!(said.contains("<item-required"), "{said}");
    world.say(&retract("<item id='other'/>"));
    let request = world.request();
    let said = world.answer(request, Ok(Answer::Recalled(vec![message("x")])));
    assert!(said.contains("<item-not-found"), "{said}");
    assert!(world.effects.commands.is_empty(), "nothing is published");
}

#[test] // XEP-0050.
fn form_is_checked() {
    let mut world = World::bound();
    let run = |word: &str, fields: &str| {
        format!(
            "<iq type='set' id='c' to='queues.d'><command node='urn:polymq:command:{word}' \
             xmlns='http://jabber.org/protocol/commands'>\
             <x xmlns='jabber:x:data' type='submit'>{fields}</x></command></iq>"
        )
    };
    let field =
        |name: &str, value: &str| format!("<field var='{name}'><value>{value}</value></field>");
    let queue = field("queue", "q");
    let said = world.say(&run("declare", &format!("{queue}{}", field("durable", "perhaps"))));
    assert!(said.contains("<bad-request") && said.contains("durable"), "{said}");
    let said = world.say(&run("bind", &queue));
    assert!(said.contains("<bad-request") && said.contains("key"), "{said}");
    assert!(world.effects.commands.is_empty());
}
