"""Logging in, frames, methods in general, channels."""

import struct

from amqp_conversations import FULL, PLAIN, conversation, greet, log_in, opened
from amqp_wire import END, HEADER, content_header, frame, put_method


@conversation
def start_and_tune(peer):
    wire = peer.connect()
    wire.raw(HEADER)
    wire.read()
    wire.call(0, "connection.start-ok", FULL, "PLAIN", PLAIN, "en_US")
    wire.send(0, "connection.tune-ok", 100, 8192, 0)
    wire.call(0, "connection.open", "/", "", False)
    wire.call(0, "connection.close", 200, "bye", 0, 0)


@conversation
def other_protocol_headers(peer):
    for header in (b"AMQP\x00\x00\x08\x00", b"AMQP\x01\x01\x09\x01", b"AMQP\x09\x09\x09\x09"):
        wire = peer.connect()
        wire.raw(header)
        wire.rest(1)


@conversation
def wrong_password(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", b"\0guest\0wrong", "en_US")
    wire.read()


@conversation
def wrong_password_of_a_client_without_the_capability(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", {}, "PLAIN", b"\0guest\0wrong", "en_US")


@conversation
def unknown_user(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", b"\0nobody\0guest", "en_US")


@conversation
def unknown_mechanism(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", FULL, "FANCY", b"", "en_US")


@conversation
def malformed_plain_response(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", b"guest", "en_US")


@conversation
def amqplain(peer):
    for password in (b"guest", b"wrong"):
        wire = greet(peer)
        response = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05" + password
        wire.call(0, "connection.start-ok", FULL, "AMQPLAIN", response, "en_US")


@conversation
def tune_beyond_the_offer(peer):
    for tune in ((2048, 131072, 60), (2047, 131073, 60), (0, 0, 0), (2047, 4095, 60)):
        wire = greet(peer)
        wire.quietly(0, "connection.start-ok", FULL, "PLAIN", PLAIN, "en_US")
        wire.said.pop()
        wire.send(0, "connection.tune-ok", *tune)
        wire.send(0, "connection.open", "/", "", False)
        wire.say(f"tune {tune}")
        wire.read()


@conversation
def missing_virtual_host(peer):
    wire = greet(peer)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", PLAIN, "en_US")
    wire.send(0, "connection.tune-ok", 100, 8192, 0)
    wire.call(0, "connection.open", "nowhere", "", False)
    wire.read()


@conversation
def methods_out_of_order(peer):
    wire = greet(peer)
    wire.call(0, "connection.open", "/", "", False)
    wire = greet(peer)
    wire.call(0, "connection.tune-ok", 100, 8192, 0)
    wire = greet(peer)
    wire.call(1, "channel.open", "")
    wire = log_in(peer)
    wire.call(0, "connection.open", "/", "", False)
    wire = log_in(peer)
    wire.call(0, "connection.tune-ok", 100, 8192, 0)
    wire = log_in(peer)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", PLAIN, "en_US")


@conversation
def closing_before_login(peer):
    wire = greet(peer)
    wire.call(0, "connection.close", 200, "bye", 0, 0)
    wire.rest(1)


@conversation
def update_secret(peer):
    wire = opened(peer)
    wire.call(0, "connection.update-secret", b"guest", "renewal")
    wire.call(0, "connection.update-secret", b"not the password", "renewal")
    wire.call(1, "basic.qos", 0, 1, False)


@conversation
def heartbeats(peer):
    wire = opened(peer, tune=(100, 8192, 1))
    wire.read(5, heartbeats=True)
    wire.raw(frame(8, 0, b""))
    wire.call(1, "basic.qos", 0, 1, False)
    wire = opened(peer)
    wire.raw(frame(8, 0, b"payload"))
    wire.call(1, "basic.qos", 0, 1, False)
    wire = opened(peer)
    wire.raw(frame(8, 1, b""))
    wire.send(1, "basic.qos", 0, 1, False)
    wire.read()


@conversation
def silent_peer_is_cut(peer):
    wire = opened(peer, tune=(100, 8192, 1))
    wire.read(10)

@conversation
def broken_frames(peer):
    cases = {
        "unknown type": b"\x05\0\x01\0\0\0\0" + bytes([END]),
        "unknown type on channel 0": b"\x05\0\0\0\0\0\0" + bytes([END]),
        "wrong end": frame(1, 1, put_method("basic.qos", (0, 1, False)))[:-1] + b"\0",
        "wrong end on channel 0": frame(8, 0, b"")[:-1] + b"\0",
        "too large": struct.pack(">BHI", 3, 1, 131072 - 7) + bytes(131072),
        "too large, not all sent": struct.pack(">BHI", 3, 1, 0xFFFFFFFF),
        "method without numbers": frame(1, 1, b"\0"),
    }
    for name, data in cases.items():
        wire = opened(peer)
        wire.say(name)
        wire.raw(data)
        wire.read()
        wire.read(1)


@conversation
def broken_methods(peer):
    declare = put_method("queue.declare", (0, "q", *[False] * 5, {}))
    cases = {
        "unknown class": (1, struct.pack(">HH", 99, 10)),
        "unknown method": (1, struct.pack(">HH", 60, 99)),
        "unknown class on channel 0": (0, struct.pack(">HH", 99, 10)),
        "unknown method on channel 0": (0, struct.pack(">HH", 10, 99)),
        "truncated": (1, declare[:-5]),
        "trailing bytes": (1, declare + b"\0"),
        "a server's method": (1, put_method("queue.declare-ok", ("q", 0, 0))),
        "a server's basic method": (1, put_method("basic.qos-ok", ())),
        "a server's deliver": (1, put_method("basic.deliver", ("t", 1, False, "", ""))),
        "connection method on a channel": (1, put_method("connection.open", ("/", "", False))),
        "channel method on channel 0": (0, put_method("channel.open", ("",))),
        "basic method on channel 0": (0, put_method("basic.qos", (0, 1, False))),
        "connection close on a channel": (1, put_method("connection.close", (200, "", 0, 0))),
        "table with a bad type": (1, declare[:-4] + b"\0\0\0\x03\x01aZ"),
        "table longer than the method": (1, declare[:-4] + b"\0\0\0\x09\x01a"),
        "unasked close-ok of the connection": (0, put_method("connection.close-ok", ())),
    }
    for name, (channel, payload) in cases.items():
        wire = opened(peer)
        wire.say(name)
        wire.raw(frame(1, channel, payload))
        wire.read(1)


@conversation
def unexpected_content(peer):
    publish = put_method("basic.publish", (0, "", "q", False, False))
    header, body = content_header(3, {}), b"abc"
    cases = {
        "header without method": [(2, header)],
        "body without method": [(3, body)],
        "body instead of header": [(1, publish), (3, body)],
        "header instead of body": [(1, publish), (2, header), (2, header)],
        "method instead of header": [(1, publish), (1, put_method("basic.qos", (0, 1, False)))],
        "method instead of body": [(1, publish), (2, header), (1, publish)],
        "close instead of body": [
            (1, publish),
            (2, header),
            (1, put_method("channel.close", (200, "", 0, 0))),
        ],
        "header of another class": [(1, publish), (2, content_header(3, {}, class_id=50))],
        "header with weight": [(1, publish), (2, content_header(3, {}, weight=1)), (3, body)],
        "short header": [(1, publish), (2, header[:10])],
        "header with bytes behind": [(1, publish), (2, header + b"\0"), (3, body)],
        "undefined flag": [(1, publish), (2, header[:-2] + b"\0\x02"), (3, body)],
        "too much body": [(1, publish), (2, header), (3, b"abcdef")],
        "empty body frame": [(1, publish), (2, header), (3, b""), (3, body)],
        "body frame for no body": [(1, publish), (2, content_header(0, {})), (3, b"")],
    }
    for name, frames in cases.items():
        wire = opened(peer)
        wire.say(name)
        for kind, payload in frames:
            wire.raw(frame(kind, 1, payload))
        wire.read(0.5)
        if not wire.ended:
            wire.send(1, "basic.qos", 0, 1, False)
            wire.read(0.5)

@conversation
def channel_life(peer):
    wire = log_in(peer)
    wire.call(1, "channel.open", "")
    wire.call(1, "channel.flow", True)
    wire.call(1, "channel.close", 200, "bye", 0, 0)
    wire.call(1, "channel.open", "")
    wire.call(2047, "channel.open", "")
    wire.call(1, "channel.close-ok")
    wire.rest()
    wire = opened(peer)
    wire.call(1, "channel.open", "")
    wire = opened(peer)
    wire.call(1, "channel.flow", False)
    wire = opened(peer)
    wire.send(1, "channel.flow-ok", True)
    wire.rest()


@conversation
def channels_not_open(peer):
    cases = {
        "method": (3, put_method("basic.qos", (0, 1, False))),
        "publish": (3, put_method("basic.publish", (0, "", "q", False, False))),
        "close": (3, put_method("channel.close", (200, "", 0, 0))),
        "close-ok": (3, put_method("channel.close-ok", ())),
        "above the maximum": (101, put_method("channel.open", ("",))),
        "not open and above the maximum": (101, put_method("basic.qos", (0, 1, False))),
    }
    for name, (channel, payload) in cases.items():
        wire = log_in(peer, tune=(100, 8192, 0))
        wire.say(name)
        wire.raw(frame(1, channel, payload))
        wire.read(0.5)
    for kind in (2, 3):
        wire = log_in(peer)
        wire.say(f"frame of type {kind}")
        wire.raw(frame(kind, 3, content_header(3, {})))
        wire.read(0.5)


@conversation
def after_a_channel_error(peer):
    wire = opened(peer, channels=2)
    wire.call(1, "queue.declare", 0, "missing", True, *[False] * 4, {})
    wire.send(1, "basic.qos", 0, 1, False)
    wire.publish(1, "", "q", "ignored")
    wire.rest()
    wire.call(2, "basic.qos", 0, 1, False)
    wire.send(1, "channel.close", 200, "crossing", 0, 0)
    wire.read()
    wire.send(1, "channel.close-ok")
    wire.call(1, "channel.open", "")
    wire.call(1, "basic.qos", 0, 1, False)


@conversation
def after_a_connection_error(peer):
    wire = greet(peer)
    at = len(wire.said)
    wire.call(0, "connection.start-ok", FULL, "PLAIN", PLAIN, "en_US")
    wire.send(0, "connection.tune-ok", 100, 8192, 0)
    wire.call(0, "connection.open", "/", "", False)
    wire.call(1, "channel.open", "")
    del wire.said[at:]
    wire.answers = False
    wire.send(1, "channel.flow", False)
    wire.read()
    wire.send(1, "basic.qos", 0, 1, False)
    wire.send(0, "connection.close", 200, "crossing", 0, 0)
    wire.rest(1)


@conversation
def access_request(peer):
    wire = opened(peer)
    wire.call(1, "access.request", "/data", True, True, True, True, True)
