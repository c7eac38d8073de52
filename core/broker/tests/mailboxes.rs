//! Mailboxes of users, documents kept for them, and what a connection may ask about queues.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use polymq_contract::{Answer, Command, Consume, Event, Outcome, RefusalKind};
use polymq_model::{ConsumerId, Limits, RequestId, UserName, VhostName};
use world::{Client, World, body_of};

const MAILBOX: &str = "xmpp-mailbox-guest@d";

fn world() -> World {
    let world = World::new();
    world.broker.serve_mailboxes("d");
    world
}

fn revoke(world: &World, user: &str) {
    let none = || "^$".to_owned();
    let none = polymq_broker::PermissionRecord { configure: none(), write: none(), read: none() };
    let vhost = VhostName::new("/").unwrap();
    world.broker.put_permission(vhost, UserName::new(user).unwrap(), none, true).unwrap();
}

fn consume(client: &mut Client, queue: &str) -> Result<Answer, polymq_contract::Refusal> {
    consume_as(client, queue, true)
}

fn consume_as(
    client: &mut Client,
    queue: &str,
    no_ack: bool,
) -> Result<Answer, polymq_contract::Refusal> {
    let consume = |request: RequestId| {
        Command::Consume(Box::new(Consume {
            request,
            consumer: ConsumerId(1),
            queue: queue.to_owned(),
            no_ack,
            exclusive: false,
            prefetch: 0,
            group: 0,
            tag: String::new(),
            arguments: Vec::new(),
        }))
    };
    client.try_ask(consume)
}

fn publish(client: &mut Client, key: &str) {
    client.publish("", key, "m");
}

fn received(client: &mut Client) -> usize {
    client.events().iter().filter(|event| matches!(event, Event::Delivered(_))).count()
}

fn has_queue(world: &World, name: &str) -> bool {
    world.broker.queues().iter().any(|queue| queue.name.as_str() == name)
}

#[test]
fn mailbox_needs_no_permission_of_its_user_and_that_of_everybody_else() {
    let world = world();
    let mut sender = world.connect();
    publish(&mut sender, MAILBOX);
    revoke(&world, "guest");
    revoke(&world, "other");
    let mut owner = world.connect();
    assert!(consume(&mut owner, MAILBOX).is_ok());
    assert_eq!(received(&mut owner), 1);
    let mut other = world.connect_as("other");
    assert_eq!(consume(&mut other, MAILBOX).unwrap_err().kind, RefusalKind::Denied);
    let resource = format!("{MAILBOX}/r");
    assert_eq!(consume(&mut other, &resource).unwrap_err().kind, RefusalKind::Denied);
}

#[test]
fn mailbox_comes_with_a_message_for_a_user_of_our_domain_only() {
    let world = world();
    let mut sender = world.connect();
    for (key, is_made) in [
        ("xmpp-mailbox-other@d/phone", true),
        ("xmpp-mailbox-nobody@d", false),
        ("xmpp-mailbox-guest@elsewhere", false),
        ("xmpp-mailbox-", false),
    ] {
        publish(&mut sender, key);
        let queue = key.split('/').next().unwrap();
        assert_eq!(has_queue(&world, queue), is_made, "{key}");
    }
}

#[test]
fn message_for_a_resource_goes_to_whoever_has_bound_it() {
    let world = world();
    let resource = format!("{MAILBOX}/r");
    let mut sender = world.connect();
    let (mut first, mut second) = (world.connect(), world.connect());
    consume(&mut first, &resource).unwrap();
    publish(&mut sender, &resource);
    assert_eq!(received(&mut first), 1);
    consume(&mut second, &resource).unwrap();
    first.disconnect();
    publish(&mut sender, &resource);
    assert_eq!(received(&mut second), 1, "the end of the earlier one changes nothing");
    second.disconnect();
    publish(&mut sender, &resource);
    let waiting = world.broker.queues();
    let mailbox = waiting.iter().find(|queue| queue.name.as_str() == MAILBOX).unwrap();
    assert_eq!(mailbox.counts.ready, 1, "nobody is there, so it waits");
}

#[test]
fn mailbox_and_documents_go_with_their_user() {
    let world = world();
    let mut sender = world.connect();
    publish(&mut sender, "xmpp-mailbox-other@d");
    write(&mut sender, "other", 1, "text");
    let other = UserName::new("other").unwrap();
    world.broker.remove_user(&other);
    assert!(!has_queue(&world, "xmpp-mailbox-other@d"));
    assert_eq!(read(&mut sender, "other"), (0, String::new()));
}

