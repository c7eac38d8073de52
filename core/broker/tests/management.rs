//! Management: who may do what, what comes of it, and what is written down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::sync::{Arc, Mutex};

use polymq_broker::{
    ApplyTo, AuditEntry, AuditResult, Ban, BanTarget, Credentials, Manager, NewToken,
    PermissionQuestion, PermissionRecord, PolicyKind, PolicyRecord, Principal, Role,
    TopicPermissionRecord, TopicSyntax, UserChange, UserLimits, UserRecord, VhostLimits,
    VhostRecord,
};
use polymq_contract::{Login, Refusal, RefusalKind, Secret};
use polymq_model::{UserName, Value, VhostName};
use world::World;

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

/// A user with one tag, or none, who has a permission in the root.
fn manager(world: &World, tag: &str) -> Manager {
    let name = user(if tag.is_empty() { "nobody" } else { tag });
    let tags = [tag].into_iter().filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    let record = UserRecord {
        password_hash: "$argon2id$planted-hash".into(),
        scram: "planted-scram".into(),
        tags,
        loopback_only: false,
    };
    world.broker.put_user(name.clone(), record, true);
    world.broker.put_permission(root(), name.clone(), PermissionRecord::all(), true).unwrap();
    world.broker.manage(&Principal::of_user(name), "192.0.2.1:5")
}

fn by_token(password: Secret) -> Login {
    Login::Password { user: String::new(), password }
}

fn policy() -> PolicyRecord {
    PolicyRecord {
        pattern: ".*".into(),
        apply_to: ApplyTo::Queues,
        priority: 0,
        definition: vec![("max-length".into(), Value::I64(1))],
    }
}

fn question(asked: UserName) -> PermissionQuestion {
    PermissionQuestion {
        user: asked,
        vhost: root(),
        action: "read".into(),
        object: "q".into(),
        topic: None,
        client_id: None,
    }
}

type Call = fn(&World, &Manager) -> Result<(), Refusal>;

