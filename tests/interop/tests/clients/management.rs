//! Tools that manage RabbitMQ: its HTTP client for Rust, which decodes strictly, and its command
//! `rabbitmqadmin` (Python).

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use polymq_interop::{Broker, Speaks};
use rabbitmq_http_client::{
    blocking_api::Client,
    commons::{
        BindingDestinationType, ExchangeType, PaginationParams, PolicyTarget, SupportedProtocol,
        UserLimitTarget, VirtualHostLimitTarget,
    },
    password_hashing,
    requests::{
        BindingDeletionParams, EnforcedLimitParams, ExchangeParams,
        GlobalRuntimeParameterDefinition, Permissions, PolicyDefinitionBuilder, PolicyParams,
        QueueParams, TopicPermissions, UserParams, VirtualHostParams,
    },
};
use serde_json::json;

use crate::with_broker;

type Http = Client<String, &'static str, &'static str>;

/// What a call answers, or which call it was.
fn of<T, E: Display>(call: &str, result: Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("{call}: {error}"))
}

macro_rules! ask {
    ($client:expr, $call:ident $(, $argument:expr)*) => {
        of(stringify!($call), $client.$call($($argument),*))?
    };
}

/// A client of AMQP with a consumer, and messages that it has not acknowledged. Each of them ends
/// when it is dropped.
async fn consumer(broker: &Broker) -> Result<(Connection, Channel, Consumer)> {
    let uri = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.amqp_port());
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("watched".into(), declare, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for _ in 0..3 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel
            .basic_publish("".into(), "watched".into(), options, b"x", properties)
            .await?
            .await?;
    }
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer =
        channel.basic_consume("watched".into(), "tag".into(), options, arguments).await?;
    Ok((connection, channel, consumer))
}

#[test]
fn the_http_client_for_rust_decodes_every_answer() -> Result<()> {
    with_broker(Speaks::Http, async |broker: &mut Broker| {
        let connection = consumer(broker).await?;
        let endpoint = format!("http://127.0.0.1:{}/api", broker.http_port());
        let looks = tokio::task::spawn_blocking(move || {
            let http = Client::new(endpoint.clone(), "guest", "guest");
            look(&http)?;
            objects(&http)?;
            messages(&http)?;
            users(&http, &endpoint)?;
            policies(&http)?;
            definitions(&http)
        });
        looks.await??;
        drop(connection);
        Ok(())
    })
}

fn look(http: &Http) -> Result<()> {
    let overview = ask!(http, overview);
    ensure!(overview.object_totals.connections >= 1, "{overview:?}");
    ask!(http, server_version);
    let name = ask!(http, get_cluster_name).name;
    ask!(http, set_cluster_name, "another");
    ensure!(ask!(http, get_cluster_name).name == "another", "the name stayed {name}");
    let nodes = ask!(http, list_nodes);
    let node = nodes.first().context("there is a node")?.name.clone();
    ask!(http, get_node_info, &node);
    ask!(http, get_node_memory_footprint, &node);
    ask!(http, list_node_plugins, &node);
    ask!(http, list_all_cluster_plugins);
    ask!(http, auth_attempts_statistics, &node);

    let connections = ask!(http, list_connections);
    let amqp = connections.iter().find(|one| one.protocol == "AMQP 0-9-1");
    let amqp = amqp.with_context(|| format!("{connections:?}"))?.name.clone();
    ask!(http, get_connection_info, &amqp);
    ask!(http, list_connections_in, "/");
    ensure!(!ask!(http, list_user_connections, "guest").is_empty());
    let channels = ask!(http, list_channels_on, &amqp);
    let channel = channels.first().context("there is a channel")?;
    ensure!(channel.messages_unacknowledged == 3 && channel.consumer_count == 1, "{channel:?}");
    ask!(http, get_channel_info, &channel.name);
    ask!(http, list_channels);
    ask!(http, list_channels_in, "/");
    let consumers = ask!(http, list_consumers_in, "/");
    ensure!(consumers.iter().any(|one| one.consumer_tag == "tag"), "{consumers:?}");
    ask!(http, list_consumers);

    ask!(http, health_check_cluster_wide_alarms);
    ask!(http, health_check_local_alarms);
    ask!(http, health_check_if_node_is_quorum_critical);
    ask!(http, health_check_protocol_listener, SupportedProtocol::AMQP);
    ensure!(http.health_check_port_listener(1).is_err());
    ask!(http, list_feature_flags);
    ask!(http, enable_feature_flag, "anything");
    ask!(http, list_all_deprecated_features);
    ask!(http, list_deprecated_features_in_use);
    ask!(http, rebalance_queue_leaders);
    ask!(http, list_shovels);
    ask!(http, list_shovels_in, "/");
    ask!(http, list_federation_links);
    ask!(http, list_federation_upstreams);
    ask!(http, list_stream_connections);
    ask!(http, list_stream_publishers);
    ask!(http, list_stream_consumers);
    Ok(())
}

