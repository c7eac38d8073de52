//! Rooms, topics and commands.

use super::*;

const OWNER: &str = "http://jabber.org/protocol/muc#owner";

/// Has a session enter the room `a` as `nick`, the broker saying yes to everything.
fn join(world: &mut World, nick: &str) -> String {
    enter(world, nick).0
}

/// The same, with the consumer that brings the messages.
fn enter(world: &mut World, nick: &str) -> (String, ConsumerId) {
    world.say(&format!("<presence to='a@rooms.d/{nick}'/>"));
    let request = world.request();
    let queue = polymq_model::QueueName::new("own").unwrap();
    world.answer(request, Ok(Answer::QueueDeclared { queue, messages: 0, consumers: 0 }));
    let request = world.request();
    let said = world.answer(request, Ok(Answer::Done));
    let Command::Consume(consume) = world.command() else { panic!("a consumer") };
    (said, consume.consumer)
}

/// Asks for a page of the items of an address.
fn items_of(address: &str, set: &str) -> String {
    format!(
        "<iq type='get' id='l' to='{address}'>\
         <query xmlns='http://jabber.org/protocol/disco#items'>\
         <set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query></iq>"
    )
}

#[test]
fn rooms_that_the_user_may_not_read_are_not_listed_and_not_looked_into() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    join(&mut world, "n");
    let mut other = World::bound_at(&xmpp, "v", "r");
    for (readable, is_seen) in [(vec!["rooms.a".to_owned()], true), (Vec::new(), false)] {
        other.say(&items_of("rooms.d", ""));
        let Command::ListTopics { request, among, .. } = other.command() else { panic!("a list") };
        assert_eq!(among, Some(vec!["rooms.a".to_owned()]));
        let said = other.answer(request, Ok(Answer::Topics(readable.clone())));
        assert_eq!(said.contains("jid='a@rooms.d'"), is_seen, "{said}");
        assert_eq!(said.contains("<count>1</count>"), is_seen, "{said}");
        other.say(&items_of("a@rooms.d", ""));
        let request = other.request();
        let said = other.answer(request, Ok(Answer::Topics(readable)));
        assert_eq!(said.contains("jid='a@rooms.d/n'"), is_seen, "{said}");
        assert_eq!(said.contains("<forbidden"), !is_seen, "{said}");
    }
}

#[test]
fn whoever_may_not_enter_a_room_learns_nothing_of_it_and_leaves_no_queue() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    join(&mut world, "n");
    let mut other = World::bound_at(&xmpp, "v", "r");
    // The nickname is taken, which only those may know who may read the room.
    for (answer, condition) in
        [(refused(RefusalKind::Denied), "<forbidden"), (Ok(Answer::Done), "<conflict")]
    {
        other.say("<presence to='a@rooms.d/n'/>");
        let request = other.request();
        let queue = polymq_model::QueueName::new("own").unwrap();
        other.answer(request, Ok(Answer::QueueDeclared { queue, messages: 0, consumers: 0 }));
        let request = other.request();
        let said = other.answer(request, answer);
        assert!(said.contains(condition), "{said}");
        let Command::DeleteQueue { queue, .. } = other.command() else { panic!("a deletion") };
        assert_eq!(queue, "own");
    }
    assert_eq!(world.hear(), "");
}

#[test] // XEP-0045, section 9.4.
fn occupant_that_may_not_read_any_more_is_removed() {
    let xmpp = Xmpp::new(settings());
    let mut worlds = ["u", "v"].map(|user| World::bound_at(&xmpp, user, "r"));
    let [first, second] = &mut worlds;
    join(first, "n");
    let (_, consumer) = enter(second, "m");
    first.hear();
    let reason = polymq_contract::CancelReason::Denied;
    second.event(Event::ConsumerCancelled { consumer, reason });
    let Command::DeleteQueue { queue, .. } = second.command() else { panic!("a deletion") };
    assert_eq!(queue, "own");
    let said = second.hear();
    assert!(said.contains("code='110'") && said.contains("code='321'"), "{said}");
    let said = first.hear();
    let is_told = said.contains("from='a@rooms.d/m'") && said.contains("code='321'");
    assert!(is_told && said.contains("affiliation='none'"), "{said}");
    let said = second.say("<message type='groupchat' to='a@rooms.d'><body>x</body></message>");
    assert!(said.contains("<not-acceptable"), "{said}");
}

#[test]
fn rooms_of_another_virtual_host_are_others() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    assert!(join(&mut world, "n").contains("code='201'"));
    let vhost = VhostName::new("other").unwrap();
    let mut other = World::bound_over(&xmpp, Peer { vhost, ..peer() }, "v", "r");
    let said = join(&mut other, "n");
    assert!(said.contains("code='201'") && !said.contains("u@d"), "{said}");
    assert_eq!(world.hear(), "");
}

#[test] // XEP-0045, section 8.1.
fn subject_is_kept_once_the_room_has_got_it() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    join(&mut world, "n");
    let subject = "<message type='groupchat' to='a@rooms.d'><subject>s</subject></message>";
    world.say(subject);
    world.effects.commands.clear();
    // Whoever may not write to the room has said nothing.
    let mut other = World::bound_at(&xmpp, "v", "r");
    let said = join(&mut other, "m");
    assert!(said.contains("<subject/>"), "{said}");
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
        world.say(&items_of("a@rooms.d", set));
        let request = world.request();
        world.answer(request, Ok(Answer::Topics(vec!["rooms.a".to_owned()])))
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