/// Every operation with the weakest tag that may call it; `None` for no tag at all.
const OPERATIONS: &[(&str, Option<Role>, Call)] = &[
    ("users", Some(Role::Administrator), |_, m| m.users().map(drop)),
    ("find_user", Some(Role::Administrator), |_, m| m.find_user(&user("guest")).map(drop)),
    ("put_user", Some(Role::Administrator), |_, m| {
        m.put_user(&user("new"), UserChange::default()).map(drop)
    }),
    ("remove_user", Some(Role::Administrator), |_, m| m.remove_user(&user("other"))),
    ("user_limits", Some(Role::Administrator), |_, m| m.user_limits(&user("guest")).map(drop)),
    ("own user_limits", Some(Role::Management), |_, m| m.user_limits(m.user()).map(drop)),
    ("set_user_limits", Some(Role::Administrator), |_, m| {
        m.set_user_limits(&user("guest"), UserLimits::default())
    }),
    ("permissions", Some(Role::Administrator), |_, m| m.permissions().map(drop)),
    ("permission", Some(Role::Administrator), |_, m| {
        m.permission(&root(), &user("guest")).map(drop)
    }),
    ("put_permission", Some(Role::Administrator), |_, m| {
        m.put_permission(&root(), &user("guest"), PermissionRecord::all()).map(drop)
    }),
    ("remove_permission", Some(Role::Administrator), |_, m| {
        m.remove_permission(&root(), &user("guest"))
    }),
    ("topic_permissions", Some(Role::Administrator), |_, m| m.topic_permissions().map(drop)),
    ("put_topic_permission", Some(Role::Administrator), |_, m| {
        m.put_topic_permission(&root(), &user("guest"), "x", topics("a")).map(drop)
    }),
    ("remove_topic_permissions", Some(Role::Administrator), |world, m| {
        manager(world, "administrator")
            .put_topic_permission(&root(), &user("guest"), "x", topics("a"))
            .unwrap();
        m.remove_topic_permissions(&root(), &user("guest"), Some("x"))
    }),
    ("test_permission", Some(Role::Administrator), |_, m| {
        m.test_permission(&question(user("guest"))).map(drop)
    }),
    ("own test_permission", Some(Role::Management), |_, m| {
        m.test_permission(&question(m.user().clone())).map(drop)
    }),
    ("vhosts", Some(Role::Management), |_, m| m.vhosts().map(drop)),
    ("vhost", Some(Role::Management), |_, m| m.vhost(&root()).map(drop)),
    ("put_vhost", Some(Role::Administrator), |_, m| {
        m.put_vhost(&VhostName::new("new").unwrap(), VhostRecord::default()).map(drop)
    }),
    ("delete_vhost", Some(Role::Administrator), |_, m| m.delete_vhost(&root())),
    ("set_vhost_limits", Some(Role::Administrator), |_, m| {
        m.set_vhost_limits(&root(), VhostLimits::default())
    }),
    ("policies", Some(Role::Management), |_, m| m.policies(&root(), PolicyKind::User).map(drop)),
    ("put_policy", Some(Role::Policymaker), |world, m| {
        m.put_policy(&root(), PolicyKind::User, "p", policy(), world.now()).map(drop)
    }),
    ("put operator policy", Some(Role::Administrator), |world, m| {
        m.put_policy(&root(), PolicyKind::Operator, "p", policy(), world.now()).map(drop)
    }),
    ("remove_policy", Some(Role::Policymaker), |world, m| {
        world.broker.put_policy(&root(), PolicyKind::User, "p", policy(), world.now()).unwrap();
        m.remove_policy(&root(), PolicyKind::User, "p", world.now())
    }),
    ("tokens", Some(Role::Administrator), |_, m| m.tokens(&user("guest")).map(drop)),
    ("own tokens", None, |_, m| m.tokens(m.user()).map(drop)),
    ("make_token", Some(Role::Administrator), |_, m| {
        m.make_token(&user("guest"), NewToken::default()).map(drop)
    }),
    ("own make_token", None, |_, m| m.make_token(&m.user().clone(), NewToken::default()).map(drop)),
    ("bans", Some(Role::Monitoring), |_, m| m.bans().map(drop)),
    ("audited", Some(Role::Monitoring), |_, m| m.audited(0).map(drop)),
    ("put_ban", Some(Role::Administrator), |_, m| m.put_ban("b", ban()).map(drop)),
    ("remove_ban", Some(Role::Administrator), |world, m| {
        manager(world, "administrator").put_ban("b", ban()).unwrap();
        m.remove_ban("b")
    }),
];

fn ban() -> Ban {
    Ban { target: BanTarget::User("eve".into()), reason: String::new(), until_ms: None }
}

fn topics(write: &str) -> TopicPermissionRecord {
    TopicPermissionRecord { write: write.into(), read: "#".into(), syntax: TopicSyntax::Dot }
}

#[test]
fn every_operation_is_for_those_with_its_tag_and_for_nobody_else() {
    for (name, needs, call) in OPERATIONS {
        for tag in
            ["", "own", "impersonator", "management", "policymaker", "monitoring", "administrator"]
        {
            let world = World::new();
            let manager = manager(&world, tag);
            let may = needs.is_none_or(|role| manager.tags().include(role));
            let found = call(&world, &manager);
            match found {
                Ok(()) => assert!(may, "{name} by {tag}"),
                Err(refusal) => {
                    assert!(!may, "{name} by {tag}: {}", refusal.text);
                    assert_eq!(refusal.kind, RefusalKind::Denied, "{name}: {}", refusal.text);
                }
            }
        }
    }
}

#[test]
fn whoever_may_not_open_a_virtual_host_is_not_told_whether_it_exists() {
    let world = World::new();
    let policymaker = manager(&world, "policymaker");
    let hidden = VhostName::new("hidden").unwrap();
    world.broker.create_vhost(hidden.clone());
    for name in ["hidden", "nowhere"] {
        let name = VhostName::new(name).unwrap();
        assert_eq!(policymaker.vhost(&name).unwrap_err().kind, RefusalKind::Denied);
    }
    let seen = policymaker.vhosts().unwrap();
    assert_eq!(seen.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["/"]);
    let monitoring = manager(&world, "monitoring");
    assert_eq!(monitoring.vhosts().unwrap().len(), 2);
    monitoring.vhost(&hidden).unwrap();
}