fn objects(http: &Http) -> Result<()> {
    let vhost = "interop/a b";
    ask!(http, create_vhost, &VirtualHostParams::named(vhost));
    ask!(http, list_vhosts);
    ask!(http, get_vhost, vhost);
    ask!(http, enable_vhost_deletion_protection, vhost);
    ensure!(http.delete_vhost(vhost, false).is_err(), "a protected virtual host was deleted");
    ask!(http, disable_vhost_deletion_protection, vhost);

    ask!(http, declare_exchange, vhost, &ExchangeParams::durable_topic("x", None));
    ask!(http, declare_exchange, vhost, &ExchangeParams::durable("y", ExchangeType::Fanout, None));
    let arguments = json!({ "x-max-length": 10 }).as_object().cloned();
    ask!(http, declare_queue, vhost, &QueueParams::new_durable_classic_queue("q", arguments));
    ask!(http, declare_quorum_queue, vhost, "quorum");
    ask!(http, list_exchanges);
    ask!(http, list_exchanges_in, vhost);
    ask!(http, get_exchange_info, vhost, "x");
    let queue = ask!(http, get_queue_info, vhost, "q");
    ensure!(queue.durable && queue.queue_type == "classic", "{queue:?}");
    ask!(http, list_queues);
    ask!(http, list_queues_in, vhost);
    ask!(http, list_queues_with_details);
    ensure!(ask!(http, list_quorum_queues_in, vhost).len() == 1);
    let page = PaginationParams { page: Some(1), page_size: Some(1) };
    ensure!(ask!(http, list_queues_in_paged, vhost, &page).len() == 1);

    ask!(http, bind_queue, vhost, "q", "x", Some("a.#"), None);
    let arguments = json!({ "k": "v" }).as_object().cloned();
    ask!(http, bind_queue, vhost, "q", "x", Some("b~ c"), arguments);
    ask!(http, bind_exchange, vhost, "y", "x", Some("k"), None);
    ensure!(ask!(http, list_exchange_bindings_with_source, vhost, "x").len() == 3);
    ensure!(ask!(http, list_exchange_bindings_with_destination, vhost, "y").len() == 1);
    ask!(http, list_bindings);
    ask!(http, list_bindings_in, vhost);
    let bindings = ask!(http, list_queue_bindings, vhost, "q");
    for binding in bindings.iter().filter(|binding| binding.source == "x") {
        ask!(http, recreate_binding, binding);
        let params = BindingDeletionParams {
            virtual_host: vhost,
            source: "x",
            destination: "q",
            destination_type: BindingDestinationType::Queue,
            routing_key: &binding.routing_key,
            arguments: Some(binding.arguments.0.clone()),
        };
        ask!(http, delete_binding, &params, false);
    }
    ensure!(ask!(http, list_exchange_bindings_with_source, vhost, "x").len() == 1);

    let limit = EnforcedLimitParams::new(VirtualHostLimitTarget::MaxQueues, 100);
    ask!(http, set_vhost_limit, vhost, limit);
    ensure!(ask!(http, list_vhost_limits, vhost).len() == 1);
    ask!(http, list_all_vhost_limits);
    ask!(http, clear_vhost_limit, vhost, VirtualHostLimitTarget::MaxQueues);
    ask!(http, purge_queue, vhost, "q");
    ask!(http, delete_queue, vhost, "q", false);
    ensure!(http.delete_queue(vhost, "q", false).is_err(), "a queue was deleted twice");
    ask!(http, delete_queue, vhost, "q", true);
    ask!(http, delete_exchange, vhost, "x", false);
    ask!(http, delete_vhost, vhost, false);
    Ok(())
}

