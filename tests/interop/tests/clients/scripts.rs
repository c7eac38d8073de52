//! One test per client script.

use anyhow::Result;
use polymq_interop::{
    Client, Speaks, run_script, run_script_beside_prosody, run_script_beside_rabbitmq,
};

#[test]
fn python_pika() -> Result<()> {
    run_script(Client::Python("amqp_pika.py"), Speaks::Amqp)
}

#[test]
fn python_pika_errors() -> Result<()> {
    run_script(Client::Python("amqp_pika_errors.py"), Speaks::Amqp)
}

#[test]
fn python_amqp_differences() -> Result<()> {
    run_script(Client::Python("amqp_differences.py"), Speaks::Amqp)
}

#[test]
fn python_amqp_beside_rabbitmq() -> Result<()> {
    run_script_beside_rabbitmq(Client::Python("amqp_beside_rabbitmq.py"))
}

#[test]
fn python_aio_pika() -> Result<()> {
    run_script(Client::Python("amqp_aio_pika.py"), Speaks::Amqp)
}

#[test]
fn python_celery() -> Result<()> {
    run_script(Client::Python("amqp_celery.py"), Speaks::Amqp)
}

#[test]
fn python_celery_quorum() -> Result<()> {
    run_script(Client::Python("amqp_celery_quorum.py"), Speaks::Amqp)
}

#[test]
fn python_tutorials() -> Result<()> {
    run_script(Client::Python("amqp_tutorials.py"), Speaks::Amqp)
}

#[test]
fn python_pika_arguments() -> Result<()> {
    run_script(Client::Python("amqp_arguments.py"), Speaks::Amqp)
}

#[test]
fn python_paho_3_1_1() -> Result<()> {
    run_script(Client::Python("mqtt_paho_311.py"), Speaks::Mqtt)
}

#[test]
fn python_paho_5() -> Result<()> {
    run_script(Client::Python("mqtt_paho_5.py"), Speaks::Mqtt)
}

#[test]
fn python_aiomqtt() -> Result<()> {
    run_script(Client::Python("mqtt_aiomqtt.py"), Speaks::Mqtt)
}

#[test]
fn python_cross_protocol() -> Result<()> {
    run_script(Client::Python("cross_protocol.py"), Speaks::Both)
}

#[test]
fn python_first_minutes() -> Result<()> {
    run_script(Client::Python("first_minutes.py"), Speaks::Both)
}

#[test]
fn python_documents() -> Result<()> {
    run_script(Client::Python("documents.py"), Speaks::Both)
}

#[test]
fn python_kill_both_protocols() -> Result<()> {
    run_script(Client::Python("cross_kill.py"), Speaks::Both)
}

#[test]
fn python_slixmpp() -> Result<()> {
    run_script(Client::Python("xmpp_slixmpp.py"), Speaks::Xmpp)
}

#[test]
fn python_slixmpp_and_others() -> Result<()> {
    run_script(Client::Python("cross_xmpp.py"), Speaks::Xmpp)
}

#[test]
fn python_slixmpp_at_prosody() -> Result<()> {
    run_script_beside_prosody(Client::Python("xmpp_component.py"))
}

#[test]
fn node_xmpp_js() -> Result<()> {
    run_script(Client::Node("xmpp_client.js"), Speaks::Xmpp)
}

#[test]
fn node_amqplib() -> Result<()> {
    run_script(Client::Node("amqp_amqplib.js"), Speaks::Amqp)
}

#[test]
fn node_amqplib_arguments() -> Result<()> {
    run_script(Client::Node("amqp_arguments.js"), Speaks::Amqp)
}

#[test]
fn node_cross_settling() -> Result<()> {
    run_script(Client::Node("cross_settling.js"), Speaks::Both)
}

#[test]
fn node_mqtt_js() -> Result<()> {
    run_script(Client::Node("mqtt_mqttjs.js"), Speaks::Mqtt)
}

#[test]
fn go_amqp091() -> Result<()> {
    run_script(Client::Go("amqp091"), Speaks::Amqp)
}

#[test]
fn go_paho_3_1_1() -> Result<()> {
    run_script(Client::Go("paho3"), Speaks::Mqtt)
}

#[test]
fn go_paho_5() -> Result<()> {
    run_script(Client::Go("paho5"), Speaks::Mqtt)
}

#[test]
fn java_amqp_client() -> Result<()> {
    run_script(Client::Java("RabbitClient"), Speaks::Amqp)
}

#[test]
fn python_stomp_py() -> Result<()> {
    run_script(Client::Python("stomp_stomppy.py"), Speaks::Stomp)
}

#[test]
fn python_stomp_cross_protocol() -> Result<()> {
    run_script(Client::Python("stomp_cross.py"), Speaks::All)
}

#[test]
fn node_stompjs() -> Result<()> {
    run_script(Client::Node("stomp_stompjs.js"), Speaks::Stomp)
}

#[test]
fn perl_net_stomp() -> Result<()> {
    run_script(Client::Perl("stomp_net.pl", "Net/Stomp.pm"), Speaks::Stomp)
}

#[test]
fn curl() -> Result<()> {
    run_script(Client::Python("http_curl.py"), Speaks::Http)
}

#[test]
fn python_cloudevents() -> Result<()> {
    run_script(Client::Python("http_cloudevents.py"), Speaks::Http)
}

#[test]
fn python_schemathesis() -> Result<()> {
    run_script(Client::Python("http_schemathesis.py"), Speaks::Http)
}

#[test]
fn node_mqtt_js_over_websocket() -> Result<()> {
    run_script(Client::Node("websocket_mqtt.js"), Speaks::Http)
}

#[test]
fn node_stompjs_over_websocket() -> Result<()> {
    run_script(Client::Node("websocket_stomp.js"), Speaks::Http)
}

#[test]
fn node_xmpp_js_over_websocket() -> Result<()> {
    run_script(Client::Node("websocket_xmpp.js"), Speaks::Http)
}

#[test]
fn node_json_over_websocket() -> Result<()> {
    run_script(Client::Node("websocket_json.js"), Speaks::Http)
}

#[test]
fn browser() -> Result<()> {
    run_script(Client::Node("browser.js"), Speaks::Http)
}

#[test]
fn java_perf_test() -> Result<()> {
    run_script(Client::Python("tools_perf_test.py"), Speaks::Amqp)
}

#[test]
fn python_celery_flower() -> Result<()> {
    run_script(Client::Python("tools_flower.py"), Speaks::Http)
}

#[test]
fn prometheus() -> Result<()> {
    run_script(Client::Python("tools_prometheus.py"), Speaks::Http)
}

#[test]
fn rabbitmqadmin_of_rust() -> Result<()> {
    let script = "tools_rabbitmqadmin.py";
    run_script(Client::PythonFor(script, "rust/bin/rabbitmqadmin"), Speaks::Http)
}