#[test]
fn whoever_opens_a_virtual_host_that_is_not_his_is_not_told_whether_it_exists() {
    let world = World::new();
    world.broker.create_vhost(VhostName::new("hidden").unwrap());
    let (_nobody, _watcher) = (manager(&world, ""), manager(&world, "monitoring"));
    let text = |name, user| world.try_connect_to(Some(name), user).err().unwrap().text;
    for name in ["hidden", "nowhere"] {
        let refused = format!("access to vhost '{name}' refused for user 'nobody'");
        assert_eq!(text(name, "nobody"), refused);
    }
    assert_eq!(text("nowhere", "monitoring"), "vhost 'nowhere' not found");
}

#[test]
fn a_policy_that_moves_messages_needs_all_rights() {
    let world = World::new();
    let policymaker = manager(&world, "policymaker");
    let put = |manager: &Manager, key: &str| {
        let definition = vec![(key.to_owned(), Value::String("amq.fanout".into()))];
        let record = PolicyRecord { apply_to: ApplyTo::All, definition, ..policy() };
        manager.put_policy(&root(), PolicyKind::User, "p", record, world.now())
    };
    put(&policymaker, "dead-letter-exchange").unwrap();
    let some = PermissionRecord { read: "^mine".into(), ..PermissionRecord::all() };
    world.broker.put_permission(root(), policymaker.user().clone(), some, true).unwrap();
    for key in ["dead-letter-exchange", "dead-letter-routing-key", "alternate-exchange"] {
        let refused = put(&policymaker, key).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Denied, "{key}");
        assert!(refused.text.contains("needs all permissions"), "{}", refused.text);
    }
    let boss = manager(&world, "administrator");
    let few = PermissionRecord { read: String::new(), ..PermissionRecord::all() };
    world.broker.put_permission(root(), boss.user().clone(), few, true).unwrap();
    put(&boss, "alternate-exchange").unwrap();
}

#[test]
fn tags_count_as_they_are_at_the_moment_of_the_call() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let other = manager(&world, "monitoring");
    boss.put_user(other.user(), UserChange { tags: Some(vec![]), ..UserChange::default() })
        .unwrap();
    assert_eq!(other.bans().unwrap_err().kind, RefusalKind::Denied);
    boss.remove_user(other.user()).unwrap();
    assert_eq!(other.vhosts().unwrap_err().kind, RefusalKind::Denied);
}

#[test]
fn a_token_manages_as_far_as_its_tags_go() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let new = |scopes: &[&str]| NewToken {
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..NewToken::default()
    };
    let manager_by = |scopes: &[&str]| {
        let (_, token) = boss.make_token(boss.user(), new(scopes)).unwrap();
        let token = by_token(token);
        world.broker.manage(&world.log_in_by(token).unwrap(), "")
    };
    let narrow = manager_by(&["read:*/*"]);
    assert_eq!(narrow.vhosts().unwrap_err().kind, RefusalKind::Denied);
    assert_eq!(narrow.make_token(boss.user(), new(&[])).unwrap_err().kind, RefusalKind::Denied);
    let wide = manager_by(&[]);
    assert_eq!(wide.users().unwrap().len(), 3);
    // What the user has not, its token does not give.
    let other = manager(&world, "monitoring");
    let (_, token) = other.make_token(other.user(), new(&["tag:administrator"])).unwrap();
    let token = world.log_in_by(by_token(token)).unwrap();
    let token = world.broker.manage(&token, "");
    assert_eq!(token.users().unwrap_err().kind, RefusalKind::Denied);
}