fn messages(http: &Http) -> Result<()> {
    ask!(http, declare_queue, "/", &QueueParams::new_durable_classic_queue("m", None));
    let properties = json!({ "delivery_mode": 2, "message_id": "one", "headers": { "h": 1 } });
    let properties = properties.as_object().cloned().unwrap_or_default();
    let routed = ask!(http, publish_message, "/", "amq.default", "m", "hello", properties);
    ensure!(routed.routed);
    let got = ask!(http, get_messages, "/", "m", 2, "ack_requeue_false");
    let [message] = got.as_slice() else { bail!("{got:?}") };
    ensure!(message.payload == "hello" && message.message_count == 0, "{message:?}");
    ask!(http, delete_queue, "/", "m", false);
    Ok(())
}

fn users(http: &Http, endpoint: &str) -> Result<()> {
    let hash = password_hashing::base64_encoded_salted_password_hash_sha256(
        &password_hashing::salt(),
        "secret",
    );
    ask!(http, create_user, &UserParams::new("ann", &hash, "management"));
    let user = ask!(http, get_user, "ann");
    ensure!(user.password_hash.is_some(), "{user:?}");
    ask!(http, list_users);
    ensure!(ask!(http, list_users_without_permissions).iter().any(|one| one.name == "ann"));
    ask!(http, declare_permissions, &Permissions::full_access("ann", "/"));
    ask!(http, get_permissions, "/", "ann");
    ask!(http, list_permissions);
    ask!(http, list_permissions_in, "/");
    ask!(http, list_permissions_of, "ann");
    let topics = TopicPermissions {
        user: "ann",
        vhost: "/",
        exchange: "amq.topic",
        read: "^a",
        write: "^b",
    };
    ask!(http, declare_topic_permissions, &topics);
    ask!(http, list_topic_permissions);
    ask!(http, list_topic_permissions_in, "/");
    ask!(http, list_topic_permissions_of, "ann");
    ask!(http, get_topic_permissions_of, "/", "ann");

    // The hash of RabbitMQ lets her in.
    let own = Client::new(endpoint.to_owned(), "ann", "secret");
    let known = of("current_user", own.current_user())?;
    ensure!(known.name == "ann", "{known:?}");
    ensure!(own.list_users().is_err(), "management alone sees all users");

    let limit = EnforcedLimitParams::new(UserLimitTarget::MaxChannels, 10);
    ask!(http, set_user_limit, "ann", limit);
    ask!(http, list_user_limits, "ann");
    ask!(http, list_all_user_limits);
    ask!(http, clear_user_limit, "ann", UserLimitTarget::MaxChannels);
    ask!(http, clear_topic_permissions, "/", "ann", false);
    ask!(http, clear_permissions, "/", "ann", false);
    ask!(http, delete_user, "ann", false);
    Ok(())
}

fn policies(http: &Http) -> Result<()> {
    let definition = || PolicyDefinitionBuilder::new().max_length(10).build();
    let policy = PolicyParams::new("/", "p", "^q", definition()).apply_to(PolicyTarget::Queues);
    ask!(http, declare_policy, &policy);
    ask!(http, get_policy, "/", "p");
    ask!(http, list_policies);
    ask!(http, list_policies_in, "/");
    let operator = PolicyParams::new("/", "o", "^q", definition()).apply_to(PolicyTarget::Queues);
    ask!(http, declare_operator_policy, &operator);
    ask!(http, get_operator_policy, "/", "o");
    ask!(http, list_operator_policies);
    ask!(http, list_operator_policies_in, "/");
    ask!(http, list_runtime_parameters);
    let value = json!({ "a": 1 }).as_object().cloned().unwrap_or_default();
    ask!(
        http,
        upsert_global_runtime_parameter,
        &GlobalRuntimeParameterDefinition { name: "g", value }
    );
    ask!(http, get_global_runtime_parameter, "g");
    ask!(http, list_global_runtime_parameters);
    ask!(http, clear_global_runtime_parameter, "g");
    Ok(())
}

