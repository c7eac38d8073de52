"""AMQP 0-9-1 frame by frame: nothing is checked when sent, everything is shown as it came."""

import re
import socket
import struct
import time

END = 0xCE
HEADER = b"AMQP\x00\x00\x09\x01"

# Arguments by letter: o octet, w short, l long, q longlong, s short string, S long string,
# t table, b bit.
METHODS = {
    "connection.start": (10, 10, "ootSS"),
    "connection.start-ok": (10, 11, "tsSs"),
    "connection.tune": (10, 30, "wlw"),
    "connection.tune-ok": (10, 31, "wlw"),
    "connection.open": (10, 40, "ssb"),
    "connection.open-ok": (10, 41, "s"),
    "connection.close": (10, 50, "wsww"),
    "connection.close-ok": (10, 51, ""),
    "connection.blocked": (10, 60, "s"),
    "connection.unblocked": (10, 61, ""),
    "connection.update-secret": (10, 70, "Ss"),
    "connection.update-secret-ok": (10, 71, ""),
    "channel.open": (20, 10, "s"),
    "channel.open-ok": (20, 11, "S"),
    "channel.flow": (20, 20, "b"),
    "channel.flow-ok": (20, 21, "b"),
    "channel.close": (20, 40, "wsww"),
    "channel.close-ok": (20, 41, ""),
    "access.request": (30, 10, "sbbbbb"),
    "access.request-ok": (30, 11, "w"),
    "exchange.declare": (40, 10, "wssbbbbbt"),
    "exchange.declare-ok": (40, 11, ""),
    "exchange.delete": (40, 20, "wsbb"),
    "exchange.delete-ok": (40, 21, ""),
    "exchange.bind": (40, 30, "wsssbt"),
    "exchange.bind-ok": (40, 31, ""),
    "exchange.unbind": (40, 40, "wsssbt"),
    "exchange.unbind-ok": (40, 51, ""),
    "queue.declare": (50, 10, "wsbbbbbt"),
    "queue.declare-ok": (50, 11, "sll"),
    "queue.bind": (50, 20, "wsssbt"),
    "queue.bind-ok": (50, 21, ""),
    "queue.purge": (50, 30, "wsb"),
    "queue.purge-ok": (50, 31, "l"),
    "queue.delete": (50, 40, "wsbbb"),
    "queue.delete-ok": (50, 41, "l"),
    "queue.unbind": (50, 50, "wssst"),
    "queue.unbind-ok": (50, 51, ""),
    "basic.qos": (60, 10, "lwb"),
    "basic.qos-ok": (60, 11, ""),
    "basic.consume": (60, 20, "wssbbbbt"),
    "basic.consume-ok": (60, 21, "s"),
    "basic.cancel": (60, 30, "sb"),
    "basic.cancel-ok": (60, 31, "s"),
    "basic.publish": (60, 40, "wssbb"),
    "basic.return": (60, 50, "wsss"),
    "basic.deliver": (60, 60, "sqbss"),
    "basic.get": (60, 70, "wsb"),
    "basic.get-ok": (60, 71, "qbssl"),
    "basic.get-empty": (60, 72, "s"),
    "basic.ack": (60, 80, "qb"),
    "basic.reject": (60, 90, "qb"),
    "basic.recover-async": (60, 100, "b"),
    "basic.recover": (60, 110, "b"),
    "basic.recover-ok": (60, 111, ""),
    "basic.nack": (60, 120, "qbb"),
    "confirm.select": (85, 10, "b"),
    "confirm.select-ok": (85, 11, ""),
    "tx.select": (90, 10, ""),
    "tx.select-ok": (90, 11, ""),
    "tx.commit": (90, 20, ""),
    "tx.commit-ok": (90, 21, ""),
    "tx.rollback": (90, 30, ""),
    "tx.rollback-ok": (90, 31, ""),
}
BY_ID = {(cls, number): name for name, (cls, number, _) in METHODS.items()}

PROPERTIES = [
    ("content_type", 15, "s"),
    ("content_encoding", 14, "s"),
    ("headers", 13, "t"),
    ("delivery_mode", 12, "o"),
    ("priority", 11, "o"),
    ("correlation_id", 10, "s"),
    ("reply_to", 9, "s"),
    ("expiration", 8, "s"),
    ("message_id", 7, "s"),
    ("timestamp", 6, "q"),
    ("type", 5, "s"),
    ("user_id", 4, "s"),
    ("app_id", 3, "s"),
    ("cluster_id", 2, "s"),
]

FIXED = {"o": ">B", "w": ">H", "l": ">I", "q": ">Q"}
FIXED_VALUES = {
    "b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "T": ">Q",
    "f": ">f", "d": ">d", "t": ">?",
}  # fmt: skip


