//! XMPP: type and condition of the stanza error; the stream goes on.

use polymq_model::delay::DelayHeaders;

use super::{
    There, a_consumer, a_queue, a_queue_with_a_message, exclusive_consumer, exclusive_queue,
    full_queue, hash_exchange, names, nothing, queue_of_small_messages,
};
use crate::{amqp::Amqp, limits::limit_vhost, world::World, xmpp_client::Xmpp};

/// Fields of a form by name.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// How a stanza with the id `x` is answered.
fn refused(there: There, stanza: &str) -> (String, String) {
    let world = World::new();
    there(&mut Amqp::connect(&world));
    let mut client = Xmpp::connect(&world, "guest", "r");
    refused_to(&mut client, stanza)
}

fn refused_to(client: &mut Xmpp, stanza: &str) -> (String, String) {
    let error = client.answer_to(stanza, "x").stanza_error();
    let pong = client.ask("get", Some("d"), "<ping xmlns='urn:xmpp:ping'/>");
    assert_eq!(pong.attr("type"), Some("result"), "the stream goes on after {error:?}");
    error
}

/// Asks for the messages of a queue.
fn consume(queue: &str, attributes: &str) -> String {
    format!(
        "<presence id='x' to='{queue}@queues.d'><consume xmlns='urn:polymq:queue:1' {attributes}/>\
         </presence>"
    )
}

/// Runs a command with its form filled in.
fn command(word: &str, fields: Fields<'_>) -> String {
    let field = |(name, value): &(&str, &str)| {
        format!("<field var='{name}'><value>{value}</value></field>")
    };
    let fields: String = fields.iter().map(field).collect();
    format!(
        "<iq type='set' id='x' to='queues.d'>\
         <command xmlns='http://jabber.org/protocol/commands' node='urn:polymq:command:{word}'>\
         <x xmlns='jabber:x:data' type='submit'>{fields}</x></command></iq>"
    )
}

fn message(to: &str, inside: &str) -> String {
    format!("<message id='x' to='{to}'>{inside}</message>")
}

#[test]
fn a_consumer_that_cannot_be_is_refused() {
    let rows: [(There, &str, &str, &str, &[&str]); 9] = [
        (exclusive_queue, "q", "", "cancel conflict", &["'q'"]),
        (exclusive_consumer, "q", "", "auth forbidden", &["'q'"]),
        (a_consumer, "q", "exclusive='true'", "auth forbidden", &["'q'"]),
        (nothing, "missing", "", "cancel item-not-found", &["'missing'", "'/'"]),
        (a_queue, "q", "ack='perhaps'", "modify bad-request", &["ack", "perhaps"]),
        (a_queue, "q", "prefetch='many'", "modify bad-request", &["prefetch", "many"]),
        (a_queue, "q", "priority='high'", "modify bad-request", &["priority", "high"]),
        (a_queue, "q", "x-consumer-timeout='-1'", "modify bad-request", &["x-consumer-timeout"]),
        (a_queue, "q", "x-selector='a'", "cancel feature-not-implemented", &["x-selector"]),
    ];
    for (there, queue, attributes, wanted, parts) in rows {
        let (condition, text) = refused(there, &consume(queue, attributes));
        assert_eq!(condition, wanted, "{queue} {attributes}: {text}");
        names(&text, parts);
    }
}

#[test]
fn a_queue_that_cannot_be_declared_is_refused() {
    let rows: [(There, &str, &str, &str, &[&str]); 14] = [
        (a_queue, "q", "x-max-length=1", "cancel conflict", &["x-max-length", "'q'", "none"]),
        (exclusive_queue, "q", "", "cancel conflict", &["'q'"]),
        (nothing, "amq.mine", "", "auth forbidden", &["'amq.mine'"]),
        (nothing, "new", "x-overflow=spill", "modify bad-request", &["x-overflow", "'spill'"]),
        (nothing, "new", "x-message-ttl=-1", "modify bad-request", &["x-message-ttl", "'-1'"]),
        (nothing, "new", "x-max-priority=256", "modify bad-request", &["x-max-priority"]),
        (nothing, "new", "x-queue-type=fancy", "modify bad-request", &["x-queue-type"]),
        (nothing, "new", "x-dead-letter-routing-key=k", "modify bad-request", &["x-dead-letter"]),
        (nothing, "new", "x-delayed-retry-type=all", "modify bad-request", &["x-delayed-retry"]),
        (nothing, "new", "no value", "modify bad-request", &["name=value"]),
        (nothing, "new", "x-queue-type=stream", "cancel feature-not-implemented", &["stream"]),
        (nothing, "new", "x-overflow=block", "cancel feature-not-implemented", &["block"]),
        (nothing, "new", "x-message-groups=true", "cancel feature-not-implemented", &["groups"]),
        (nothing, "new", "x-selector=a", "cancel feature-not-implemented", &["x-selector"]),
    ];
    for (there, queue, arguments, wanted, parts) in rows {
        let declare = command("declare", &[("queue", queue), ("arguments", arguments)]);
        let (condition, text) = refused(there, &declare);
        assert_eq!(condition, wanted, "{queue} {arguments}: {text}");
        names(&text, parts);
    }
}