fn definitions(http: &Http) -> Result<()> {
    ask!(http, export_cluster_wide_definitions_as_data);
    ask!(http, export_vhost_definitions_as_data, "/");
    let text = ask!(http, export_cluster_wide_definitions_as_string);
    let definitions = serde_json::from_str(&text)?;
    ask!(http, delete_policy, "/", "p", false);
    ask!(http, delete_operator_policy, "/", "o", false);
    ask!(http, import_cluster_wide_definitions, definitions);
    ask!(http, get_policy, "/", "p");
    Ok(())
}

/// The script of the management plugin, as Debian installs it.
fn rabbitmqadmin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").ok()?;
    let plugins = versions.flatten().filter_map(|version| {
        let plugins = fs::read_dir(version.path().join("plugins")).ok()?;
        plugins
            .flatten()
            .find(|plugin| plugin.file_name().to_string_lossy().starts_with("rabbitmq_management-"))
    });
    let script = |plugin: fs::DirEntry| plugin.path().join("priv/www/cli/rabbitmqadmin");
    plugins.map(script).find(|script| script.exists())
}

const OPERATOR_POLICY: &str =
    "value={\"pattern\":\"^z\",\"definition\":{\"max-length\":9},\"apply-to\":\"queues\"}";

/// Orders of an administrator, one after the other, and a word of the answer.
const ORDERS: [(&[&str], &str); 41] = [
    (&["show", "overview"], "rabbitmq_version"),
    (&["list", "nodes", "name", "mem_used"], "mem_used"),
    (&["declare", "queue", "name=q", "arguments={\"x-max-length\":10}"], "queue declared"),
    (&["declare", "queue", "name=with space", "durable=false"], "queue declared"),
    (&["declare", "exchange", "name=x", "type=topic"], "exchange declared"),
    (&["list", "exchanges", "name", "type"], "topic"),
    (&["declare", "binding", "source=x", "destination=q", "routing_key=a.*"], "binding declared"),
    (&["list", "bindings", "source", "routing_key"], "a.*"),
    (&["publish", "exchange=x", "routing_key=a.b", "payload=hello"], "published"),
    (&["get", "queue=q", "ackmode=ack_requeue_false"], "hello"),
    (&["publish", "routing_key=q", "payload=x"], "published"),
    (&["purge", "queue", "name=q"], "queue purged"),
    (&["list", "queues", "vhost", "name", "messages", "message_stats.publish"], "with space"),
    (&["declare", "vhost", "name=v"], "vhost declared"),
    (&["list", "vhosts", "name"], "| v "),
    (&["declare", "vhost_limit", "vhost=v", "name=max-queues", "value=7"], "vhost_limit declared"),
    (&["list", "vhost_limits"], "max-queues"),
    (&["delete", "vhost_limit", "vhost=v", "name=max-queues"], "vhost_limit deleted"),
    (&["declare", "user", "name=u", "password=p", "tags=monitoring"], "user declared"),
    (&["list", "users", "name", "tags"], "monitoring"),
    (
        &["declare", "permission", "vhost=v", "user=u", "configure=.*", "write=.*", "read=.*"],
        "permission declared",
    ),
    (&["list", "permissions"], "| u "),
    (
        &["declare", "policy", "name=p", "pattern=^q", "definition={\"max-length\":3}"],
        "policy declared",
    ),
    (
        &["declare", "operator_policy", "name=o", "pattern=^q", "definition={\"max-length\":2}"],
        "operator_policy declared",
    ),
    (&["list", "queues", "name", "policy", "operator_policy"], "| p "),
    (&["list", "policies", "name", "pattern"], "^q"),
    (&["list", "operator_policies", "name", "pattern"], "^q"),
    (
        &[
            "delete",
            "binding",
            "source=x",
            "destination=q",
            "destination_type=queue",
            "properties_key=a.*",
        ],
        "binding deleted",
    ),
    (&["delete", "queue", "name=with space"], "queue deleted"),
    (&["list", "connections"], "channels"),
    (&["list", "channels"], "user"),
    (&["list", "consumers"], "tag"),
    (&["list", "parameters"], "operator_policy"),
    (
        &["declare", "parameter", "component=operator_policy", "name=o2", OPERATOR_POLICY],
        "parameter declared",
    ),
    (&["delete", "parameter", "component=operator_policy", "name=o2"], "parameter deleted"),
    (&["delete", "exchange", "name=x"], "exchange deleted"),
    (&["delete", "policy", "name=p"], "policy deleted"),
    (&["delete", "operator_policy", "name=o"], "operator_policy deleted"),
    (&["delete", "permission", "vhost=v", "user=u"], "permission deleted"),
    (&["delete", "user", "name=u"], "user deleted"),
    (&["delete", "vhost", "name=v"], "vhost deleted"),
];

