"""stomp.py, pika and paho-mqtt on the same queues and topics."""

import queue

import paho.mqtt.client as mqtt
import pika
import stomp

from cases import (AMQP_URL, MQTT_HOST, MQTT_PORT, PASS, STOMP_HOST, STOMP_PORT, USER, case, equal,
                   main)

LIMIT = 30


class Inbox(stomp.ConnectionListener):
    def __init__(self):
        self.frames = queue.Queue()
        self.receipts = queue.Queue()

    def on_message(self, frame):
        self.frames.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])


def stomp_client():
    connection = stomp.Connection12([(STOMP_HOST, STOMP_PORT)])
    inbox = Inbox()
    connection.set_listener("", inbox)
    connection.connect(USER, PASS, wait=True)
    return connection, inbox


def channel():
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    return connection, connection.channel()


@case
def amqp_to_stomp_and_back():
    connection, amqp = channel()
    amqp.queue_declare("x-work", durable=True)
    client, inbox = stomp_client()
    client.subscribe("/queue/x-work", id="1", ack="client-individual")
    properties = pika.BasicProperties(content_type="text/plain", delivery_mode=2, priority=4,
                                      correlation_id="c", headers={"n": 5, "ok": True})
    amqp.basic_publish("", "x-work", b"hello", properties)
    frame = inbox.frames.get(timeout=LIMIT)
    equal((frame.body, frame.headers["content-type"]), ("hello", "text/plain"))
    equal((frame.headers["n"], frame.headers["ok"]), ("5", "true"))
    client.ack(frame.headers["ack"])
    amqp.queue_declare("x-back", durable=True)
    kept = {name: value for name, value in frame.headers.items()
            if name not in ("destination", "message-id", "subscription", "ack", "content-length")}
    client.send("/queue/x-back", frame.body, headers={"receipt": "r", **kept})
    inbox.receipts.get(timeout=LIMIT)
    _, found, body = amqp.basic_get("x-back", auto_ack=True)
    equal(body, b"hello")
    equal((found.headers, found.priority, found.correlation_id), ({"n": 5, "ok": True}, 4, "c"))
    client.disconnect()
    connection.close()


@case
def amqp_asks_and_stomp_answers():
    client, inbox = stomp_client()
    client.subscribe("/queue/x-rpc", id="1", headers={"receipt": "s"})
    inbox.receipts.get(timeout=LIMIT)
    connection, amqp = channel()
    answers = []
    amqp.basic_consume("amq.rabbitmq.reply-to", lambda *found: answers.append(found[3]),
                       auto_ack=True)
    amqp.basic_publish("", "x-rpc", b"ask", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    client.send(inbox.frames.get(timeout=LIMIT).headers["reply-to"], "answer")
    for _ in range(LIMIT * 10):
        connection.process_data_events(0.1)
        if answers:
            break
    equal(answers, [b"answer"])
    client.disconnect()
    connection.close()


@case
def mqtt_and_stomp_share_topics():
    client, inbox = stomp_client()
    client.subscribe("/topic/x.#", id="1", headers={"receipt": "s"})
    inbox.receipts.get(timeout=LIMIT)
    found, ready = queue.Queue(), queue.Queue()
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    device.username_pw_set(USER, PASS)
    device.on_message = lambda _client, _data, message: found.put(message)
    device.on_subscribe = lambda *_: ready.put(True)
    device.connect(MQTT_HOST, MQTT_PORT)
    device.subscribe("x/+/set", 1)
    device.loop_start()
    ready.get(timeout=LIMIT)
    device.publish("x/lamp/state", b"on", qos=1)
    frame = inbox.frames.get(timeout=LIMIT)
    equal((frame.body, frame.headers["destination"]), ("on", "/topic/x.lamp.state"))
    client.send("/topic/x.lamp.set", "off", headers={"persistent": "true", "room": "a: b"})
    message = found.get(timeout=LIMIT)
    equal((message.topic, message.payload, message.qos), ("x/lamp/set", b"off", 1))
    equal(message.properties.UserProperty, [("room", "a: b")])
    device.disconnect()
    device.loop_stop()
    client.disconnect()


main()