#[test]
fn a_binding_that_cannot_be_is_refused() {
    let rows: [(There, &str, &str, &str, &[&str]); 5] = [
        (hash_exchange, "hash", "heavy", "modify bad-request", &["'heavy'", "1 to 10000"]),
        (a_queue, "amq.topic", "#.a.#.b.#", "modify bad-request", &[]),
        (a_queue, "missing", "k", "cancel item-not-found", &["'missing'", "'/'"]),
        (nothing, "amq.topic", "k", "cancel item-not-found", &["'q'", "'/'"]),
        (a_queue, "amq.control", "k", "cancel feature-not-implemented", &["'amq.control'"]),
    ];
    for (there, exchange, key, wanted, parts) in rows {
        let bind = command("bind", &[("queue", "q"), ("exchange", exchange), ("key", key)]);
        let (condition, text) = refused(there, &bind);
        assert_eq!(condition, wanted, "{exchange} {key}: {text}");
        names(&text, parts);
    }
}

#[test]
fn conditions_that_do_not_hold_and_queues_of_others_are_conflicts() {
    let q = ("queue", "q");
    let rows: [(There, &str, Fields<'_>, &str); 6] = [
        (a_queue_with_a_message, "delete", &[q, ("if-empty", "true")], "cancel conflict"),
        (a_consumer, "delete", &[q, ("if-unused", "1")], "cancel conflict"),
        (a_queue, "delete", &[q, ("if-unused", "perhaps")], "modify bad-request"),
        (exclusive_queue, "delete", &[q], "cancel conflict"),
        (exclusive_queue, "purge", &[q], "cancel conflict"),
        (nothing, "purge", &[q], "cancel item-not-found"),
    ];
    for (there, word, fields, wanted) in rows {
        let (condition, text) = refused(there, &command(word, fields));
        assert_eq!(condition, wanted, "{word} {fields:?}: {text}");
    }
}

#[test]
fn a_message_that_is_not_taken_is_refused() {
    let body = "<body>four</body>";
    let rows: [(There, &str, &str, &[&str]); 4] = [
        (queue_of_small_messages, "q", "modify policy-violation", &["x-max-message-size 3", "4"]),
        (full_queue, "q", "wait resource-constraint", &[]),
        (nothing, "missing", "cancel item-not-found", &["missing"]),
        (nothing, "amq.mine", "cancel item-not-found", &["amq.mine"]),
    ];
    for (there, queue, wanted, parts) in rows {
        let (condition, text) = refused(there, &message(&format!("{queue}@queues.d"), body));
        assert_eq!(condition, wanted, "{queue}: {text}");
        names(&text, parts);
    }
}

#[test]
fn what_a_message_says_wrongly_is_a_bad_request() {
    for inside in [
        "<properties xmlns='urn:polymq:properties:1'><p n='x-delay'>soon</p></properties>",
        "<headers xmlns='http://jabber.org/protocol/shim'>\
         <header name='x-delivery-time'>soon</header></headers>",
        "<amp xmlns='http://jabber.org/protocol/amp'>\
         <rule condition='expire-at' action='drop' value='soon'/></amp>",
        "<data xmlns='urn:polymq:data:1' encoding='base64'>!</data>",
        "<received xmlns='urn:xmpp:receipts' id='7'/>",
    ] {
        let (condition, text) = refused(a_queue, &message("q@queues.d", inside));
        assert_eq!(condition, "modify bad-request", "{inside}: {text}");
    }
}

#[test]
fn headers_of_features_that_are_not_there_yet_are_not_implemented() {
    for later in DelayHeaders::LATER {
        let header = format!(
            "<properties xmlns='urn:polymq:properties:1'><p n='{later}'>1</p></properties>"
        );
        let (condition, text) = refused(nothing, &message("t@topics.d", &header));
        assert_eq!(condition, "cancel feature-not-implemented", "{later}");
        names(&text, &[later, "not available yet"]);
    }
}

#[test]
fn a_queue_too_many_is_a_resource_constraint() {
    let world = World::new();
    a_queue(&mut Amqp::connect(&world));
    let mut client = Xmpp::connect(&world, "guest", "r");
    limit_vhost(&world, None, Some(1));
    let jid = client.jid().to_owned();
    let subscribe = format!(
        "<iq type='set' id='x' to='topics.d'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
         <subscribe node='t' jid='{jid}'/></pubsub></iq>"
    );
    for stanza in [command("declare", &[("queue", "second")]), subscribe] {
        let (condition, text) = refused_to(&mut client, &stanza);
        assert_eq!(condition, "wait resource-constraint", "{text}");
        names(&text, &["queue limit (1)", "'/'"]);
    }
}
