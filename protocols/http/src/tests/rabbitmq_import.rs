//! Definitions below `/api` as RabbitMQ writes them, and what is wrong with them.

use serde_json::json;

use super::*;

#[tokio::test]
async fn what_metadata_say_of_virtual_hosts_comes_in() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    // As `rabbitmqctl export_definitions` writes it.
    let vhosts = json!([
        { "name": "all", "limits": [], "metadata": { "description": "d", "tags": ["t"],
          "default_queue_type": "quorum", "protected_from_deletion": true } },
        { "name": "none", "limits": [], "metadata": [] },
        { "name": "both", "description": "outer", "metadata": { "description": "inner" } },
    ]);
    let definitions = json!({ "vhosts": vhosts }).to_string();
    assert_eq!(browser.api("POST /definitions", &definitions).await.status, 204);
    let all = browser.look("/vhosts/all").await;
    assert_eq!(all["description"], "d");
    assert_eq!(all["tags"], json!(["t"]));
    assert_eq!(all["default_queue_type"], "quorum");
    assert_eq!(all["protected_from_deletion"], true);
    let none = browser.look("/vhosts/none").await;
    assert_eq!((&none["description"], &none["tags"]), (&json!(""), &json!([])));
    assert_eq!(browser.look("/vhosts/both").await["description"], "outer");
    // And goes out where a RabbitMQ looks for it.
    let exported = browser.look("/definitions").await;
    let exported = exported["vhosts"].as_array().unwrap();
    let exported = exported.iter().find(|vhost| vhost["name"] == "all").unwrap();
    assert_eq!(exported["metadata"]["default_queue_type"], "quorum");
}
