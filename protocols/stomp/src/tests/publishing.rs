//! SEND: where it leads, what is read of it, how it is answered.

use polymq_model::{Ident, Value, address::Address};

use super::*;

fn send_and_take(headers: &str) -> Publish {
    let mut world = World::connected("1.2");
    world.send(&format!("SEND\n{headers}\nbody\0"));
    assert!(!world.is_closed(), "{:?}", world.said());
    world.published()
}

fn refused(headers: &str) -> String {
    let mut world = World::connected("1.2");
    world.send(&format!("SEND\n{headers}receipt:r\n\nbody\0"));
    let error = world.error();
    assert_eq!(error.get("receipt-id"), Some("r"));
    assert!(world.publishes().is_empty());
    error.text().to_owned()
}

#[test]
fn destinations_lead_to_exchange_and_key() {
    for (destination, exchange, key) in [
        ("/queue/q", "", "q"),
        ("/queue/a%2Fb", "", "a/b"),
        ("/amq/queue/amq.gen-1", "", "amq.gen-1"),
        ("/reply-queue/amq.gen-1", "", "amq.gen-1"),
        ("/topic/a.b", "amq.topic", "a.b"),
        ("/topic/%C3%A9.100%", "amq.topic", "é.100%"),
        ("/exchange/x/k.1", "x", "k.1"),
        ("/exchange/x", "x", ""),
    ] {
        let publish = send_and_take(&format!("destination:{destination}\n"));
        assert_eq!((publish.message.exchange(), publish.message.key()), (exchange, key));
        assert_eq!(publish.message.body(), b"body");
        let told = told(destination).unwrap();
        assert_eq!((&*told.exchange, &*told.key), (exchange, key));
        assert_eq!(told.declares_queue, destination.starts_with("/queue/"));
    }
}

/// Where the protocol says that a destination leads.
fn told(destination: &str) -> Result<polymq_contract::Destination, String> {
    Stomp::new(Settings::default()).destination(destination, &Limits::default()).unwrap()
}

#[test]
fn wrong_destinations_are_refused_with_the_fix() {
    for (destination, why) in [
        ("q", "is none of"),
        ("/nowhere/q", "is none of"),
        ("/queue/a/b", "%2F"),
        ("/topic/a/b", "levels are separated by `.`"),
        ("/queue/", "ends before its name"),
        ("/exchange/x/a/b", "part too many"),
        ("/temp-queue/x", "reply-to only"),
        ("/queue/%FF", "UTF-8"),
        ("/queue/%00", "NUL"),
    ] {
        let text = refused(&format!("destination:{destination}\n"));
        assert!(text.contains(why), "{text}");
        assert!(told(destination).unwrap_err().contains(why));
    }
    assert!(refused("").contains("no header 'destination'"));
    let deep = "x.".repeat(200);
    assert!(refused(&format!("destination:/topic/{deep}\n")).contains("200 levels"));
}

#[test]
fn missing_queue_is_declared_on_first_use() {
    let mut world = World::connected("1.2");
    world.refuse("find", RefusalKind::NotFound);
    world.send("SEND\ndestination:/queue/q\n\na\0SEND\ndestination:/queue/q\n\nb\0");
    let orders = std::mem::take(&mut world.orders);
    let [
        Command::FindQueue { queue: looked_for, .. },
        Command::DeclareQueue(make),
        Command::Publish(a),
        Command::Publish(b),
    ] = &orders[..]
    else {
        panic!("{orders:?}")
    };
    assert!(looked_for == "q" && !make.passive);
    assert!(make.durable && !make.exclusive && !make.auto_delete && make.queue == "q");
    assert_eq!((a.message.body(), b.message.body()), (&b"a"[..], &b"b"[..]));
}