fn write(client: &mut Client, user: &str, version: u64, text: &str) {
    let (user, name) = (UserName::new(user).unwrap(), "roster".to_owned());
    let text = text.to_owned();
    client.ask(|request| {
        let request = Some(request);
        Command::WriteDocument { request, user, name, version, text }
    });
}

fn read(client: &mut Client, user: &str) -> (u64, String) {
    let (user, name) = (UserName::new(user).unwrap(), "roster".to_owned());
    match client.ask(|request| Command::ReadDocument { request, user, name }) {
        Answer::Document { version, text } => (version, text),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn older_document_is_passed_over_and_the_newest_survives_a_restart() {
    let world = world();
    let mut client = world.connect();
    assert_eq!(read(&mut client, "guest"), (0, String::new()));
    write(&mut client, "guest", 2, "two");
    write(&mut client, "guest", 1, "one");
    assert_eq!(read(&mut client, "guest"), (2, "two".to_owned()));
    let world = world.restart();
    let mut client = world.connect();
    assert_eq!(read(&mut client, "guest"), (2, "two".to_owned()));
}

#[test]
fn list_names_what_may_be_read_page_by_page() {
    let world = world();
    let mut client = world.connect();
    for name in ["a", "b", "c", "secret"] {
        client.queue(name);
    }
    let readable = polymq_broker::PermissionRecord {
        read: "^[abc]$".to_owned(),
        ..polymq_broker::PermissionRecord::all()
    };
    let (vhost, guest) = (VhostName::new("/").unwrap(), UserName::new("guest").unwrap());
    world.broker.put_permission(vhost, guest, readable, true).unwrap();
    let mut page = |after: Option<&str>| {
        let after = after.map(str::to_owned);
        match client.ask(|request| Command::ListQueues { request, after, count_max: 2 }) {
            Answer::Queues { queues, total } => {
                let names = queues.iter().map(|queue| queue.name.as_str().to_owned());
                (names.collect::<Vec<_>>(), total)
            }
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(page(None), (vec!["a".to_owned(), "b".to_owned()], 3));
    assert_eq!(page(Some("b")), (vec!["c".to_owned()], 3));
}

#[test]
fn message_for_a_resource_comes_back_to_the_mailbox_when_nobody_settles_it() {
    let world = world();
    let resource = format!("{MAILBOX}/r");
    let mut sender = world.connect();
    let mut owner = world.connect();
    consume_as(&mut owner, &resource, false).unwrap();
    publish(&mut sender, MAILBOX);
    publish(&mut sender, &resource);
    assert_eq!(received(&mut owner), 1, "the other is for whoever has the mailbox");
    let counts = |world: &World| {
        let queues = world.broker.queues();
        let mailbox = queues.iter().find(|queue| queue.name.as_str() == MAILBOX).unwrap();
        (mailbox.counts.ready, mailbox.counts.unsettled)
    };
    assert_eq!(counts(&world), (1, 1));
    owner.disconnect();
    assert_eq!(counts(&world), (2, 0));
    let mut again = world.connect();
    consume(&mut again, MAILBOX).unwrap();
    assert_eq!(received(&mut again), 2);
}

#[test]
fn message_for_a_resource_survives_a_restart_before_it_is_settled() {
    let world = world();
    let resource = format!("{MAILBOX}/r");
    let mut sender = world.connect();
    let mut owner = world.connect();
    consume_as(&mut owner, &resource, false).unwrap();
    sender.publish("", &resource, "m");
    assert_eq!(received(&mut owner), 1);
    let world = world.restart();
    let mut owner = world.connect();
    consume(&mut owner, MAILBOX).unwrap();
    assert_eq!(received(&mut owner), 1);
}

#[test]
fn resource_without_room_leaves_its_messages_to_the_mailbox() {
    let world = world();
    let resource = format!("{MAILBOX}/r");
    let mut sender = world.connect();
    let mut slow = world.connect();
    consume_as(&mut slow, &resource, false).unwrap();
    let body = "x".repeat(1 << 20);
    for _ in 0..64 {
        sender.publish("", &resource, &body);
    }
    let queues = world.broker.queues();
    let mailbox = queues.iter().find(|queue| queue.name.as_str() == MAILBOX).unwrap();
    let (ready, out) = (mailbox.counts.ready, mailbox.counts.unsettled);
    assert!(ready > 0 && out > 0 && ready + out == 64, "{ready} {out}");
}

#[test]
fn message_out_to_a_resource_is_not_read_again_with_those_that_went_to_the_disk() {
    let limits = Limits { queue_messages_in_memory_max: 8, ..Limits::default() };
    let world = World::with_limits(limits);
    world.broker.serve_mailboxes("d");
    let resource = format!("{MAILBOX}/r");
    let (mut sender, mut owner) = (world.connect(), world.connect());
    consume_as(&mut owner, &resource, false).unwrap();
    // The window is full with what waits before, between and behind what goes past it.
    for number in 0..40 {
        publish(&mut sender, if number < 12 && number % 2 == 1 { &resource } else { MAILBOX });
        // Each is on the disk before the next comes.
        world.broker.committer().kick();
    }
    let counts = || {
        let queues = world.broker.queues();
        queues.iter().find(|queue| queue.name.as_str() == MAILBOX).unwrap().counts
    };
    assert!(counts().in_memory <= 8 && counts().ready == 34, "{:?}", counts());
    let past = received(&mut owner);
    assert!(past > 0);
    let mut reader = world.connect();
    consume(&mut reader, MAILBOX).unwrap();
    let mut read = received(&mut reader);
    loop {
        match received(&mut reader) {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!(past + read, 40, "each comes once");
}

#[test]
fn what_waits_for_others_hides_nothing_that_waits_for_a_resource() {
    let world = world();
    let [one, two] = ["r", "s"].map(|name| format!("{MAILBOX}/{name}"));
    let (mut sender, mut owner) = (world.connect(), world.connect());
    owner.consume(&one, 1, 2);
    owner.consume(&two, 2, 3);
    let mut got = [Vec::new(), Vec::new()];
    let mut take = |owner: &mut Client| {
        let deliveries = owner.deliveries();
        for delivery in &deliveries {
            let at = if delivery.consumer == ConsumerId(1) { 0 } else { 1 };
            got[at].push(body_of(&delivery.message));
            owner.settle(delivery.consumer.0, delivery.number, delivery.number, Outcome::Accepted);
        }
        !deliveries.is_empty()
    };
    for number in 0..90 {
        let key = [MAILBOX, &one, &two][number % 3];
        sender.publish("", key, &number.to_string());
        sender.events();
        if number % 13 == 12 {
            take(&mut owner);
        }
    }
    while take(&mut owner) {}
    let sent = |place: usize| (0..30).map(|n| (n * 3 + place).to_string()).collect::<Vec<_>>();
    assert_eq!(got, [sent(1), sent(2)]);
    let queues = world.broker.queues();
    let mailbox = queues.iter().find(|queue| queue.name.as_str() == MAILBOX).unwrap();
    assert_eq!((mailbox.counts.ready, mailbox.counts.unsettled), (30, 0));
}

/// What a resource that takes two at a time has got of 60 messages, in order.
fn taken_in_order(world: &World, is_holder: bool) -> Vec<String> {
    let resource = format!("{MAILBOX}/r");
    let (mut sender, mut owner) = (world.connect(), world.connect());
    owner.consume(&resource, 1, 2);
    if is_holder {
        owner.consume(MAILBOX, 2, 1);
    }
    let mut got = Vec::new();
    let mut take = |owner: &mut Client| {
        let deliveries = owner.deliveries();
        for delivery in &deliveries {
            got.push(body_of(&delivery.message));
            owner.settle(delivery.consumer.0, delivery.number, delivery.number, Outcome::Accepted);
        }
        !deliveries.is_empty()
    };
    for number in 0..60 {
        sender.publish("", &resource, &number.to_string());
        // Each is on the disk before the next comes; the receiver is slower than the sender.
        sender.events();
        if number % 5 == 4 {
            take(&mut owner);
        }
    }
    while take(&mut owner) {}
    got
}

#[test]
fn nothing_for_a_resource_overtakes_what_waits_for_it() {
    for (in_memory, is_holder) in [(1000, false), (1000, true), (8, false), (8, true)] {
        let limits = Limits { queue_messages_in_memory_max: in_memory, ..Limits::default() };
        let world = World::with_limits(limits);
        world.broker.serve_mailboxes("d");
        let got = taken_in_order(&world, is_holder);
        let sent: Vec<_> = (0..60).map(|number| number.to_string()).collect();
        assert_eq!(got, sent, "{in_memory} in memory, mailbox: {is_holder}");
    }
}