fn admin(script: &Path, port: u16, order: &[&str]) -> Result<String> {
    let output = Command::new("python3")
        .arg(script)
        .args(["-H", "127.0.0.1", "-P", &port.to_string(), "-u", "guest", "-p", "guest"])
        .args(order)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "rabbitmqadmin {order:?}: {said}{wrong}");
    Ok(said)
}

/// What `help subcommands` lists is in [`ORDERS`], or given apart.
fn every_order_is_given(script: &Path) -> Result<()> {
    let help = Command::new("python3").arg(script).args(["help", "subcommands"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let listed = help.lines().filter_map(|line| line.strip_prefix("  ")).map(str::trim_start);
    let verbs = ["list", "show", "declare", "delete", "close", "purge", "export", "import"];
    let listed: Vec<_> = listed
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>())
        .filter(|words| words.first().is_some_and(|verb| verbs.contains(verb)))
        .collect();
    ensure!(listed.len() > 30, "{help}");
    for words in listed {
        let is_apart =
            matches!(words.as_slice(), ["export" | "import", _] | ["close", "connection"]);
        let is_given = ORDERS.iter().any(|(order, _)| order.starts_with(&words));
        ensure!(is_apart || is_given, "{words:?} is asked by no test");
    }
    Ok(())
}

#[test]
fn rabbitmqadmin_manages_everything() -> Result<()> {
    let missing = "rabbitmqadmin is not installed (Debian's package rabbitmq-server)";
    let script = rabbitmqadmin().context(missing)?;
    with_broker(Speaks::Http, async |broker: &mut Broker| {
        let connection = consumer(broker).await?;
        let port = broker.http_port();
        let orders = tokio::task::spawn_blocking(move || {
            for (order, word) in ORDERS {
                let said = admin(&script, port, order)?;
                ensure!(said.contains(word), "rabbitmqadmin {order:?} does not say {word}: {said}");
            }
            let file = tempfile::NamedTempFile::new()?;
            let path = file.path().display().to_string();
            admin(&script, port, &["export", &path])?;
            admin(&script, port, &["delete", "queue", "name=q"])?;
            admin(&script, port, &["import", &path])?;
            let queues = admin(&script, port, &["list", "queues", "name"])?;
            ensure!(queues.contains("| q "), "{queues}");
            let connections = admin(&script, port, &["-f", "tsv", "list", "connections", "name"])?;
            let name = connections.lines().nth(1).context("a connection is listed")?;
            let name = format!("name={name}");
            let said = admin(&script, port, &["close", "connection", &name])?;
            ensure!(said.contains("connection closed"), "{said}");
            every_order_is_given(&script)
        });
        orders.await??;
        drop(connection);
        Ok(())
    })
}
