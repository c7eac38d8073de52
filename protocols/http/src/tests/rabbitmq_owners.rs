//! Below `/api`: what belongs to somebody, and who else may touch it.

use polymq_contract::{Login, Secret};
use serde_json::json;

use super::*;

/// A client of `user` that has opened the usual virtual host, and its name in paths.
async fn connected(world: &World, user: &str) -> (client::Client, String) {
    let login = Login::Password { user: user.to_owned(), password: Secret::new("x") };
    let before: Vec<_> = world.broker.connection_refs().iter().map(|one| one.id).collect();
    let peer = Arc::new(peer());
    let vhost = Some("/".to_owned());
    let client = client::Client::connect(&world.broker, &peer, login, vhost, 1 << 20).await;
    let refs = world.broker.connection_refs();
    let new = refs.iter().find(|one| !before.contains(&one.id)).unwrap();
    (client.unwrap(), new.name().replace(' ', "%20").replace('>', "%3E"))
}

#[tokio::test]
async fn only_its_owner_and_administrators_close_a_connection() {
    let world = World::managed().await;
    let (client, name) = connected(&world, "u").await;
    for path in [format!("/connections/{name}"), "/connections/username/u".to_owned()] {
        for user in ["watcher", "maker", "manager"] {
            let mut browser = world.client(user).await;
            let answer = browser.api(&format!("DELETE {path}"), "").await;
            assert_eq!((answer.status, client.ended()), (401, None), "{path} as {user}");
            assert_eq!(answer.json()["error"], "not_authorised");
        }
        // Whoever monitors sees it all the same.
        assert_eq!(world.client("watcher").await.api(&format!("GET {path}"), "").await.status, 200);
    }
    let mut admin = world.client("admin").await;
    assert_eq!(admin.api(&format!("DELETE /connections/{name}"), "").await.status, 204);
    assert!(client.ended().is_some());

    for by_user in [false, true] {
        let (client, name) = connected(&world, "manager").await;
        let path = if by_user { "username/manager".to_owned() } else { name };
        let mut browser = world.client("manager").await;
        assert_eq!(browser.api(&format!("DELETE /connections/{path}"), "").await.status, 204);
        assert!(client.ended().is_some(), "{path}");
    }
}

#[tokio::test]
async fn limits_of_connections_do_not_keep_management_out() {
    let world = World::managed().await;
    let mut admin = world.client("admin").await;
    for (line, body, status) in [
        ("PUT /vhost-limits/%2F/max-connections", r#"{"value":0}"#, 204),
        ("PUT /user-limits/admin/max-connections", r#"{"value":0}"#, 204),
        ("PUT /queues/%2F/q", "{}", 201),
        ("DELETE /queues/%2F/q/contents", "", 204),
        (
            "POST /queues/%2F/q/get",
            r#"{"count":1,"ackmode":"ack_requeue_true","encoding":"auto"}"#,
            200,
        ),
        ("DELETE /queues/%2F/q", "", 204),
    ] {
        let answer = admin.api(line, body).await;
        assert_eq!(answer.status, status, "{line}: {}", String::from_utf8_lossy(&answer.body));
    }
    assert_eq!(admin.api("GET /v1/vhosts/~/queues", "").await.status, 200);
    // Clients are kept out as before.
    let login = Login::Password { user: "u".to_owned(), password: Secret::new("x") };
    let (peer, vhost) = (Arc::new(peer()), Some("/".to_owned()));
    let refused = client::Client::connect(&world.broker, &peer, login, vhost, 1 << 20).await;
    assert!(refused.is_err_and(|refusal| refusal.text.contains("connection limit (0)")));
    // The virtual host waits for requests that are in it before it goes.
    assert_eq!(admin.api("PUT /vhosts/v", "").await.status, 201);
    assert_eq!(admin.api("PUT /queues/v/q", "{}").await.status, 201);
    assert_eq!(admin.api("DELETE /vhosts/v", "").await.status, 204);
    assert_eq!(admin.api("PUT /vhosts/v", "").await.status, 201);
}

#[tokio::test]
async fn policies_are_shown_in_lists_and_one_by_one_to_whoever_makes_them() {
    let world = World::managed().await;
    let mut admin = world.client("admin").await;
    let policy = r#"{"pattern":"^q","definition":{"max-length":1}}"#;
    for path in ["/policies/%2F/p", "/operator-policies/%2F/o"] {
        assert_eq!(admin.api(&format!("PUT {path}"), policy).await.status, 201);
    }
    for (user, one, of_operator) in
        [("manager", 401, 401), ("watcher", 401, 401), ("maker", 200, 401), ("admin", 200, 200)]
    {
        let mut browser = world.client(user).await;
        for (path, status) in [
            ("/policies/%2F", 200),
            ("/operator-policies/%2F", 200),
            ("/policies/%2F/p", one),
            ("/operator-policies/%2F/o", of_operator),
        ] {
            let found = browser.api(&format!("GET {path}"), "").await.status;
            assert_eq!(found, status, "{path} as {user}");
        }
    }
}

#[tokio::test]
async fn policymakers_set_global_parameters_but_not_the_name_of_the_cluster() {
    let world = World::managed().await;
    let mut maker = world.client("maker").await;
    for (line, status) in [
        ("PUT /global-parameters/x", 201),
        ("DELETE /global-parameters/x", 204),
        ("PUT /global-parameters/cluster_name", 401),
        ("PUT /cluster-name", 401),
    ] {
        let answer = maker.api(line, r#"{"value":"a","name":"a"}"#).await;
        assert_eq!(answer.status, status, "{line}");
    }
    let mut admin = world.client("admin").await;
    assert_eq!(admin.api("PUT /cluster-name", r#"{"name":"mine"}"#).await.status, 204);
    assert_eq!(maker.api("DELETE /global-parameters/cluster_name", "").await.status, 401);
    let mut watcher = world.client("watcher").await;
    assert_eq!(watcher.api("PUT /global-parameters/x", r#"{"value":1}"#).await.status, 401);
}

#[tokio::test]
async fn a_page_of_another_host_is_refused_in_this_apis_words() {
    let world = World::managed().await;
    let mut admin = world.client("admin").await;
    let foreign = [("Origin", "https://evil.example")];
    let answer = admin.ask("PUT /api/queues/%2F/q", &foreign, b"{}").await;
    assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("not_authorised")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = admin.ask("PUT /api/v1/vhosts/~/queues/q", &foreign, b"{}").await;
    assert_eq!((answer.status, &*answer.code()), (403, "origin_denied"));
}