#[test]
fn a_protected_virtual_host_is_deleted_once_it_is_not() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let name = VhostName::new("v").unwrap();
    let protect = |protected_from_deletion| {
        let record = VhostRecord { protected_from_deletion, ..VhostRecord::default() };
        boss.put_vhost(&name, record).unwrap()
    };
    assert!(protect(true));
    assert_eq!(boss.delete_vhost(&name).unwrap_err().kind, RefusalKind::Conflict);
    assert!(!protect(false));
    boss.delete_vhost(&name).unwrap();
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let (nobody, nowhere) = (user("x"), VhostName::new("x").unwrap());
    let all = PermissionRecord::all;
    let kinds = [
        boss.find_user(&nobody).map(drop),
        boss.remove_user(&nobody),
        boss.put_permission(&root(), &nobody, all()).map(drop),
        boss.put_permission(&nowhere, &user("guest"), all()).map(drop),
        boss.put_topic_permission(&root(), &nobody, "x", topics("a")).map(drop),
        boss.remove_topic_permissions(&root(), &user("guest"), None),
        boss.permission(&nowhere, &user("guest")).map(drop),
        boss.make_token(&nobody, NewToken::default()).map(drop),
        boss.revoke_token(&user("guest"), "x"),
        boss.remove_ban("x"),
        boss.delete_vhost(&nowhere),
        boss.test_permission(&question(nobody.clone())).map(drop),
    ];
    for (at, found) in kinds.into_iter().enumerate() {
        assert_eq!(found.unwrap_err().kind, RefusalKind::NotFound, "{at}");
    }
}

#[test]
fn a_question_is_answered_with_the_rule_that_decides() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let record =
        PermissionRecord { configure: String::new(), write: "^amq".into(), read: "^q$".into() };
    boss.put_permission(&root(), &user("guest"), record).unwrap();
    boss.put_topic_permission(&root(), &user("guest"), "amq.topic", topics("a.#")).unwrap();
    let ask = |action: &str, object: &str, topic: Option<&str>| {
        let asked = PermissionQuestion {
            action: action.into(),
            object: object.into(),
            topic: topic.map(str::to_owned),
            ..question(user("guest"))
        };
        let verdict = boss.test_permission(&asked).unwrap();
        (verdict.allowed, verdict.rule)
    };
    let (allowed, rule) = ask("read", "q", None);
    assert!(allowed && rule.contains("read '^q$' matches 'q'"), "{rule}");
    let (allowed, rule) = ask("read", "q2", None);
    assert!(!allowed && rule.contains("read '^q$' does not match 'q2'"), "{rule}");
    let (allowed, rule) = ask("write", "amq.topic", Some("a.b"));
    assert!(allowed && rule.contains("topic permission") && rule.contains("'a.#'"), "{rule}");
    let (allowed, rule) = ask("write", "amq.topic", Some("b"));
    assert!(!allowed && rule.contains("does not allow 'b'"), "{rule}");
    let elsewhere =
        PermissionQuestion { vhost: VhostName::new("x").unwrap(), ..question(user("guest")) };
    let verdict = boss.test_permission(&elsewhere).unwrap();
    assert!(!verdict.allowed && verdict.rule.contains("no permission in vhost 'x'"));
    let bad = PermissionQuestion { action: "eat".into(), ..question(user("guest")) };
    assert_eq!(boss.test_permission(&bad).unwrap_err().kind, RefusalKind::Invalid);
}

