//! Section 13: what lives by rights is asked for them again when they change.

use polymq_broker::{Ban, BanTarget, NewToken, PermissionRecord, TopicSyntax, UserChange};
use polymq_contract::{
    CancelReason, Command, Event, Login, OpenClientSession, Outcome, RefusalKind, Secret,
    Subscription, SubscriptionTarget,
};
use polymq_model::{ConsumerId, VhostName};

use crate::{
    counter, ready, root,
    topic_permissions::{bound, manager, publish_is_denied, user},
    world::{Client, World, kind_of, message, session, topic_subscription, will},
};

fn allow(world: &World, configure: &str, write: &str, read: &str) {
    let record =
        PermissionRecord { configure: configure.into(), write: write.into(), read: read.into() };
    manager(world).put_permission(&root(), &user("other"), record).unwrap();
}

/// Which consumers have ended, and why.
fn cancelled(client: &mut Client) -> Vec<(u32, CancelReason)> {
    let told = client.wake().events().into_iter().filter_map(|event| match event {
        Event::ConsumerCancelled { consumer, reason } => Some((consumer.0, reason)),
        _ => None,
    });
    told.collect()
}

/// Why the broker wants the connection closed, if it does.
fn closing(client: &mut Client) -> Option<String> {
    client.wake().events().into_iter().find_map(|event| match event {
        Event::Closing { reason, shutdown: false } => Some(reason.into()),
        _ => None,
    })
}

#[test]
fn a_consumer_ends_with_the_right_to_read_and_returns_what_it_has() {
    let world = World::new();
    let mut maker = world.connect();
    for queue in ["q", "r"] {
        maker.queue(queue);
    }
    let mut client = world.connect_as("other");
    client.consume("q", 1, 10);
    client.consume("r", 2, 10);
    maker.publish("", "q", "m");
    maker.publish("", "r", "m");
    assert_eq!(client.deliveries().len(), 2);
    allow(&world, ".*", ".*", "^r$");
    assert_eq!(cancelled(&mut client), [(1, CancelReason::Denied)]);
    assert_eq!(ready(&world, "q"), 1);
    maker.publish("", "q", "more");
    maker.publish("", "r", "more");
    let bodies = client.bodies();
    assert_eq!(bodies, ["more"]);
    // What its client settles afterwards is no mistake, and does nothing.
    client.settle(1, 1, 1, Outcome::Accepted);
    assert_eq!(ready(&world, "q"), 2);
    let refused = client.try_ask(|request| Command::Get {
        request,
        queue: "q".into(),
        no_ack: true,
        consumer: ConsumerId(7),
    });
    assert_eq!(kind_of(refused), RefusalKind::Denied);
}

#[test]
fn a_consumer_that_may_go_on_goes_on() {
    let world = World::new();
    let mut client = world.connect_as("other");
    client.queue("q");
    client.consume("q", 1, 10);
    allow(&world, "", "", "q");
    manager(&world)
        .put_topic_permission(
            &root(),
            &user("other"),
            "amq.topic",
            polymq_broker::TopicPermissionRecord {
                write: String::new(),
                read: String::new(),
                syntax: TopicSyntax::Regex,
            },
        )
        .unwrap();
    assert!(cancelled(&mut client).is_empty());
    world.connect().publish("", "q", "m");
    assert_eq!(client.bodies(), ["m"]);
}

#[test]
fn subscriptions_end_with_the_right_to_read_their_topics() {
    for qos in 0..2 {
        let world = World::new();
        let mut maker = world.connect();
        let mut client = world.connect_as("other");
        client.open(session("c", true, 3600));
        client.subscribe("a/#", qos);
        client.subscribe("b/#", qos);
        client.events();
        bound(&world, "amq.topic", "", "a/#", TopicSyntax::Slash);
        maker.publish("amq.topic", "a.x", "a");
        maker.publish("amq.topic", "b.x", "b");
        let events = client.events();
        let denied = events.iter().any(|event| {
            matches!(event, Event::ConsumerCancelled { reason: CancelReason::Denied, .. })
        });
        assert!(denied, "{events:?}");
        assert_eq!(events.len(), 2, "the denial and one message: {events:?}");
        // It does not come back with the client.
        client.disconnect();
        let mut client = world.connect_as("other");
        let opened = client.open(session("c", false, 3600));
        let filters: Vec<_> = opened.subscriptions.iter().map(|known| &*known.filter).collect();
        assert_eq!(filters, ["a/#"]);
    }
}

