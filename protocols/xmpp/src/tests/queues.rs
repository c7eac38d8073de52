//! Queues, topics and commands, as far as the session decides.

use polymq_contract::{CancelReason, ListedBinding, Outcome, Protocol};
use polymq_model::{QueueName, Value};

use super::*;

/// Starts a consumer of queue `q`, and returns it with what the client was told.
pub(super) fn consume(world: &mut World, attributes: &str) -> (ConsumerId, String) {
    world.say(&format!(
        "<presence to='q@queues.d'><consume xmlns='urn:polymq:queue:1' {attributes}/></presence>"
    ));
    let command = world.command();
    let Command::Consume(consume) = command else { panic!("{command:?}") };
    let said = world.answer(consume.request, Ok(Answer::Consuming { reply_name: None }));
    (consume.consumer, said)
}

#[test]
fn consume_says_how() {
    let mut world = World::bound();
    world.say(
        "<presence to='q@queues.d'><consume xmlns='urn:polymq:queue:1' prefetch='5' \
         priority='7' exclusive='true' x-other='y'/></presence>",
    );
    let command = world.command();
    let Command::Consume(consume) = command else { panic!("{command:?}") };
    assert_eq!((consume.queue.as_str(), consume.prefetch, consume.exclusive), ("q", 5, true));
    let arguments = [
        ("x-priority".to_owned(), Value::I64(7)),
        ("x-other".to_owned(), Value::String("y".to_owned())),
    ];
    assert_eq!(consume.arguments, arguments);
    for wrong in ["prefetch='x'", "ack='maybe'", "priority='high'"] {
        let mut world = World::bound();
        let said = world.say(&format!(
            "<presence to='q@queues.d'><consume xmlns='urn:polymq:queue:1' {wrong}/></presence>"
        ));
        assert!(said.contains("<bad-request"), "{wrong}: {said}");
    }
}

#[test]
fn without_stream_management_a_delivery_is_settled_when_written() {
    let mut world = World::bound();
    let (consumer, _) = consume(&mut world, "");
    world.deliver(consumer, 1, "x");
    let command = world.command();
    assert!(matches!(command, Command::Settle(s) if s.outcome == Outcome::Accepted));
}