class Typed:
    """A table value with the letter of its type, where Python's own type does not say enough."""

    def __init__(self, letter, payload):
        self.letter, self.payload = letter, payload


def octets(text):
    return text if isinstance(text, bytes) else text.encode()


def put_value(value):
    if isinstance(value, Typed):
        if value.letter in FIXED_VALUES:
            return value.letter.encode() + struct.pack(FIXED_VALUES[value.letter], value.payload)
        return value.letter.encode() + value.payload
    if isinstance(value, bool):
        return b"t" + bytes([value])
    if value is None:
        return b"V"
    if isinstance(value, int):
        return b"l" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if isinstance(value, (str, bytes)):
        return b"S" + put_field("S", value)
    if isinstance(value, dict):
        return b"F" + put_field("t", value)
    inner = b"".join(put_value(item) for item in value)
    return b"A" + struct.pack(">I", len(inner)) + inner


def put_field(letter, value):
    if letter in FIXED:
        return struct.pack(FIXED[letter], value)
    if letter == "s":
        return bytes([len(octets(value))]) + octets(value)
    if letter == "S":
        return struct.pack(">I", len(octets(value))) + octets(value)
    inner = b"".join(put_field("s", name) + put_value(item) for name, item in value.items())
    return struct.pack(">I", len(inner)) + inner


def put_method(name, arguments):
    class_id, number, letters = METHODS[name]
    payload, bits = struct.pack(">HH", class_id, number), []

    def flush():
        packed = sum(bool(bit) << at for at, bit in enumerate(bits))
        found = bytes([packed]) if bits else b""
        bits.clear()
        return found

    for letter, value in zip(letters, arguments, strict=True):
        if letter == "b":
            bits.append(value)
        else:
            payload += flush() + put_field(letter, value)
    return payload + flush()


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([END])


def content_header(size, properties, class_id=60, weight=0):
    flags, listed = 0, b""
    for name, bit, letter in PROPERTIES:
        if name in properties:
            flags |= 1 << bit
            listed += put_field(letter, properties[name])
    return struct.pack(">HHQH", class_id, weight, size, flags) + listed


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def fixed(self, shape):
        return struct.unpack(shape, self.take(struct.calcsize(shape)))[0]

    def field(self, letter):
        if letter in FIXED:
            return self.fixed(FIXED[letter])
        if letter == "s":
            return self.take(self.fixed(">B")).decode("utf-8", "backslashreplace")
        if letter == "S":
            return self.take(self.fixed(">I")).decode("utf-8", "backslashreplace")
        inner, table = Reader(self.take(self.fixed(">I"))), {}
        while inner.at < len(inner.data):
            name = inner.field("s")
            table[name] = inner.value()
        return table

    def value(self):
        letter = self.take(1).decode()
        if letter in FIXED_VALUES:
            return self.fixed(FIXED_VALUES[letter])
        if letter == "V":
            return None
        if letter == "D":
            return (self.fixed(">B"), self.fixed(">I"))
        if letter in "Sx":
            return self.field("S")
        if letter == "F":
            return self.field("t")
        inner, items = Reader(self.take(self.fixed(">I"))), []
        while inner.at < len(inner.data):
            items.append(inner.value())
        return items

    def arguments(self, letters):
        found, bit = [], 8
        for letter in letters:
            if letter != "b":
                bit = 8
                found.append(self.field(letter))
                continue
            if bit == 8:
                byte, bit = self.fixed(">B"), 0
            found.append(bool(byte >> bit & 1))
            bit += 1
        return found


def shown(text, run):
    """Text without what differs from run to run."""
    text = text.replace(run, "")
    text = re.sub(r"amq\.ctag-[^\s'\"]+", "amq.ctag-*", text)
    return re.sub(r"amq\.(gen|rabbitmq\.reply-to\.)-?[^\s'\"]+", r"amq.\1*", text)


