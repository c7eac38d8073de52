//! A web page logs in by a cookie.

use polymq_broker::UserRecord;
use polymq_model::UserName;
use serde_json::json;

use super::{Answer, Browser, World};
use crate::serve::Audience;

impl World {
    /// A browser without any login.
    async fn page(&self) -> Browser {
        let mut page = self.client("nobody").await;
        page.authorization.clear();
        page
    }
}

fn cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn logged_in(page: &mut Browser, user: &str) -> (String, String) {
    let login = json!({ "user": user, "password": "p" });
    let begun = page.post("/api/v1/session", &login).await;
    assert_eq!(begun.status, 200, "{}", begun.json());
    let set = begun.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let set: Vec<_> = set.map(|(_, value)| value.as_str()).collect();
    let [api, sockets] = set.as_slice() else { panic!("{set:?}") };
    assert!(api.contains("HttpOnly; SameSite=Strict") && api.contains("Path=/api/v1"), "{api}");
    assert!(sockets.contains("HttpOnly; SameSite=Strict") && sockets.contains("Path=/ws;"));
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    let token = begun.json()["csrf_token"].as_str().unwrap().to_owned();
    (cookie(&begun), token)
}

#[tokio::test]
async fn a_cookie_stands_for_a_login_and_changes_need_its_token() {
    let world = World::start(Audience::Users).await;
    let mut page = world.page().await;
    assert_eq!(page.get("/api/v1/session").await.code(), "login_required");
    let (cookie, token) = logged_in(&mut page, "u").await;
    let with = [("Cookie", cookie.as_str())];
    let shown = page.ask("GET /api/v1/session", &with, b"").await.json();
    assert_eq!((&shown["user"], &shown["csrf_token"]), (&json!("u"), &json!(token)));
    assert!(!cookie.contains(&token));
    let path = "PUT /api/v1/vhosts/~/queues/q";
    let json = ("Content-Type", "application/json");
    let bare = page.ask(path, &[("Cookie", &cookie), json], b"{}").await;
    assert_eq!((bare.status, bare.code().as_str()), (403, "csrf_token_missing"));
    let shown = [("Cookie", cookie.as_str()), ("X-CSRF-Token", &token), json];
    assert_eq!(page.ask(path, &shown, b"{}").await.status, 201);
    // Rights are those of the user: it may not see users.
    assert_eq!(page.ask("GET /api/v1/users", &with, b"").await.status, 403);
    // The API of RabbitMQ never reads the cookie.
    assert_eq!(page.ask("GET /api/whoami", &with, b"").await.status, 401);
    let taking = "GET /api/v1/vhosts/~/subscribe?queue=q&ack=auto";
    let taken = page.ask(taking, &with, b"").await;
    assert_eq!((taken.status, taken.code().as_str()), (403, "csrf_token_missing"));
    let out = page.ask("DELETE /api/v1/session", &shown, b"").await;
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(page.ask("GET /api/v1/session", &with, b"").await.code(), "session_expired");
}

#[tokio::test]
async fn another_password_and_a_ban_end_a_session() {
    let world = World::start(Audience::Users).await;
    world.tagged("ann", &["administrator"]);
    let mut page = world.page().await;
    let (cookie, token) = logged_in(&mut page, "ann").await;
    let with = [("Cookie", cookie.as_str())];
    assert_eq!(page.ask("GET /api/v1/users", &with, b"").await.status, 200);
    // A cookie is no login of the other kind.
    let as_header = [("Authorization", cookie.as_str())];
    assert_eq!(page.ask("GET /api/v1/users", &as_header, b"").await.status, 401);
    let record = UserRecord {
        password_hash: "$argon2id$another".to_owned(),
        scram: String::new(),
        tags: Vec::new(),
        loopback_only: false,
    };
    world.broker.put_user(UserName::new("ann").unwrap(), record, false);
    let mut page = world.page().await;
    assert_eq!(page.ask("GET /api/v1/session", &with, b"").await.code(), "session_expired");
    let (cookie, _) = logged_in(&mut page, "ann").await;
    assert!(!token.is_empty());
    assert!(world.broker.remove_user(&UserName::new("ann").unwrap()));
    let with = [("Cookie", cookie.as_str())];
    assert_eq!(page.ask("GET /api/v1/session", &with, b"").await.code(), "session_expired");
}

#[tokio::test]
async fn a_login_must_be_json() {
    let world = World::start(Audience::Users).await;
    let mut page = world.page().await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let refused = page.ask("POST /api/v1/session", &form, b"user=u&password=p").await;
    assert_eq!(refused.status, 415);
    let foreign = [("Origin", "https://elsewhere.example"), ("Content-Type", "application/json")];
    let refused = page.ask("POST /api/v1/session", &foreign, b"{}").await;
    assert_eq!(refused.code(), "origin_denied");
}

#[tokio::test]
async fn a_page_leases_messages_by_its_cookie() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut page = world.page().await;
    let (cookie, token) = logged_in(&mut page, "u").await;
    let json = ("Content-Type", "application/json");
    let shown = [("Cookie", cookie.as_str()), ("X-CSRF-Token", &token), json];
    let queue = "/api/v1/vhosts/~/queues/q";
    page.ask(&format!("POST {queue}/messages"), &shown, b"m").await;
    let bare = [("Cookie", cookie.as_str()), json];
    let receive = format!("POST {queue}/messages:receive");
    assert_eq!(page.ask(&receive, &bare, b"{}").await.code(), "csrf_token_missing");
    let leased = page.ask(&receive, &shown, b"{\"wait\":\"5s\"}").await.json();
    let receipt = leased["messages"][0]["receipt"].clone();
    let ack = json!({ "receipts": [receipt] }).to_string();
    let told = page.ask(&format!("POST {queue}/leases:ack"), &shown, ack.as_bytes()).await.json();
    assert_eq!(told["results"][0]["outcome"], "ok");
}

#[tokio::test]
async fn a_login_gets_little_room() {
    let world = World::start(Audience::Users).await;
    let mut page = world.page().await;
    let login = json!({ "user": "u", "password": "p".repeat(17 * 1024) });
    let answer = page.post("/api/v1/session", &login).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
}