#[test]
fn queue_that_is_there_is_taken_as_it_is() {
    let mut world = World::connected("1.2");
    world.send("SEND\ndestination:/queue/q\n\na\0");
    assert_eq!((world.publishes().len(), world.declares().len()), (1, 0));
    world.refuse("find", RefusalKind::Locked);
    world.send("SEND\ndestination:/queue/mine\n\na\0");
    assert_eq!(world.publishes().len(), 1);
}

#[test]
fn first_send_may_say_how_its_queue_is_made() {
    let mut world = World::connected("1.2");
    world.send("SEND\ndestination:/queue/q\nx-max-length:5\nx-other:1\npersistent:true\n\na\0");
    let publish = world.orders.iter().any(|order| matches!(order, Command::Publish(_)));
    assert!(publish);
    let declares = world.declares();
    let [make] = &declares[..] else { panic!("{declares:?}") };
    assert!(!make.passive);
    assert_eq!(make.arguments, [("x-max-length".to_owned(), Value::String("5".to_owned()))]);
}

#[test]
fn queue_that_cannot_be_made_ends_the_connection() {
    let mut world = World::connected("1.2");
    world.refuse("find", RefusalKind::NotFound);
    world.refuse("declare", RefusalKind::Denied);
    world.send("SEND\ndestination:/queue/q\nreceipt:r\n\na\0SEND\ndestination:/topic/t\n\nb\0");
    let error = world.error();
    assert_eq!(error.get("message"), Some("access refused"));
    assert_eq!(error.get("receipt-id"), Some("r"));
    assert!(world.publishes().is_empty());
}

#[test]
fn headers_become_fields_and_the_others_travel_on() {
    let publish = send_and_take(
        "destination:/topic/t\ncontent-type:text/plain\npersistent:true\npriority:7\n\
         expiration:5000\ntimestamp:1700000000\namqp-message-id:m1\ncorrelation-id:c1\n\
         reply-to:/queue/back\ntype:order\napp-id:shop\nuser-id:guest\nJMSXGroupID:g\n\
         x-retain:true\nmine:1\nmine:2\nk\\c:a\\nb\n",
    );
    let message = publish.message;
    assert!(message.is_durable() && message.retain());
    assert_eq!(message.priority(), Some(7));
    assert_eq!(message.deadline_ms(), BEGINNING_MS + 5000);
    let props = message.properties();
    assert_eq!(props.durable, Some(true));
    assert_eq!(props.content_type.as_deref(), Some("text/plain"));
    assert_eq!(props.ttl_ms, Some(5000));
    assert_eq!(props.timestamp_ms, Some(1_700_000_000_000));
    assert_eq!(props.id, Some(Ident::Text("m1".to_owned())));
    assert_eq!(props.correlation, Some(Ident::Text("c1".to_owned())));
    assert_eq!(props.reply_to, Some(Address::Queue("back".to_owned())));
    assert_eq!(props.kind.as_deref(), Some("order"));
    assert_eq!(props.group_id.as_deref(), Some("g"));
    let text = |text: &str| Value::String(text.to_owned());
    let headers = [("mine", "1"), ("mine", "2"), ("k:", "a\nb")];
    assert_eq!(props.headers, headers.map(|(name, value)| (name.to_owned(), text(value))));
    assert_eq!(props.header("mine"), Some(&text("1")));
}

#[test]
fn numbers_and_destinations_of_1_0_have_no_space_in_front() {
    let mut world = World::connected("1.0");
    world.send(
        "SEND\ndestination: /topic/t\npriority: 7\nx-retain: true\ntimestamp: 1700000000\n\
         correlation-id: c1\nreply-to: /queue/back\r\nx-mq-qos: 2\n\
         mine: 1\n\nbody\0",
    );
    let message = world.published().message;
    assert_eq!((message.priority(), message.retain(), message.qos()), (Some(7), true, 2));
    let props = message.properties();
    assert_eq!(props.timestamp_ms, Some(1_700_000_000_000));
    let correlation = Some(Ident::Text(" c1".to_owned()));
    assert_eq!(props.correlation, correlation, "a text may begin with a space");
    assert_eq!(props.reply_to, Some(Address::Queue("back".to_owned())));
    let mine = ("mine".to_owned(), Value::String(" 1".to_owned()));
    assert_eq!(props.headers, [mine], "a header of the client's own is as it came");
}

