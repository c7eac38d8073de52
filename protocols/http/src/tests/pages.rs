//! Health, metrics, and what every request has.

use super::*;

#[tokio::test]
async fn readiness_follows_phase_and_alarms() {
    let world = World::start(Audience::Users).await;
    assert_eq!(world.get("/health/ready").await.0, 200);
    assert_eq!(world.get("/health/live").await.0, 200);

    world.phase.enter(Phase::Recovering);
    let (status, body) = world.get("/health/startup").await;
    assert_eq!(status, 503);
    assert!(body.contains("\"recovering\":0.42"), "{body}");
    assert_eq!(world.get("/health/ready").await.0, 503);
    assert_eq!(world.get("/health/live").await.0, 200);

    world.phase.enter(Phase::Serving);
    world.broker.set_alarm(Some("no space"));
    let (status, body) = world.get("/health").await;
    assert_eq!(status, 503);
    assert!(body.contains("no space"), "{body}");
    world.broker.set_alarm(None);

    world.phase.enter(Phase::Draining);
    assert_eq!(world.get("/health/ready").await.0, 503);
    assert_eq!(world.get("/health/startup").await.0, 200);
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let world = World::start(Audience::Everybody).await;
    let (status, body) = world.get("/metrics").await;
    assert_eq!(status, 200);
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with("polymq_") || series.starts_with("rabbitmq_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for name in [
        "polymq_build_info{version=",
        "polymq_messages_received_total{protocol=\"amqp\"} 0",
        "polymq_messages_dropped_total{reason=\"unroutable\"} 0",
        "polymq_queue_messages{state=\"ready\"} 0",
        "polymq_store_live_messages 3",
        "polymq_store_live_bytes 400",
        "polymq_store_batch_bytes_total 0",
        "polymq_watermark_reached{resource=\"memory\"} 0",
        "polymq_watermark_reached{resource=\"disk\"} 1",
        "polymq_store_sync_seconds_bucket{le=\"+Inf\"} 2",
        "polymq_auth_attempts_total{protocol=\"mqtt\",result=\"failed\"} 0",
    ] {
        assert!(body.contains(name), "{name} in {body}");
    }
}