def in_order(value):
    """The value with all tables in the order of their names."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(item) for item in value] if isinstance(value, list) else value


class Wire:
    """One connection. What the broker sends becomes lines of text in `said`."""

    def __init__(self, port, said, run):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.said, self.run, self.buffer, self.ended = said, run, b"", False
        self.last, self.properties, self.answers = [], {}, True
        # Whole texts of errors, and not only their first word; tables within headers in one order.
        self.texts = False

    def close(self):
        self.socket.close()

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def send(self, channel, method, *arguments):
        self.raw(frame(1, channel, put_method(method, arguments)))

    def content(self, channel, body=b"", parts=None, **properties):
        sent = frame(2, channel, content_header(len(body), properties))
        for part in parts if parts is not None else ([body] if body else []):
            sent += frame(3, channel, part)
        self.raw(sent)

    def publish(self, channel, exchange, key, body=b"", mandatory=False, **properties):
        """Publishes without waiting for anything."""
        self.send(channel, "basic.publish", 0, exchange, key, mandatory, False)
        self.content(channel, octets(body), **properties)

    def next_frame(self, seconds):
        """A frame, or None after the time, or at the end."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if len(self.buffer) >= 8 and self.buffer[:4] == b"AMQP":
                found, self.buffer = self.buffer[:8], self.buffer[8:]
                return (0, 0, found)
            if len(self.buffer) >= 7:
                kind, channel, size = struct.unpack(">BHI", self.buffer[:7])
                if len(self.buffer) >= size + 8:
                    payload = self.buffer[7 : 7 + size]
                    self.buffer = self.buffer[size + 8 :]
                    return (kind, channel, payload)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            self.ended = not data
            self.buffer += data
        return None

    def say(self, line):
        self.said.append(shown(line, self.run))

    def read(self, seconds=5.0, silent="nothing", heartbeats=False):
        """Waits for one method, with its content, and says it. Returns its name."""
        while True:
            found = self.next_frame(seconds)
            if found is None:
                if self.ended:
                    self.say("end of connection")
                    return "end"
                if silent:
                    self.say(silent)
                return None
            kind, channel, payload = found
            if kind == 8 and not heartbeats:
                continue
            if kind == 8:
                self.say("heartbeat")
                return "heartbeat"
            if kind == 0:
                self.say(f"header {payload[4:].hex()}")
                return "header"
            break
        if kind != 1:
            self.say(f"{channel} frame {kind} of {len(payload)}")
            return "frame"
        class_id, number = struct.unpack(">HH", payload[:4])
        name = BY_ID.get((class_id, number), f"{class_id}.{number}")
        self.last = Reader(payload[4:]).arguments(METHODS[name][2])
        self.say(f"{channel} {name} {self.render(name)}".rstrip())
        if name in ("basic.deliver", "basic.get-ok", "basic.return"):
            self.read_content(seconds)
        if name == "connection.close" and self.answers:
            self.send(0, "connection.close-ok")
        return name

    def render(self, name):
        arguments = self.last
        if name.endswith(".close"):
            word = arguments[1] if self.texts else arguments[1].split(" ")[0]
            return f"{arguments[0]} {word} {arguments[2]}.{arguments[3]}"
        if name == "connection.start":
            capabilities = " ".join(sorted(arguments[2]["capabilities"]))
            return f"{arguments[0]} {arguments[1]} {capabilities} / {sorted(arguments[3].split())}"
        if name == "channel.open-ok":
            return ""
        return " ".join(str(argument) for argument in arguments)

    def read_content(self, seconds):
        kind, _, payload = self.next_frame(seconds) or (0, 0, b"")
        reader = Reader(payload)
        class_id, weight, size, flags = (reader.fixed(s) for s in (">H", ">H", ">Q", ">H"))
        properties = {
            name: reader.field(letter) for name, bit, letter in PROPERTIES if flags >> bit & 1
        }
        body = b""
        while len(body) < size:
            body += (self.next_frame(seconds) or (3, 0, b"?" * size))[2]
        # RabbitMQ counts deliveries from its version 4 on; PolyMQ always does.
        counted = {"x-acquired-count", "x-delivery-count"}
        if headers := properties.get("headers"):
            shown_headers = {name: headers[name] for name in sorted(headers) if name not in counted}
            if self.texts:
                shown_headers = in_order(shown_headers)
            properties["headers"] = shown_headers
            if not shown_headers:
                del properties["headers"]
        told = "".join(f" {name}={value}" for name, value in sorted(properties.items()))
        text = body.decode(errors="replace") if len(body) < 80 else f"{len(body)} bytes"
        assert (kind, class_id, weight) == (2, 60, 0)
        self.properties = properties
        self.say(f"    '{text}'{told}")

    def reads(self, count):
        for _ in range(count):
            self.read()

    def rest(self, seconds=0.25):
        """Says everything that comes until it is quiet."""
        while self.read(seconds, silent=None) not in (None, "end"):
            pass

    def call(self, channel, method, *arguments):
        self.send(channel, method, *arguments)
        return self.read()

    def quietly(self, channel, method, *arguments):
        """A call whose good answer is not worth a line."""
        at = len(self.said)
        name = self.call(channel, method, *arguments)
        if name == method + "-ok":
            del self.said[at:]
        return name