#[test]
fn messages_that_wait_in_a_session_are_kept_from_it_after_a_restart_too() {
    let mut world = World::new();
    let mut client = world.connect_as("other");
    client.open(session("c", true, 3600));
    client.subscribe("a/#", 1);
    client.subscribe("b/#", 1);
    client.disconnect();
    let mut maker = world.connect();
    maker.publish("amq.topic", "b.x", "denied");
    maker.publish("amq.topic", "a.x", "free");
    bound(&world, "amq.topic", "", "a/#", TopicSyntax::Slash);
    // Twice, because the second start finds what the first has read and written.
    for _ in 0..2 {
        world = world.restart();
    }
    // A right that comes back is one to what comes from then on.
    bound(&world, "amq.topic", "", "#", TopicSyntax::Slash);
    let mut client = world.connect_as("other");
    client.open(session("c", false, 3600));
    client.subscribe("b/#", 1);
    assert_eq!(client.bodies(), ["free"]);
    world.connect().publish("amq.topic", "b.x", "later");
    assert_eq!(client.bodies(), ["later"]);
}

#[test]
fn messages_that_wait_in_a_session_are_not_delivered_once_their_topic_is_denied() {
    let world = World::new();
    let mut maker = world.connect();
    let mut client = world.connect_as("other");
    client.open(session("c", true, 3600));
    client.subscribe("a/#", 1);
    client.subscribe("b/#", 1);
    client.disconnect();
    for key in ["b.1", "a.1", "b.2", "a.2"] {
        maker.publish("amq.topic", key, key);
    }
    bound(&world, "amq.topic", "", "a/#", TopicSyntax::Slash);
    maker.publish("amq.topic", "b.3", "b.3");
    let mut client = world.connect_as("other");
    client.open(session("c", false, 3600));
    assert_eq!(client.bodies(), ["a.1", "a.2"]);
    assert_eq!(counter(&world, "dropped_permission"), 2);
}

#[test]
fn subscriptions_of_queues_and_shares_end_with_their_rights() {
    let world = World::new();
    let mut maker = world.connect();
    maker.queue("q");
    let mut client = world.connect_as("other");
    client.open(session("c", true, 3600));
    let share = SubscriptionTarget::Share {
        queue: "share".into(),
        exchange: "amq.topic".into(),
        pattern: "a.#".into(),
    };
    let targets = [(7, SubscriptionTarget::Queue { queue: "q".into() }), (8, share)];
    for (consumer, target) in targets {
        client.subscribe_with(Subscription {
            filter: format!("f{consumer}"),
            target,
            consumer: ConsumerId(consumer),
            ..topic_subscription("x", 1)
        });
    }
    client.events();
    allow(&world, ".*", ".*", "amq.topic");
    assert_eq!(cancelled(&mut client), [(7, CancelReason::Denied)]);
    allow(&world, ".*", ".*", "^q$");
    assert_eq!(cancelled(&mut client), [(8, CancelReason::Denied)]);
    client.disconnect();
    let mut client = world.connect_as("other");
    assert!(client.open(session("c", false, 3600)).subscriptions.is_empty());
}

#[test]
fn queues_of_one_owner_lose_the_bindings_that_it_may_not_have_any_more() {
    let world = World::new();
    let mut maker = world.connect();
    let mut client = world.connect_as("other");
    for (queue, key) in [("both", "a.#"), ("both", "b.#"), ("one", "b.#")] {
        crate::try_declare(&mut client, queue, &[], |declare| declare.exclusive = true).unwrap();
        client.bind("amq.topic", queue, key);
    }
    // A queue that others may use keeps its bindings.
    client.queue("shared");
    client.bind("amq.topic", "shared", "b.#");
    client.consume("both", 1, 0);
    client.consume("one", 2, 0);
    bound(&world, "amq.topic", "", "a/#", TopicSyntax::Slash);
    assert_eq!(cancelled(&mut client), [(2, CancelReason::Denied)]);
    for key in ["a.x", "b.x"] {
        maker.publish("amq.topic", key, key);
    }
    assert_eq!(client.bodies(), ["a.x"]);
    assert_eq!(ready(&world, "shared"), 1);
}

#[test]
fn a_will_is_not_published_without_the_right_to_write() {
    let world = World::new();
    let mut maker = world.connect();
    maker.queue("q");
    maker.bind("amq.topic", "q", "#");
    let mut client = world.connect_as("other");
    let last = message("amq.topic", "last.word", "will").build(&mut Vec::new());
    client.open(OpenClientSession { will: will(last, 0), ..session("c", true, 0) });
    allow(&world, ".*", "amq.direct", ".*");
    client.disconnect();
    assert_eq!(maker.get("q"), None);
}