#[tokio::test]
async fn a_listener_of_metrics_has_nothing_else() {
    let world = World::start(Audience::Everybody).await;
    for path in ["/", "/api/overview", "/api/v1/server", "/ws/mqtt", "/.well-known/host-meta"] {
        assert_eq!(world.get(path).await.0, 404, "{path}");
    }
    assert_eq!(world.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn each_metric_is_announced_once() {
    let world = World::start(Audience::Everybody).await;
    let (_, body) = world.get("/metrics").await;
    let mut names: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[tokio::test]
async fn metrics_have_the_names_of_dashboards_for_rabbitmq() {
    let world = World::start(Audience::Users).await;
    world.declare("orders", Vec::new()).await;
    let mut client = world.client("u").await;
    client.ask("POST /api/v1/vhosts/~/queues/orders/messages", &[], b"x").await;
    let (status, body) = world.watch("/metrics?prefix=rabbitmq").await;
    assert_eq!(status, 200);
    for line in [
        "rabbitmq_queue_messages_ready 1",
        "rabbitmq_queues 1",
        "rabbitmq_global_messages_received_total{protocol=\"all\",queue_type=\"all\"} 1",
        "rabbitmq_channel_messages_published_total 1",
    ] {
        assert!(body.contains(&format!("\n{line}\n")), "{line} in {body}");
    }
    for name in ["rabbitmq_build_info{", "rabbitmq_identity_info{rabbitmq_node=\"test\""] {
        assert!(body.contains(name), "{name} in {body}");
    }
    assert!(!body.contains("polymq_queues"), "only what was asked for");
    let (status, _) = world.watch("/metrics?prefix=other").await;
    assert_eq!(status, 400);
    assert_eq!(world.get("/metrics").await.0, 401);
    assert_eq!(client.get("/metrics").await.status, 403, "it has no tag");
}

/// Metrics of RabbitMQ's own dashboard (Grafana 10991, all its revisions) and of those that follow
/// it: the names in their queries, with the labels by which they choose and join.
const OF_DASHBOARDS: &[(&str, &[&str])] = &[
    ("rabbitmq_build_info", &["rabbitmq_version", "erlang_version", "product_version"]),
    ("rabbitmq_identity_info", &["rabbitmq_cluster", "rabbitmq_node", "rabbitmq_endpoint"]),
    ("rabbitmq_erlang_uptime_seconds", &[]),
    ("rabbitmq_connections", &[]),
    ("rabbitmq_connections_opened_total", &[]),
    ("rabbitmq_connections_closed_total", &[]),
    ("rabbitmq_channels", &[]),
    ("rabbitmq_channels_opened_total", &[]),
    ("rabbitmq_channels_closed_total", &[]),
    ("rabbitmq_consumers", &[]),
    ("rabbitmq_channel_consumers", &[]),
    ("rabbitmq_queues", &[]),
    ("rabbitmq_queues_declared_total", &[]),
    ("rabbitmq_queues_created_total", &[]),
    ("rabbitmq_queues_deleted_total", &[]),
    ("rabbitmq_queue_messages", &[]),
    ("rabbitmq_queue_messages_ready", &[]),
    ("rabbitmq_queue_messages_unacked", &[]),
    ("rabbitmq_queue_messages_published_total", &[]),
    ("rabbitmq_channel_messages_published_total", &[]),
    ("rabbitmq_channel_messages_confirmed_total", &[]),
    ("rabbitmq_channel_messages_unroutable_dropped_total", &[]),
    ("rabbitmq_channel_messages_unroutable_returned_total", &[]),
    ("rabbitmq_channel_messages_delivered_total", &[]),
    ("rabbitmq_channel_messages_delivered_ack_total", &[]),
    ("rabbitmq_channel_messages_redelivered_total", &[]),
    ("rabbitmq_channel_messages_acked_total", &[]),
    ("rabbitmq_channel_get_total", &[]),
    ("rabbitmq_channel_get_ack_total", &[]),
    ("rabbitmq_channel_get_empty_total", &[]),
    ("rabbitmq_global_publishers", &["protocol"]),
    ("rabbitmq_global_consumers", &["protocol"]),
    ("rabbitmq_global_messages_received_total", &["protocol"]),
    ("rabbitmq_global_messages_received_confirm_total", &["protocol"]),
    ("rabbitmq_global_messages_routed_total", &["protocol"]),
    ("rabbitmq_global_messages_confirmed_total", &["protocol"]),
    ("rabbitmq_global_messages_unroutable_dropped_total", &["protocol"]),
    ("rabbitmq_global_messages_unroutable_returned_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_consume_auto_ack_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_consume_manual_ack_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_get_auto_ack_total", &["protocol"]),
    ("rabbitmq_global_messages_delivered_get_manual_ack_total", &["protocol"]),
    ("rabbitmq_global_messages_get_empty_total", &["protocol"]),
    ("rabbitmq_global_messages_redelivered_total", &["protocol"]),
    ("rabbitmq_global_messages_acknowledged_total", &["protocol"]),
    ("rabbitmq_global_messages_dead_lettered_total", &["queue_type", "dead_letter_strategy"]),
    (
        "rabbitmq_global_messages_dead_lettered_confirmed_total",
        &["queue_type", "dead_letter_strategy"],
    ),
    (
        "rabbitmq_global_messages_dead_lettered_delivery_limit_total",
        &["queue_type", "dead_letter_strategy"],
    ),
    (
        "rabbitmq_global_messages_dead_lettered_expired_total",
        &["queue_type", "dead_letter_strategy"],
    ),
    (
        "rabbitmq_global_messages_dead_lettered_maxlen_total",
        &["queue_type", "dead_letter_strategy"],
    ),
    (
        "rabbitmq_global_messages_dead_lettered_rejected_total",
        &["queue_type", "dead_letter_strategy"],
    ),
    ("rabbitmq_message_size_bytes_bucket", &["protocol", "le"]),
    ("rabbitmq_message_size_bytes_sum", &["protocol"]),
    ("rabbitmq_message_size_bytes_count", &["protocol"]),
    ("rabbitmq_process_open_fds", &[]),
    ("rabbitmq_process_max_fds", &[]),
    ("rabbitmq_process_open_tcp_sockets", &[]),
    ("rabbitmq_process_max_tcp_sockets", &[]),
    ("rabbitmq_process_resident_memory_bytes", &[]),
    ("rabbitmq_resident_memory_limit_bytes", &[]),
    ("rabbitmq_disk_space_available_bytes", &[]),
    ("rabbitmq_disk_space_available_limit_bytes", &[]),
    ("rabbitmq_alarms_memory_used_watermark", &[]),
    ("rabbitmq_alarms_free_disk_space_watermark", &[]),
];

#[tokio::test]
async fn every_query_of_rabbitmqs_dashboard_finds_its_metric() {
    let world = World::start(Audience::Users).await;
    world.declare("orders", Vec::new()).await;
    let mut client = world.client("u").await;
    for size in [100, 101, 20_000] {
        let path = "POST /api/v1/vhosts/~/queues/orders/messages";
        client.ask(path, &[], &vec![b'x'; size]).await;
    }
    let (_, body) = world.watch("/metrics").await;
    let series: Vec<&str> = body.lines().filter(|line| !line.starts_with('#')).collect();
    for (name, labels) in OF_DASHBOARDS {
        let is_it =
            |line: &&&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let found = series.iter().find(is_it).unwrap_or_else(|| panic!("no {name} in {body}"));
        for label in *labels {
            assert!(found.contains(&format!("{label}=\"")), "{label} of {found}");
        }
    }
    for line in [
        "rabbitmq_message_size_bytes_bucket{protocol=\"all\",le=\"100.0\"} 1",
        "rabbitmq_message_size_bytes_bucket{protocol=\"all\",le=\"1000.0\"} 2",
        "rabbitmq_message_size_bytes_bucket{protocol=\"all\",le=\"1e+08\"} 3",
        "rabbitmq_message_size_bytes_sum{protocol=\"all\"} 20201",
        "rabbitmq_message_size_bytes_count{protocol=\"all\"} 3",
        "rabbitmq_global_messages_received_confirm_total{protocol=\"all\"} 3",
    ] {
        assert!(series.contains(&line), "{line} in {body}");
    }
}

#[tokio::test]
async fn metrics_of_single_queues_are_bounded_or_asked_for() {
    let world = World::start(Audience::Users).await;
    for index in 0..1001 {
        world.declare(&format!("q{index}"), Vec::new()).await;
    }
    let (status, body) = world.watch("/metrics/per-object").await;
    assert_eq!(status, 400);
    assert!(body.contains("/metrics/detailed?family=queues"), "{body}");
    let (status, body) = world.watch("/metrics/detailed?family=queues&queue=q7").await;
    assert_eq!(status, 200);
    let line = "polymq_detailed_queue_messages_ready{vhost=\"/\",queue=\"q7\"} 0";
    assert!(body.contains(line), "{body}");
    assert!(!body.contains("q8"), "{body}");
    let (status, body) = world.watch("/metrics/detailed?family=queue_coarse_metrics").await;
    assert_eq!((status, body.matches("_ready{").count()), (200, 1001));
    assert_eq!(world.watch("/metrics/detailed?family=nothing").await.0, 400);
}

#[tokio::test]
async fn front_page_says_what_this_is_and_unknown_paths_are_not_found() {
    let world = World::start(Audience::Users).await;
    let (status, body) = world.get("/").await;
    assert_eq!(status, 200);
    assert!(body.contains("PolyMQ"), "{body}");
    assert_eq!(world.get("/nothing").await.0, 404);
    assert!(
        world.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.contains("405")
    );
}

#[tokio::test]
async fn oversized_head_is_refused() {
    let world = World::start(Audience::Users).await;
    let long = "a".repeat(17 * 1024);
    let answer = world.send(&format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn connection_carries_many_requests_and_each_has_an_id() {
    let world = World::start(Audience::Users).await;
    let first = "GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n";
    let second = "GET /api/v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = world.send(&format!("{first}{second}")).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert!(answers.contains("x-request-id: mine"), "{answers}");
    assert!(answers.contains("HTTP/1.1 404"), "{answers}");
    assert!(answers.contains("\"code\":\"path_not_found\""), "{answers}");
    let (_, id) = answers.rsplit_once("\"request_id\":\"").unwrap();
    assert!(answers.contains(&format!("x-request-id: {}", id.split('"').next().unwrap())));
}

#[tokio::test]
async fn pages_of_other_hosts_are_refused_unless_listed() {
    let world = World::start(Audience::Users).await;
    let from = |method: &str, origin: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\n\
             Access-Control-Request-Method: POST\r\n\r\n"
        )
    };
    let denied = world.send(&from("POST", "https://evil.example")).await;
    assert!(denied.starts_with("HTTP/1.1 403") && denied.contains("origin_denied"), "{denied}");
    let read = world.send(&from("GET", "https://evil.example")).await;
    assert!(read.starts_with("HTTP/1.1 200") && !read.contains("access-control"), "{read}");
    let listed = world.send(&from("OPTIONS", "https://app.example")).await;
    assert!(listed.starts_with("HTTP/1.1 204"), "{listed}");
    assert!(listed.contains("access-control-allow-origin: https://app.example"), "{listed}");
    let same = world.send(&from("POST", "http://x")).await;
    assert!(same.starts_with("HTTP/1.1 405"), "{same}");
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let world = World::start(Audience::Users).await;
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await.unwrap();
    // The preface and an empty SETTINGS frame (RFC 9113, section 3.4).
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    tokio::time::timeout(TIMEOUT, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3], 4, "the server's SETTINGS come first");
}

#[tokio::test]
async fn what_has_begun_is_finished_when_the_server_stops() {
    let world = World::start(Audience::Users).await;
    world.declare("q", Vec::new()).await;
    let mut idle = world.client("u").await;
    idle.ask("POST /api/v1/vhosts/~/queues/q/messages", &[], b"x").await;
    let mut waiting = world.client("u").await;
    waiting.ask("GET /health/live", &[], b"").await;
    let path = "POST /api/v1/vhosts/~/queues/none/messages?reply=20s";
    waiting.send(path, &[("Content-Type", "text/plain")], b"ping").await;
    assert_eq!(waiting.read().await.status, 422);
    world.phase.enter(Phase::Draining);
    world.broker.announce_stop("the server stops");
    world.http.shutdown(TIMEOUT).await;
    assert_eq!(idle.line().await, "", "an idle connection is closed");
    // Whoever watches still hears that the server stops.
    assert_eq!(world.get("/health/ready").await.0, 503);
    let (status, _) = world.get("/health/live").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn metrics_and_the_list_of_listeners_tell_when_certificates_end() {
    let world = World::start(Audience::Everybody).await;
    let (_, text) = world.get("/metrics?prefix=polymq").await;
    let line = "polymq_tls_certificate_expiry_seconds{listener=\"amqps\"} 4102444800";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("expiry_seconds{listener=\"amqp\"}"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_and_keeps_nobody_out() {
    let world = World::start(Audience::Everybody).await;
    let watched = world.watched();
    let ends = 4_102_444_800;
    assert_eq!(health::ending(&watched, ends - 31 * 86_400), None);
    let soon = health::ending(&watched, ends - 30 * 86_400).unwrap();
    assert_eq!(soon, "`public` ends in 720 hours");
    assert_eq!(health::ending(&watched, ends).unwrap(), "`public` has ended");
    let (status, text) = world.get("/health/ready").await;
    assert_eq!((status, text.contains("certificates")), (200, false), "{text}");
}

#[tokio::test]
async fn what_the_server_does_beside_messages_is_told() {
    let world = World::start(Audience::Users).await;
    world.declare("orders", Vec::new()).await;
    let mut client = world.client("u").await;
    let queue = "/api/v1/vhosts/~/queues/orders";
    client.ask(&format!("POST {queue}/messages"), &[], b"x").await;
    let asked = serde_json::json!({ "max": 1, "lease": "5m" });
    assert_eq!(client.post(&format!("{queue}/messages:receive"), &asked).await.status, 200);
    let mut reader = world.client("u").await;
    reader.send("GET /api/v1/events?topics=jobs", &[], b"").await;
    assert_eq!(reader.head().await, 200);
    let (_, body) = world.watch("/metrics?prefix=polymq").await;
    for line in [
        "polymq_leases 1",
        "polymq_queues{type=\"classic\"} 1",
        "polymq_queues{type=\"quorum\"} 0",
        "polymq_alarms{kind=\"store\"} 0",
        "polymq_alarms{kind=\"certificates\"} 0",
        // The sample of a server has reached this mark.
        "polymq_alarms{kind=\"mark_disk\"} 1",
        "polymq_publishers_blocked{reason=\"alarm\"} 0",
        "polymq_jobs{state=\"running\"} 0",
        "polymq_config_reload_ok 1",
        "polymq_messages_redelivered_total 0",
        "polymq_http_request_seconds_count{route=\"v1\"} 3",
    ] {
        assert!(body.contains(&format!("\n{line}\n")), "{line} in {body}");
    }
    // Other tests of this process have streams as well.
    assert!(body.contains("polymq_sse_streams{kind=\"events\"} "), "{body}");
    assert!(body.contains("polymq_listener_connections{listener=\"http\",protocol=\"http\"} "));
}
