"""curl as people type it: publish, receive, acknowledge, subscribe."""

import json
import subprocess
import urllib.parse

import pika

from cases import AMQP_URL, HTTP_PORT, PASS, USER, case, equal, eventually, main

API = f"http://127.0.0.1:{HTTP_PORT}/api/v1/vhosts/~"
LIMIT = "60"


def curl(*arguments, data=None):
    """Runs curl, and returns status and body."""
    command = ["curl", "-sS", "--max-time", LIMIT, "-u", f"{USER}:{PASS}", "-w", "\n%{http_code}",
               *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def told(*arguments, data=None):
    status, body = curl(*arguments, data=data)
    equal(status, 200, body)
    return json.loads(body)


def declare(queue):
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    return connection, channel


@case
def publish_receive_and_acknowledge():
    _connection, channel = declare("curl-work")
    answer = told(f"{API}/queues/curl-work/messages", "-d", "hello",
                  "-H", "Content-Type: text/plain", "-H", 'Mq-Headers: {"tenant":"a"}')
    equal(answer, {"outcome": "stored", "routed": True, "queues": 1})
    got = told(f"{API}/queues/curl-work/messages:receive", "--json",
               '{"max":10,"wait":"20s","lease":"30s"}')
    message = got["messages"][0]
    equal((message["payload"], message["properties"]["headers"]), ("hello", {"tenant": "a"}))
    done = told(f"{API}/queues/curl-work/leases:ack?confirm=stored", "--json",
                json.dumps({"receipts": [message["receipt"]]}))
    equal(done, {"results": [{"outcome": "ok"}]})
    equal(channel.queue_declare("curl-work", passive=True).method.message_count, 0)


@case
def every_byte_of_a_body_arrives():
    _connection, channel = declare("curl-bytes")
    body = bytes(range(256)) * 4096
    told(f"{API}/queues/curl-bytes/messages", "--data-binary", "@-",
         "-H", "Content-Type: application/octet-stream", data=body)
    _, properties, found = channel.basic_get("curl-bytes", auto_ack=True)
    equal(found == body, True, "the body")
    equal((properties.content_type, properties.delivery_mode), ("application/octet-stream", 2))


@case
def both_versions_of_http():
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        answer = told(version, f"{API}/exchanges/amq.topic/messages?routing_key=nobody", "-d", "x")
        equal(answer, {"outcome": "unrouted", "routed": False, "queues": 0})


@case
def names_with_slashes_stay_in_their_place():
    _connection, channel = declare("curl/a b")
    name = urllib.parse.quote("curl/a b", safe="")
    for vhost in ["~", "%2F"]:
        api = f"http://127.0.0.1:{HTTP_PORT}/api/v1/vhosts/{vhost}"
        equal(told(f"{api}/queues/{name}/messages", "-d", "x")["routed"], True)
    equal(channel.queue_declare("curl/a b", passive=True).method.message_count, 2)


@case
def wrong_password_and_wrong_path():
    status, body = curl("-u", f"{USER}:wrong", f"{API}/queues/q/messages", "-d", "x")
    equal((status, json.loads(body)["code"]), (401, "login_failed"))
    status, body = curl(f"{API}/nothing")
    equal((status, json.loads(body)["code"]), (404, "path_not_found"))
    status, body = curl("-X", "PUT", f"{API}/queues/q/messages", "-d", "x")
    equal((status, json.loads(body)["code"]), (405, "method_not_allowed"))


@case
def events_of_a_pattern():
    url = f"{API}/subscribe?exchange=amq.topic&pattern=sensors.*.temp"
    reader = subprocess.Popen(["curl", "-sSN", "--max-time", LIMIT, "-u", f"{USER}:{PASS}", url],
                              stdout=subprocess.PIPE)
    try:
        reader.stdout.readline()
        answer = eventually(
            lambda: told(f"{API}/exchanges/amq.topic/messages?routing_key=sensors.7.temp",
                         "-d", "21")["routed"], "the subscription stands")
        equal(answer, True)
        lines = iter(reader.stdout.readline, b"")
        data = next(line for line in lines if line.startswith(b"data: "))
        message = json.loads(data.removeprefix(b"data: "))
        equal((message["routing_key"], message["payload"]), ("sensors.7.temp", "21"))
    finally:
        reader.kill()
        reader.wait()


@case
def question_is_answered_over_amqp():
    connection, channel = declare("curl-ask")

    def answer(channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body.upper(), reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume("curl-ask", answer)
    command = ["curl", "-sS", "--max-time", LIMIT, "-u", f"{USER}:{PASS}",
               f"{API}/queues/curl-ask/messages?reply=10s", "-d", "ping"]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE)
    while asking.poll() is None:
        connection.process_data_events(time_limit=0.05)
    equal(asking.stdout.read(), b"PING")


@case
def sixteen_mebibytes_and_no_more():
    declare("curl-large")
    most = 16 * 1024 * 1024
    told(f"{API}/queues/curl-large/messages", "--data-binary", "@-", data=bytes(most))
    status, body = curl(f"{API}/queues/curl-large/messages", "-H", "Expect:", "--data-binary",
                        "@-", data=bytes(most + 1))
    equal((status, json.loads(body)["code"]), (413, "message_too_large"))


@case
def explain_maps_addresses_as_the_protocols_do():
    declare("explained")

    def explain(protocol, text):
        asked = {"address": {"protocol": protocol, "text": text}, "message": {"payload": "x"}}
        status, body = curl(f"{API}/routing:explain", "--json", json.dumps(asked))
        answer = json.loads(body)
        return answer["queues"] if status == 200 else status

    for protocol, text, queues in [
        ("mqtt", "$queue/explained", ["explained"]), ("mqtt", "a/#", 400),
        ("stomp", "/queue/explained", ["explained"]), ("stomp", "/queue/made", ["made"]),
        ("stomp", "/amq/queue/made", []), ("stomp", "/nowhere", 400),
        ("xmpp", "explained@queues.localhost", ["explained"]),
        ("xmpp", "guest@localhost", ["xmpp-mailbox-guest@localhost"]),
        ("amqp", "explained", 400),
    ]:
        equal(explain(protocol, text), queues, f"{protocol} {text}")


if __name__ == "__main__":
    main()
