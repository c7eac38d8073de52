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

#[tokio::test]
async fn everything_wrong_is_told_with_its_place_and_what_fits_comes_in_when_asked() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let definitions = json!({
        "queues": [{ "name": "good", "vhost": "/" }, { "vhost": "/" }, 5,
                   { "name": "q", "vhost": "gone" }],
        "exchanges": [{ "name": "x", "vhost": "/", "type": "topic" }],
        "bindings": [
            { "source": "x", "vhost": "/", "destination": "good", "destination_type": "queue" },
            { "source": "x", "vhost": "/", "destination": "q", "destination_type": "queue" },
        ],
        "users": [{ "name": "ann", "tags": "" }, { "name": "ben", "password": "x" }],
    });
    let told = |reason: &str| {
        for part in ["queues[1]: [{key_missing,name}]", "queues[2]: 5 is no object", "users[1]: "] {
            assert!(reason.contains(part), "{part} in {reason}");
        }
    };
    let answer = browser.api("POST /definitions", &definitions.to_string()).await;
    assert_eq!(answer.status, 400);
    told(answer.json()["reason"].as_str().unwrap());
    assert_eq!(browser.api("GET /queues/%2F/good", "").await.status, 404);

    let answer = browser.api("POST /definitions?partial=true", &definitions.to_string()).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let left_out = answer.json()["left_out"].to_string();
    told(&left_out);
    assert!(left_out.contains("queue 'q' in vhost 'gone'"), "{left_out}");
    assert!(left_out.contains("binding from 'x' to 'q'"), "{left_out}");
    assert_eq!(answer.json()["left_out"].as_array().unwrap().len(), 5, "{left_out}");
    assert_eq!(browser.look("/bindings/%2F/e/x/q/good").await.as_array().unwrap().len(), 1);
    assert_eq!(browser.look("/users/ann").await["name"], "ann");
    // Nothing is left out of what is there already.
    let exported = browser.look("/definitions").await.to_string();
    let again = browser.api("POST /definitions?partial=true", &exported).await;
    assert_eq!(again.status, 204, "{}", String::from_utf8_lossy(&again.body));
}

#[tokio::test]
async fn the_file_of_a_form_is_its_part_of_that_name() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let part = |name: &str, queue: &str| {
        format!(
            "--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"d.json\"\r\n\r\n\
             {{\"queues\":[{{\"name\":\"{queue}\",\"vhost\":\"/\"}}]}}\r\n"
        )
    };
    let form = [("Content-Type", "multipart/form-data; boundary=B")];
    for (body, status, queue) in [
        (part("other", "longer-than-the-file"), 400, "longer-than-the-file"),
        (part("other", "longer-than-the-file") + &part("file", "q"), 204, "q"),
    ] {
        let body = body + "--B--\r\n";
        let answer = browser.ask("POST /api/definitions", &form, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&answer.body));
        let found = browser.api(&format!("GET /queues/%2F/{queue}"), "").await.status;
        assert_eq!(found == 200, status == 204, "{queue}");
    }
    assert_eq!(browser.look("/queues").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn limits_are_parameters_as_well_and_policies_are_shown_as_such() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let path = "/parameters/vhost-limits/%2F/limits";
    for (line, body, status) in [
        (format!("PUT {path}"), r#"{"value":{"max-queues":300,"max-connections":-1}}"#, 201),
        (format!("PUT {path}"), r#"{"value":{"max-queues":301}}"#, 204),
        (format!("PUT {path}"), r#"{"value":{"nope":1}}"#, 400),
        ("PUT /parameters/vhost-limits/%2F/other".to_owned(), r#"{"value":{}}"#, 400),
        (
            "PUT /policies/%2F/p".to_owned(),
            r#"{"pattern":"^q","definition":{"max-length":1}}"#,
            201,
        ),
        ("PUT /parameters/policy/%2F/p2".to_owned(), r#"{"value":{"pattern":"x"}}"#, 400),
        ("DELETE /parameters/policy/%2F/p".to_owned(), "", 400),
    ] {
        assert_eq!(browser.api(&line, body).await.status, status, "{line} {body}");
    }
    assert_eq!(browser.look(path).await["value"], json!({ "max-queues": 301 }));
    assert_eq!(browser.look("/vhost-limits/%2F").await[0]["value"], json!({ "max-queues": 301 }));
    let policies = browser.look("/parameters/policy").await;
    assert_eq!((&policies[0]["name"], &policies[0]["component"]), (&json!("p"), &json!("policy")));
    assert_eq!(policies[0]["value"]["definition"], json!({ "max-length": 1 }));
    // Among all they are left out, as in RabbitMQ.
    assert_eq!(browser.look("/parameters").await.as_array().unwrap().len(), 1);
    // Limits are an administrator's, by whichever path.
    let mut maker = world.client("maker").await;
    assert_eq!(
        maker.api(&format!("PUT {path}"), r#"{"value":{"max-queues":1}}"#).await.status,
        401
    );
    assert_eq!(maker.api(&format!("DELETE {path}"), "").await.status, 401);
    for status in [204, 404] {
        assert_eq!(browser.api(&format!("DELETE {path}"), "").await.status, status);
    }
    assert_eq!(browser.look("/vhost-limits/%2F").await, json!([]));
}

#[tokio::test]
async fn a_user_has_a_password_or_a_hash() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let both = r#"{"password":"a","password_hash":"kI3GCqW5JLMJa4iX","tags":""}"#;
    let answer = browser.api("PUT /users/x", both).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["reason"], "both_password_and_password_hash_are_provided");
    assert_eq!(browser.api("GET /users/x", "").await.status, 404);
}

// Comparing each binding with all others of its exchange took seconds for as many.
#[tokio::test]
async fn many_bindings_of_one_exchange_come_in_again_at_once() {
    let world = World::managed().await;
    let mut browser = world.client("admin").await;
    let count = 10_000;
    let queues = (0..count).map(|n| json!({ "name": format!("q{n}"), "vhost": "/" }));
    let bindings = (0..count).map(|n| {
        json!({ "source": "amq.topic", "vhost": "/", "destination": format!("q{n}"),
                "destination_type": "queue", "routing_key": "a.#", "arguments": { "n": n } })
    });
    let definitions = json!({
        "queues": queues.collect::<Vec<_>>(), "bindings": bindings.collect::<Vec<_>>(),
    });
    let definitions = definitions.to_string();
    let mut took = Vec::new();
    for _ in 0..2 {
        let begin = std::time::Instant::now();
        assert_eq!(browser.api("POST /definitions", &definitions).await.status, 204);
        took.push(begin.elapsed());
    }
    let bound = world.broker.bindings_from("/", "amq.topic").unwrap().len();
    assert_eq!(bound, count);
    assert!(took[1] < took[0] * 3 + Duration::from_secs(2), "{took:?}");
}