#[test]
fn unsaid_stays_unsaid() {
    let publish = send_and_take("destination:/topic/t\n");
    assert!(!publish.message.is_durable());
    assert_eq!(publish.message.priority(), None);
    assert_eq!(publish.message.deadline_ms(), 0);
    assert_eq!(publish.message.properties().durable, None);
    assert_eq!(publish.number, 0);
}

#[test]
fn expiry_may_be_a_moment() {
    let at = BEGINNING_MS + 1500;
    let publish = send_and_take(&format!("destination:/topic/t\nexpires:{at}\n"));
    assert_eq!(publish.message.deadline_ms(), at);
    assert_eq!(publish.message.properties().ttl_ms, Some(1500));
    let publish = send_and_take("destination:/topic/t\nexpires:0\n");
    assert_eq!(publish.message.deadline_ms(), 0);
    let both = format!("destination:/topic/t\nexpires:{at}\nexpiration:1000\n");
    assert_eq!(send_and_take(&both).message.deadline_ms(), BEGINNING_MS + 1000);
    let carried = "destination:/topic/t\nexpiration:1000\nx-mq-ttl:900\n";
    assert_eq!(send_and_take(carried).message.deadline_ms(), BEGINNING_MS + 900);
}

#[test]
fn wrong_values_are_refused() {
    for (header, why) in [
        ("priority:256", "number from 0 to 255"),
        ("priority:x", "number from 0 to 255"),
        ("persistent:yes", "true or false"),
        ("expiration:-1", "whole number"),
        ("expires:soon", "whole number"),
        ("user-id:somebody", "the user is 'guest'"),
        ("message-id:m", "given by the server"),
    ] {
        let text = refused(&format!("destination:/topic/t\n{header}\n"));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_belongs_to_the_server_does_not_travel_on() {
    let publish = send_and_take(
        "destination:/topic/t\nx-death:[]\nx-death:[]\nx-delivery-count:9\nsubscription:s\n\
         ack:a\nredelivered:true\ncontent-length:4\nx-mq-user:somebody\nmine:1\n",
    );
    assert_eq!(publish.message.native_props(), b"mine:1\n");
}

#[test] // semantics: a receipt follows durability.
fn receipt_comes_after_the_confirm() {
    let mut world = World::connected("1.2");
    world.holds_confirms = true;
    world.send("SEND\ndestination:/topic/t\nreceipt:a\\cb\n\nx\0");
    world.send("SEND\ndestination:/topic/t\nreceipt:2\n\nx\0");
    world.send("SEND\ndestination:/topic/t\n\nx\0");
    assert!(world.said().is_empty());
    world.event(confirmed(2, PublishOutcome::Unrouted));
    assert!(world.said().is_empty(), "receipts come in the order of their frames");
    world.event(confirmed(1, PublishOutcome::Routed(Durability::Sync)));
    let said = world.said();
    assert_eq!(said[0].get("receipt-id"), Some("a\\cb"));
    assert_eq!(said[0].get("x-durability"), Some("sync"));
    assert_eq!(said[0].get("x-routed"), None);
    assert_eq!(said[1].get("x-routed"), Some("false"));
    assert_eq!(said[1].get("x-durability"), None);
}

#[test]
fn refused_publish_is_an_error_with_its_receipt() {
    let mut world = World::connected("1.2");
    world.holds_confirms = true;
    world.send("SEND\ndestination:/topic/t\nreceipt:1\n\nx\0");
    world.send("SEND\ndestination:/topic/t\nreceipt:2\n\nx\0");
    world.event(confirmed(1, PublishOutcome::Routed(Durability::Sync)));
    world.event(confirmed(2, PublishOutcome::Refused(RefusalKind::Full)));
    let said = world.said();
    assert_eq!(said[0].get("receipt-id"), Some("1"));
    assert_eq!(said[1].get("receipt-id"), Some("2"));
    assert_eq!(said[1].get("message"), Some("queue full"));
    let mut world = World::connected("1.2");
    world.send("SEND\ndestination:/exchange/x/k\n\nx\0");
    let refusal = Box::new(Refusal::new(RefusalKind::NotFound, "no exchange 'x'"));
    world.event(Event::PublishRefused { publisher: PublisherId(0), number: 0, refusal });
    let error = world.error();
    assert_eq!((error.get("receipt-id"), error.text()), (None, "no exchange 'x'"));
}

#[test]
fn receipts_that_pile_up_stop_the_reading() {
    let mut world = World::connected("1.2");
    world.holds_confirms = true;
    let frame = format!("SEND\ndestination:/topic/t\nreceipt:{}\n\nx\0", "r".repeat(60_000));
    for _ in 0..40 {
        world.send(&frame);
    }
    assert!(world.effects.waiting && world.publishes().len() < 20);
    for number in 1..=40 {
        world.event(confirmed(number, PublishOutcome::Routed(Durability::Sync)));
        assert_eq!(world.receipts().len(), 1);
    }
}

#[test]
fn long_bodies_share_the_read_buffer() {
    let mut world = World::connected("1.2");
    let body = vec![b'x'; 100_000];
    for length in ["", "content-length:100000\n"] {
        let head = format!("SEND\ndestination:/queue/q\n{length}\n");
        world.send_bytes(&[head.as_bytes(), &body, b"\0"].concat());
        let publish = world.published();
        assert_eq!(publish.message.large_body().unwrap(), &body);
    }
    assert!(world.input.is_empty());
}

#[test]
fn answers_reach_a_private_queue() {
    let mut world = World::connected("1.2");
    world.send("SEND\ndestination:/queue/q\nreply-to:/temp-queue/x\n\na\0");
    let consume = world.consume();
    assert_eq!((consume.queue.as_str(), consume.no_ack), ("amq.gen-1", true));
    let made = world.orders.iter().find_map(|order| match order {
        Command::DeclareQueue(declare) if declare.queue.is_empty() => Some(declare),
        _ => None,
    });
    let made = made.expect("a private queue");
    assert!(made.exclusive && made.auto_delete && !made.durable);
    let publish = world.published();
    assert_eq!(publish.message.native_props(), b"reply-to:/reply-queue/amq.gen-1\n");
    world.send("SEND\ndestination:/queue/q\nreply-to:/temp-queue/x\n\nb\0");
    assert!(matches!(&world.orders[..], [Command::Publish(_)]), "it is made once");
    world.deliver(consume.consumer, 0, message("", "amq.gen-1", "", b"answer"));
    let answer = world.one();
    assert_eq!(answer.get("subscription"), Some("/temp-queue/x"));
    assert_eq!(answer.body, b"answer");
}

#[test]
fn delay_is_taken_out_of_the_headers() {
    use polymq_model::delay::Delay;

    let sent = send_and_take("destination:/queue/q\nx-delay:5\nmine:a\nx-delay:later\n");
    assert_eq!(sent.delay, Some(Delay::For(5)));
    assert_eq!(sent.message.native_props(), b"mine:a\n");
    let sent = send_and_take("AMQ_SCHEDULED_TIME:7\ndestination:/queue/q\n");
    assert_eq!(sent.delay, Some(Delay::Until(7)));
    // So a message that is sent on as it was received is not delayed again.
    let sent = send_and_take("destination:/queue/q\nx-delay:-5\n");
    assert_eq!((sent.delay, sent.message.native_props()), (None, b"x-delay:-5\n".as_slice()));
    let why = refused("destination:/queue/q\nx-delay:soon\n");
    assert!(why.contains("x-delay"), "{why}");
}