#[test] // XEP-0184.
fn receipts_and_errors_settle_one_delivery_each() {
    let mut world = World::bound();
    let (consumer, _) = consume(&mut world, "ack='individual'");
    let error = |kind: &str, id: &str| {
        format!(
            "<message type='error' id='{id}' to='q@queues.d'><error type='{kind}'>\
             <conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
    };
    let received = "<message to='q@queues.d'><received xmlns='urn:xmpp:receipts' \
                    id='polymq-1'/></message>";
    for (number, (text, outcome)) in (1..).zip([
        (received.to_owned(), Outcome::Accepted),
        (error("wait", "polymq-2"), Outcome::Failed),
        (error("cancel", "polymq-3"), Outcome::Rejected),
        (error("modify", "polymq-4"), Outcome::Rejected),
        (error("auth", "polymq-5"), Outcome::Rejected),
    ]) {
        let said = world.deliver(consumer, number, "x");
        assert!(said.contains(&format!("id='polymq-{number}'")), "{said}");
        assert!(said.contains("<request xmlns='urn:xmpp:receipts'/>"), "{said}");
        assert!(world.effects.commands.is_empty());
        world.say(&text);
        let command = world.command();
        let Command::Settle(settled) = command else { panic!("{command:?}") };
        assert_eq!((settled.deliveries.first, settled.outcome), (number, outcome));
        let reason = settled.note.as_ref().and_then(|note| note.reason.as_deref());
        assert_eq!(reason, (number > 1).then_some("conflict"));
    }
    let said = world.say(received);
    assert!(said.contains("<bad-request"), "it is settled already: {said}");
}

#[test]
fn error_says_when_a_delivery_is_to_come_again_and_why() {
    let mut world = World::bound();
    let (consumer, _) = consume(&mut world, "ack='individual'");
    world.deliver(consumer, 1, "x");
    world.say(
        "<message type='error' id='polymq-1' to='q@queues.d'><error type='wait'>\
         <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>the printer is out of paper</text>\
         <retry xmlns='urn:polymq:queue:1' after='5000'/></error></message>",
    );
    let command = world.command();
    let Command::Settle(settled) = command else { panic!("{command:?}") };
    let note = settled.note.expect("it says more");
    assert_eq!(settled.outcome, Outcome::Failed);
    assert_eq!(note.retry_after_ms, Some(5000));
    assert_eq!(note.reason.as_deref(), Some("the printer is out of paper"));
}

#[test]
fn consumer_that_the_broker_ends_is_told() {
    let mut world = World::bound();
    let (consumer, _) = consume(&mut world, "");
    let reason = CancelReason::QueueDeleted;
    let said = world.event(Event::ConsumerCancelled { consumer, reason });
    assert!(said.contains("from='q@queues.d'") && said.contains("type='unavailable'"), "{said}");
    assert!(said.contains("reason='queue-deleted'"), "{said}");
}

#[test]
fn end_of_the_stream_ends_its_consumers() {
    let mut world = World::bound();
    consume(&mut world, "");
    world.say("</stream:stream>");
    assert!(world.is_closed());
    assert!(world.effects.commands.iter().any(|c| matches!(c, Command::Cancel { .. })));
}

#[test] // XEP-0060, errors of sections 6 and 7.
fn pubsub_refuses_what_it_cannot_do() {
    let pubsub = "http://jabber.org/protocol/pubsub";
    for (kind, inner, condition) in [
        ("set", "<subscribe jid='u@d'/>", "nodeid-required"),
        ("set", "<subscribe node='x' jid='v@d'/>", "invalid-jid"),
        ("set", "<publish node='x'><item><a/><b/></item></publish>", "invalid-payload"),
        ("set", "<publish node='x'><item/><item/></publish>", "max-items-exceeded"),
        ("get", "<unknown/>", "unsupported"),
        ("get", "<items node='x.*'/>", "bad-request"),
    ] {
        let mut world = World::bound();
        let said = world.say(&format!(
            "<iq type='{kind}' id='1' to='topics.d'><pubsub xmlns='{pubsub}'>{inner}</pubsub></iq>"
        ));
        assert!(said.contains(&format!("<{condition} xmlns=")), "{inner}: {said}");
    }
}

#[test] // XEP-0060, section 6.1.3.9.
fn subscriptions_of_a_mailbox_are_bounded() {
    let subscribe = |node: &str| {
        format!(
            "<iq type='set' id='1' to='topics.d'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'><subscribe node='{node}' jid='u@d'/>\
             </pubsub></iq>"
        )
    };
    let mut world = World::bound();
    for (node, is_refused) in [("new", true), ("t7", false)] {
        // The second is not read before the first is done with.
        world.say(&(subscribe(node) + &subscribe("later")));
        let queue = QueueName::new("xmpp-mailbox-u@d").unwrap();
        let request = world.request();
        let declared = Answer::QueueDeclared { queue, messages: 0, consumers: 0 };
        world.answer(request, Ok(declared));
        let Command::ListBindings { request, .. } = world.command() else { panic!("a list") };
        let bound = (0..1000).map(|number| ListedBinding {
            exchange: "amq.topic".to_owned(),
            key: format!("t{number}"),
        });
        let said = world.answer(request, Ok(Answer::Bindings(bound.collect())));
        assert_eq!(said.contains("<too-many-subscriptions"), is_refused, "{node}: {said}");
        let next = world.command();
        assert_eq!(matches!(next, Command::BindQueue(_)), !is_refused, "{node}: {next:?}");
        world = World::bound();
    }
}

#[test] // XEP-0050.
fn commands_show_their_forms_and_say_what_is_wrong() {
    let mut world = World::bound();
    let node = |word: &str, inner: &str| {
        format!(
            "<iq type='set' id='1' to='queues.d'><command \
             xmlns='http://jabber.org/protocol/commands' \
             node='urn:polymq:command:{word}'>{inner}</command></iq>"
        )
    };
    let said = world.say(&node("declare", ""));
    assert!(said.contains("status='executing'") && said.contains("var='queue'"), "{said}");
    let submit = |fields: &str| format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    let field =
        |name: &str, value: &str| format!("<field var='{name}'><value>{value}</value></field>");
    let said = world.say(&node("declare", &submit("")));
    assert!(said.contains("<bad-request"), "{said}");
    let wrong = field("queue", "q") + &field("arguments", "no value");
    let said = world.say(&node("declare", &submit(&wrong)));
    assert!(said.contains("name=value"), "{said}");
    let said = world.say(&node("unknown", ""));
    assert!(said.contains("<item-not-found"), "{said}");
    let good = field("queue", "q") + &field("arguments", "x-max-length=5\nx-overflow=drop-head");
    world.say(&node("declare", &submit(&good)));
    let command = world.command();
    let Command::DeclareQueue(declare) = command else { panic!("{command:?}") };
    assert!(declare.durable && declare.queue == "q");
    let arguments = [
        ("x-max-length".to_owned(), Value::I64(5)),
        ("x-overflow".to_owned(), Value::String("drop-head".to_owned())),
    ];
    assert_eq!(declare.arguments, arguments);
    let said = world.answer(declare.request, refused(RefusalKind::Conflict));
    assert!(said.contains("<conflict"), "{said}");
}

#[test]
fn an_address_leads_where_its_messages_go() {
    let told = |xmpp: &Xmpp, text: &str| {
        let to = xmpp.destination(text, &Limits::default()).unwrap();
        to.map(|to| (to.exchange, to.key))
    };
    let (server, component) = (Xmpp::new(settings()), component());
    for (text, exchange, key) in [
        ("u@d", "", "xmpp-mailbox-u@d"),
        ("u@d/r", "", "xmpp-mailbox-u@d/r"),
        ("q@queues.d", "", "q"),
        ("a.b@topics.d", "amq.topic", "a.b"),
        ("lobby@rooms.d", "amq.topic", "rooms.lobby"),
    ] {
        assert_eq!(told(&server, text), Ok((exchange.to_owned(), key.to_owned())), "{text}");
    }
    for text in ["d", "queues.d", "lobby@rooms.d/nick", "u@elsewhere", "@"] {
        assert!(told(&server, text).is_err(), "{text}");
    }
    assert_eq!(told(&component, "q+q@mq.d"), Ok((String::new(), "q".to_owned())));
    assert!(told(&component, "u@mq.d").is_err());
}

#[test] // XEP-0060, sections 5.6 and 8.8.
fn subscription_of_a_stream_is_listed_and_its_end_is_told() {
    let mut world = World::bound();
    let request = |kind: &str, inner: &str| {
        format!(
            "<iq type='{kind}' id='1' to='topics.d'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub></iq>"
        )
    };
    world.say(&request("set", "<subscribe node='t.#' jid='u@d/r'/>"));
    let asked = world.request();
    let queue = QueueName::new("amq.gen-1").unwrap();
    world.answer(asked, Ok(Answer::QueueDeclared { queue, messages: 0, consumers: 0 }));
    let asked = world.request();
    world.answer(asked, Ok(Answer::Done));
    let commands = std::mem::take(&mut world.effects.commands);
    let consume = commands.iter().find_map(|command| match command {
        Command::Consume(consume) => Some((consume.request, consume.consumer)),
        _ => None,
    });
    let (asked, consumer) = consume.expect("a consumer");
    world.answer(asked, Ok(Answer::Consuming { reply_name: None }));
    world.say(&request("get", "<subscriptions/>"));
    let asked = world.request();
    let said = world.answer(asked, Ok(Answer::Bindings(Vec::new())));
    assert!(said.contains("node='t.#' jid='u@d/r' subscription='subscribed'"), "{said}");
    let reason = CancelReason::Denied;
    let said = world.event(Event::ConsumerCancelled { consumer, reason });
    assert!(said.contains("pubsub#event'><subscription node='t.#'"), "{said}");
    assert!(said.contains("jid='u@d/r' subscription='none'"), "{said}");
}