#[test]
fn connections_end_when_the_virtual_host_is_closed_to_their_user() {
    let world = World::new();
    let mut client = world.connect_as("other");
    let mut stays = world.connect();
    manager(&world).remove_permission(&root(), &user("other")).unwrap();
    let reason = closing(&mut client).expect("the connection is closed");
    assert!(reason.contains("refused for user 'other'"), "{reason}");
    assert!(publish_is_denied(&mut client, "", "q"));
    assert_eq!(closing(&mut stays), None);
    let refused = world.try_connect_as("other").err().unwrap();
    assert_eq!(refused.kind, RefusalKind::Denied);
}

#[test]
fn connections_and_sessions_end_with_their_user() {
    let world = World::new();
    let mut away = world.connect_as("other");
    away.open(session("away", true, 3600));
    away.subscribe("#", 1);
    away.disconnect();
    let mut client = world.connect_as("other");
    client.open(session("here", true, 3600));
    manager(&world).remove_user(&user("other")).unwrap();
    assert_eq!(closing(&mut client).as_deref(), Some("the user was deleted"));
    assert!(publish_is_denied(&mut client, "amq.topic", "x"));
    client.disconnect();
    assert_eq!(world.broker.session_counts().0, 0);
    assert_eq!(world.restart().broker.session_counts().0, 0);
}

#[test]
fn connections_end_when_the_password_of_their_user_changes() {
    let world = World::new();
    let mut client = world.connect_as("other");
    let boss = manager(&world);
    let tags = UserChange { tags: Some(vec!["monitoring".into()]), ..UserChange::default() };
    assert!(!boss.put_user(&user("other"), tags).unwrap());
    assert_eq!(closing(&mut client), None);
    let credentials = polymq_broker::Credentials::imported(
        "rabbit_password_hashing_sha256",
        "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
    );
    let password = UserChange { credentials: credentials.ok(), ..UserChange::default() };
    boss.put_user(&user("other"), password).unwrap();
    let reason = closing(&mut client).expect("the connection is closed");
    assert_eq!(reason, "the password of the user has changed");
    // A better hash of the same password changes nothing for anybody.
    let mut client = world.connect_as("other");
    let before = world.broker.access().user("other").unwrap().password_hash.clone();
    let better =
        polymq_broker::Credentials { password_hash: "better".into(), scram: "keys".into() };
    world.broker.improve_credentials(&user("other"), &before, better);
    world.broker.improve_credentials(&user("other"), &before, Default::default());
    assert_eq!(closing(&mut client), None);
    let after = world.broker.access().user("other").unwrap();
    assert_eq!((&*after.password_hash, &*after.scram), ("better", "keys"));
}

#[test]
fn connections_end_when_their_user_may_not_speak_for_others_any_more() {
    let world = World::new();
    let boss = manager(&world);
    let tags = |tags: &[&str]| UserChange {
        tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
        ..UserChange::default()
    };
    boss.put_user(&user("other"), tags(&["impersonator"])).unwrap();
    let mut client = world.connect_as("other");
    boss.put_user(&user("other"), tags(&["impersonator", "monitoring"])).unwrap();
    assert_eq!(closing(&mut client), None);
    boss.put_user(&user("other"), tags(&[])).unwrap();
    assert!(closing(&mut client).is_some());
}

#[test]
fn bans_keep_out_and_end_what_is_there_until_they_are_over() {
    let world = World::new();
    let boss = manager(&world);
    let mut client = world.connect_as("other");
    client.open(session("c", true, 0));
    let until_ms = Some(world.now().unix_ms + 60_000);
    let ban = |target| Ban { target, reason: "for tests".into(), until_ms };
    assert!(boss.put_ban("id", ban(BanTarget::ClientId("c".into()))).unwrap());
    assert_eq!(closing(&mut client).as_deref(), Some("the client id is banned"));
    client.disconnect();
    let mut client = world.connect_as("other");
    let refused = client.try_ask(|request| {
        Command::OpenClientSession(Box::new(OpenClientSession { request, ..session("c", true, 0) }))
    });
    assert_eq!(kind_of(refused), RefusalKind::Banned);
    boss.put_ban("user", ban(BanTarget::User("other".into()))).unwrap();
    assert_eq!(closing(&mut client).as_deref(), Some("the user is banned"));
    client.disconnect();
    let mut world = world.restart();
    assert_eq!(world.log_in("other").unwrap_err().kind, RefusalKind::Banned);
    world.log_in("guest").unwrap();
    world.pass(60_001);
    world.log_in("other").unwrap();
    assert!(manager(&world).bans().unwrap().is_empty());
    assert!(manager(&world.restart()).bans().unwrap().is_empty());
}

