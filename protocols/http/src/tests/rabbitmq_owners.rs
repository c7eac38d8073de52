//! Below `/api`: what belongs to somebody, and who else may touch it.

use polymq_contract::{Login, Secret};

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
