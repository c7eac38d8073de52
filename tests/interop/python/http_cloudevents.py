"""The SDK of CloudEvents for Python, in both modes and in a batch, and AMQP beside it."""

import http.client
import json
from base64 import b64encode
from datetime import datetime, timezone

import pika
from cloudevents.core.bindings.http import (HTTPMessage, from_http_event, to_binary_event,
                                            to_structured_event)
from cloudevents.core.v1.event import CloudEvent

from cases import AMQP_URL, HTTP_PORT, PASS, USER, case, equal, main

QUEUE = "/api/v1/vhosts/~/queues/events"
LOGIN = {"Authorization": "Basic " + b64encode(f"{USER}:{PASS}".encode()).decode()}


def event(**more):
    attributes = {"id": "e 1", "source": "/sensors/7", "type": "t.measured", "specversion": "1.0",
                  "datacontenttype": "application/json", "subject": "Zürich",
                  "time": datetime(2024, 2, 29, 12, 0, 0, 123456, timezone.utc), **more}
    return CloudEvent(attributes, {"celsius": 21.5})


def ask(method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", HTTP_PORT, timeout=20)
    connection.request(method, path, body=body, headers={**LOGIN, **headers})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def publish(message):
    status, _, body = ask("POST", f"{QUEUE}/messages", message.headers, message.body)
    equal(status, 200, body)
    return json.loads(body)


def receive(accept):
    headers = {"Content-Type": "application/json", "Accept": accept}
    status, headers, body = ask("POST", f"{QUEUE}/messages:receive", headers, b'{"wait":"20s"}')
    equal(status, 200, body)
    done, _, body_of_ack = ask("DELETE", f"{QUEUE}/leases/{headers['polymq-receipt']}", {}, None)
    equal(done, 204, body_of_ack)
    return from_http_event(HTTPMessage(headers, body))


def same(found, sent):
    equal(found.get_attributes(), sent.get_attributes())
    equal(found.get_data(), sent.get_data())


def channel():
    channel = pika.BlockingConnection(pika.URLParameters(AMQP_URL)).channel()
    channel.queue_delete("events")
    channel.queue_declare("events", durable=True)
    return channel


@case
def binary_mode():
    channel()
    sent = event(traceid="abc")
    publish(to_binary_event(sent))
    publish(to_binary_event(sent))
    same(receive("application/octet-stream"), sent)
    same(receive("application/cloudevents+json"), sent)


@case
def structured_mode_is_untouched():
    amqp = channel()
    sent = to_structured_event(event())
    publish(sent)
    publish(sent)
    same(receive("application/cloudevents+json"), event())
    _, properties, body = amqp.basic_get("events", auto_ack=True)
    equal(body, sent.body)
    equal(properties.content_type.startswith("application/cloudevents+json"), True)


@case
def batch_is_split():
    amqp = channel()
    events = [json.loads(to_structured_event(event(id=str(number))).body) for number in range(3)]
    headers = {"content-type": "application/cloudevents-batch+json"}
    told = publish(HTTPMessage(headers, json.dumps(events).encode()))
    equal([one["outcome"] for one in told["results"]], ["stored"] * 3)
    for expected in events:
        _, properties, body = amqp.basic_get("events", auto_ack=True)
        equal((properties.content_type, json.loads(body)),
              ("application/cloudevents+json", expected))


@case
def amqp_sees_the_attributes_and_sends_them():
    amqp = channel()
    publish(to_binary_event(event()))
    _, properties, body = amqp.basic_get("events", auto_ack=True)
    equal(properties.headers["cloudEvents_source"], "/sensors/7")
    equal((properties.message_id, properties.type), ("e 1", "t.measured"))
    equal(json.loads(body), {"celsius": 21.5})
    amqp.basic_publish("", "events", body, properties)
    same(receive("application/octet-stream"), event())


if __name__ == "__main__":
    main()