#[test]
fn nobody_bans_themselves() {
    let world = World::new();
    let boss = manager(&world);
    let target = BanTarget::User("boss".into());
    let refused = boss.put_ban("b", Ban { target, reason: String::new(), until_ms: None });
    assert_eq!(refused.unwrap_err().kind, RefusalKind::Invalid);
}

#[test]
fn a_token_narrows_the_rights_of_its_user_in_everything() {
    let mut world = World::new();
    let mut maker = world.connect();
    for queue in ["q", "r"] {
        maker.queue(queue);
    }
    let scopes = ["read:%2F/q", "write:*/amq.topic/a.*"].map(str::to_owned).to_vec();
    let expires_ms = Some(world.now().unix_ms + 10_000);
    let new = NewToken { name: "t".into(), scopes, expires_ms };
    let (view, secret) = manager(&world).make_token(&user("other"), new).unwrap();
    let token = String::from_utf8(secret.expose().to_vec()).unwrap();
    assert!(token.starts_with(polymq_broker::TOKEN_PREFIX));
    let mut client = world.connect_with_token(&token).unwrap();
    client.consume("q", 1, 1);
    let refused = client.try_ask(|request| Command::Get {
        request,
        queue: "r".into(),
        no_ack: true,
        consumer: ConsumerId(7),
    });
    assert_eq!(kind_of(refused), RefusalKind::Denied);
    assert!(!publish_is_denied(&mut client, "amq.topic", "a.b"));
    assert!(publish_is_denied(&mut client, "amq.topic", "b.a"));
    assert!(publish_is_denied(&mut client, "", "q"));
    // What the user may not do, its token may not do either.
    allow(&world, "", "", "^q$");
    assert!(publish_is_denied(&mut client, "amq.topic", "a.b"));
    // It is good for its time, and the connection as well.
    world.pass(9_000);
    assert_eq!(closing(&mut client), None);
    assert!(!world.broker.is_token_over(token.as_bytes()));
    world.pass(1_500);
    assert!(world.broker.is_token_over(token.as_bytes()));
    // Only to whoever has it.
    assert!(!world.broker.is_token_over(&token.as_bytes()[..token.len() - 1]));
    assert_eq!(closing(&mut client).as_deref(), Some("the token of the login has ended"));
    assert!(world.connect_with_token(&token).is_err());
    assert_eq!(manager(&world).tokens(&user("other")).unwrap(), [view]);
}

#[test]
fn a_token_that_may_not_read_them_leaves_the_subscriptions_of_its_user_alone() {
    let world = World::new();
    allow(&world, "", ".*", ".*");
    let mut client = world.connect_as("other");
    client.open(session("c", true, 600));
    client.subscribe("a/#", 1);
    client.disconnect();
    let token = |scope: &str| {
        let scopes = vec![scope.to_owned()];
        let new = NewToken { name: "t".into(), scopes, expires_ms: None };
        let (_, secret) = manager(&world).make_token(&user("other"), new).unwrap();
        String::from_utf8(secret.expose().to_vec()).unwrap()
    };
    let mut narrow = world.connect_with_token(&token("read:*/q")).unwrap();
    for clean in [false, true] {
        let refused = narrow.try_ask(|request| {
            Command::OpenClientSession(Box::new(OpenClientSession {
                request,
                ..session("c", clean, 600)
            }))
        });
        assert_eq!(kind_of(refused), RefusalKind::Denied);
    }
    let mut wide = world.connect_with_token(&token("read:*/*")).unwrap();
    assert_eq!(wide.open(session("c", false, 600)).subscriptions.len(), 1);
}

#[test]
fn a_new_token_in_place_of_the_old_one_brings_its_time_and_its_rights() {
    let mut world = World::new();
    world.connect().queue("q");
    allow(&world, "", "", "^q$");
    let token = |scope: &str, ms: u64| {
        let expires_ms = Some(world.now().unix_ms + ms);
        let new = NewToken { name: "t".into(), scopes: vec![scope.to_owned()], expires_ms };
        let (_, secret) = manager(&world).make_token(&user("other"), new).unwrap();
        secret
    };
    let (short, long, other) =
        (token("read:*/q", 10_000), token("read:*/q", 60_000), token("read:*/r", 60_000));
    let text = String::from_utf8(short.expose().to_vec()).unwrap();
    let mut client = world.connect_with_token(&text).unwrap();
    client.consume("q", 1, 1);
    let renew = |client: &mut Client, password: Secret| {
        let mut login = Some(Box::new(Login::Password { user: String::new(), password }));
        client.try_ask(|request| Command::Authenticate {
            request,
            login: login.take().expect("it is asked once"),
        })
    };
    renew(&mut client, long).unwrap();
    world.pass(15_000);
    assert_eq!(closing(&mut client), None);
    assert!(renew(&mut client, Secret::new("wrong")).is_err());
    renew(&mut client, other).unwrap();
    assert_eq!(cancelled(&mut client), [(1, CancelReason::Denied)]);
}