#[test]
fn changes_are_written_down_with_who_from_where_and_what_and_without_secrets() {
    let entries: Arc<Mutex<Vec<AuditEntry>>> = Arc::default();
    let audited = || {
        let (world, sink) = (World::new(), entries.clone());
        world.broker.set_audit(Box::new(move |entry| sink.lock().unwrap().push(entry.clone())));
        world
    };
    for (name, _, call) in OPERATIONS {
        let world = audited();
        let boss = manager(&world, "administrator");
        call(&world, &boss).unwrap_or_else(|refusal| panic!("{name}: {}", refusal.text));
    }
    let world = audited();
    let boss = manager(&world, "administrator");
    let secret = Credentials { password_hash: "planted-hash".into(), scram: "planted".into() };
    let change = UserChange { credentials: Some(secret), tags: Some(vec!["own".into()]) };
    boss.put_user(&user("guest"), change).unwrap();
    let (_, token) = boss.make_token(&user("guest"), NewToken::default()).unwrap();
    let refused = manager(&world, "management").remove_user(&user("guest"));
    refused.unwrap_err();
    let entries = entries.lock().unwrap();
    let text = serde_json::to_string(&*entries).unwrap() + &format!("{entries:?}");
    let token = String::from_utf8(token.expose().to_vec()).unwrap();
    for planted in ["planted", &token[20..]] {
        assert!(!text.contains(planted), "{planted} in {text}");
    }
    let last = entries.iter().rev().find(|entry| entry.action == "user.put").unwrap();
    assert_eq!((last.user.as_str(), last.from.as_str()), ("administrator", "192.0.2.1:5"));
    assert_eq!(last.object, "/users/guest");
    assert_eq!(last.after["tags"][0], "own");
    assert_eq!(last.after["password"], "changed");
    let actions: std::collections::BTreeSet<_> = entries.iter().map(|e| &*e.action).collect();
    for action in [
        "ban.delete",
        "ban.put",
        "permission.delete",
        "permission.put",
        "policy.delete",
        "policy.put",
        "token.make",
        "topic_permission.delete",
        "topic_permission.put",
        "user.delete",
        "user.put",
        "user_limits.put",
        "vhost.delete",
        "vhost.put",
        "vhost_limits.put",
    ] {
        assert!(actions.contains(action), "{action}");
    }
    assert!(!entries.iter().any(|entry| entry.user == "management"), "a refusal changes nothing");
    assert!(entries.iter().all(|entry| entry.result == AuditResult::Done));
    let kept = boss.audited(1).unwrap();
    assert_eq!(kept.last(), entries.last());
    assert_eq!((kept[0].number, kept[0].at.as_str()), (2, "1970-01-01T00:16:40.000Z"));
}

#[test]
fn refusals_are_written_down_one_a_second() {
    let mut world = World::new();
    let (boss, other) = (manager(&world, "administrator"), manager(&world, "monitoring"));
    for _ in 0..2 {
        other.make_token(boss.user(), NewToken::default()).unwrap_err();
    }
    world.pass(1_000);
    other.revoke_token(boss.user(), "none").unwrap_err();
    let seen: Vec<_> =
        boss.audited(0).unwrap().into_iter().map(|e| (e.number, e.action, e.result)).collect();
    let denied = AuditResult::Denied;
    assert_eq!(seen, [(1, "token.make".into(), denied), (2, "token.revoke".into(), denied)]);
}

#[test]
fn what_was_written_down_before_the_start_is_shown() {
    let before = World::new();
    let boss = manager(&before, "administrator");
    boss.put_user(&user("x"), UserChange::default()).unwrap();
    boss.remove_user(&user("x")).unwrap();
    let world = World::new();
    let boss_again = manager(&world, "administrator");
    world.broker.recall_audit(boss.audited(0).unwrap());
    boss_again.put_user(&user("y"), UserChange::default()).unwrap();
    let numbers: Vec<_> = boss_again.audited(0).unwrap().iter().map(|e| e.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn secrets_show_up_in_no_debug_output_and_no_token_in_the_store() {
    let world = World::new();
    let boss = manager(&world, "administrator");
    let (view, token) = boss.make_token(&user("guest"), NewToken::default()).unwrap();
    let text = String::from_utf8(token.expose().to_vec()).unwrap();
    let secret = text.rsplit_once('_').unwrap().1.to_owned();
    let credentials = Credentials { password_hash: "planted".into(), scram: "planted".into() };
    let change = UserChange { credentials: Some(credentials), ..UserChange::default() };
    let shown = format!(
        "{:?} {view:?} {token:?} {change:?} {:?}",
        boss.users().unwrap(),
        world.log_in_by(by_token(token.clone())).unwrap(),
    );
    assert!(!shown.contains("planted") && !shown.contains(&secret), "{shown}");
    world.broker.committer().kick();
    for (key, value) in world.stored_definitions() {
        assert!(!key.contains(&secret) && !value.contains(&secret), "{key}");
    }
}
