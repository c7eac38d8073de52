"""paho-mqtt as a blocking client: every packet the script waits for arrives in a queue."""

import queue
import socket
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from cases import MQTT_HOST, MQTT_PORT, PASS, USER

LIMIT = 30
V31, V311, V5 = mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5


def properties(packet, **values):
    """Properties by their Python names; a user property is a list of pairs."""
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    def __init__(self, client_id="", protocol=V5, clean=None, user=USER, password=PASS, will=None,
                 reconnect=False, manual_ack=False, **connect_properties):
        kept = {} if protocol == V5 else {"clean_session": clean is not False}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol,
            reconnect_on_failure=reconnect, manual_ack=manual_ack, **kept,
        )
        self.protocol, self.clean = protocol, clean
        self.connect_properties = connect_properties
        if user is not None:
            self.mqtt.username_pw_set(user, password)
        if will is not None:
            self.mqtt.will_set(**will)
        self.mqtt.reconnect_delay_set(1, 1)
        self.connected, self.lost = queue.Queue(), queue.Queue()
        self.messages, self.answers = queue.Queue(), {}
        self.lock = threading.Lock()
        self.mqtt.on_connect = lambda c, u, flags, reason, p: self.connected.put(
            (reason, flags.session_present, p))
        self.mqtt.on_disconnect = lambda c, u, flags, reason, p: self.lost.put((reason, p))
        self.mqtt.on_message = lambda c, u, message: self.messages.put(message)
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: self.answer(mid).put(reasons)
        self.mqtt.on_unsubscribe = lambda c, u, mid, reasons, p: self.answer(mid).put(reasons)
        self.mqtt.on_publish = lambda c, u, mid, reason, p: self.answer(mid).put(reason)

    def answer(self, mid):
        with self.lock:
            return self.answers.setdefault(mid, queue.Queue())

    def try_connect(self, keepalive=60):
        """The broker's CONNACK: reason, session present, properties."""
        extra = {}
        if self.protocol == V5:
            extra["clean_start"] = self.clean is not False
            if self.connect_properties:
                extra["properties"] = properties("CONNECT", **self.connect_properties)
        self.mqtt.connect(MQTT_HOST, MQTT_PORT, keepalive, **extra)
        self.mqtt.loop_start()
        self.connack = self.connected.get(timeout=LIMIT)
        return self.connack

    def connect(self, keepalive=60):
        reason, self.session_present, _ = self.try_connect(keepalive)
        assert not reason.is_failure, f"refused: {reason}"
        return self

    def subscribe(self, topic, qos=1, props=None, **options):
        if self.protocol == V5:
            options = SubscribeOptions(qos=qos, **options)
            result, mid = self.mqtt.subscribe(topic, options=options, properties=props)
        else:
            result, mid = self.mqtt.subscribe(topic, qos)
        assert result == mqtt.MQTT_ERR_SUCCESS, result
        return [reason.value for reason in self.answer(mid).get(timeout=LIMIT)]

    def unsubscribe(self, topic):
        mid = self.mqtt.unsubscribe(topic)[1]
        return [reason.value for reason in self.answer(mid).get(timeout=LIMIT)]

    def publish(self, topic, payload=b"", qos=1, retain=False, **values):
        """Publishes and waits for the broker's last packet; its reason code for QoS 1 and 2."""
        props = properties("PUBLISH", **values) if values else None
        sent = self.mqtt.publish(topic, payload, qos, retain, props)
        assert sent.rc == mqtt.MQTT_ERR_SUCCESS, sent.rc
        reason = self.answer(sent.mid).get(timeout=LIMIT)
        with self.lock:
            del self.answers[sent.mid]
        return reason.value

    def receive(self, limit=LIMIT):
        return self.messages.get(timeout=limit)

    def payloads(self, count):
        return [self.receive().payload for _ in range(count)]

    def ack(self, message):
        self.mqtt.ack(message.mid, message.qos)

    def disconnect(self, **kwargs):
        self.mqtt.disconnect(**kwargs)
        self.lost.get(timeout=LIMIT)
        self.mqtt.loop_stop()

    def vanish(self):
        """Ends the connection as a crashed client does."""
        self.mqtt.socket().shutdown(socket.SHUT_RDWR)
        self.lost.get(timeout=LIMIT)
        self.mqtt.loop_stop()

    def __enter__(self):
        return self.connect()

    def __exit__(self, kind, value, trace):
        if self.mqtt.is_connected():
            self.mqtt.disconnect()
        self.mqtt.loop_stop()