#[test]
fn a_connection_ends_with_the_certificate_that_let_it_in() {
    let mut world = World::new();
    let until_ms = world.now().unix_ms + 10_000;
    let mut client = world.connect_with_certificate("other", until_ms).unwrap();
    world.pass(9_000);
    assert_eq!(closing(&mut client), None);
    world.pass(1_500);
    assert_eq!(closing(&mut client).as_deref(), Some("the client certificate has ended"));
    assert!(world.connect_with_certificate("other", until_ms).is_err());
}

#[test]
fn revoking_a_token_ends_its_connections_and_survives_a_restart() {
    let world = World::new();
    let new = || NewToken { name: "t".into(), ..NewToken::default() };
    let boss = manager(&world);
    let (kept, kept_secret) = boss.make_token(&user("other"), new()).unwrap();
    let (gone, gone_secret) = boss.make_token(&user("other"), new()).unwrap();
    let text = |secret: Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
    let (kept_secret, gone_secret) = (text(kept_secret), text(gone_secret));
    let mut client = world.connect_with_token(&gone_secret).unwrap();
    let mut stays = world.connect_with_token(&kept_secret).unwrap();
    boss.revoke_token(&user("other"), &gone.id).unwrap();
    assert!(closing(&mut client).is_some());
    assert_eq!(closing(&mut stays), None);
    let world = world.restart();
    assert!(world.connect_with_token(&gone_secret).is_err());
    let mut client = world.connect_with_token(&kept_secret).unwrap();
    assert!(!publish_is_denied(&mut client, "amq.topic", "x"));
    assert_eq!(manager(&world).tokens(&user("other")).unwrap(), [kept]);
    // Tokens go with their user.
    world.broker.remove_user(&user("other"));
    assert!(world.connect_with_token(&kept_secret).is_err());
}

#[test]
fn a_token_that_is_nearly_right_is_wrong() {
    let world = World::new();
    let (_, secret) = manager(&world).make_token(&user("other"), NewToken::default()).unwrap();
    let token = String::from_utf8(secret.expose().to_vec()).unwrap();
    let (id, _) = token.strip_prefix("pmq_").unwrap().split_once('_').unwrap();
    for wrong in [
        String::new(),
        "pmq_".into(),
        format!("pmq_{id}_"),
        format!("{token}0"),
        token[..token.len() - 1].to_owned(),
        token[4..].to_owned(),
        token.to_uppercase(),
    ] {
        assert!(world.broker.check_token(wrong.as_bytes()).is_none(), "{wrong}");
    }
    assert!(world.broker.check_token(token.as_bytes()).is_some());
}

#[test]
fn a_new_virtual_host_of_an_old_name_has_no_rights_of_the_old_one() {
    let mut world = World::new();
    let boss = manager(&world);
    let second = VhostName::new("second").unwrap();
    boss.put_vhost(&second, Default::default()).unwrap();
    boss.put_permission(&second, &user("other"), PermissionRecord::all()).unwrap();
    let record = polymq_broker::TopicPermissionRecord {
        write: "a".into(),
        read: "a".into(),
        syntax: TopicSyntax::Dot,
    };
    boss.put_topic_permission(&second, &user("other"), "amq.topic", record).unwrap();
    boss.delete_vhost(&second).unwrap();
    world.pass(200);
    boss.put_vhost(&second, Default::default()).unwrap();
    let world = world.restart();
    assert!(world.broker.access().topic_permissions().is_empty());
    assert_eq!(
        world.try_connect_to(Some("second"), "other").err().unwrap().kind,
        RefusalKind::Denied
    );
}

#[test]
fn whoever_may_publish_to_a_queue_may_know_that_it_is_there() {
    let world = World::new();
    world.connect().queue("q");
    let mut client = world.connect_as("other");
    let mut find = |queue: &str| {
        let queue = queue.to_owned();
        client.try_ask(|request| Command::FindQueue { request, queue })
    };
    allow(&world, "^$", "^amq\\.default$", "^$");
    assert!(find("q").is_ok());
    assert_eq!(kind_of(find("none")), RefusalKind::NotFound);
    allow(&world, "^$", "^$", "^q$");
    assert!(find("q").is_ok());
    assert_eq!(kind_of(find("none")), RefusalKind::Denied);
}
