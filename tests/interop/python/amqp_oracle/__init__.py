"""Scenarios that RabbitMQ and PolyMQ play side by side, and the words they are written in.

A scenario takes a `Talk` with one broker and does things; every answer becomes a line. The two
brokers must say the same lines, texts of errors included, unless the scenario is marked:

    @scenario
    @differs("4.2: a returned message keeps its place")   # and then it must differ
    @awaited("priorities")                                # may differ until that feature is there
"""

import re
import secrets
import time

from amqp_conversations import opened
from amqp_wire import Wire

scenarios = {}

# Known to RabbitMQ from 3.13 on only; the oracle is older.
LATER = re.compile(r", 'x-last-death-\w+': '[^']*'")


def scenario(function):
    scenarios[function.__name__] = function
    return function


def differs(reason):
    def mark(function):
        function.differs = reason
        return function

    return mark


def awaited(feature):
    def mark(function):
        function.awaited = feature
        return function

    return mark


class Talk:
    """What one broker is told, on channel 1 of a connection, and what it answers."""

    def __init__(self, port):
        self.port, self.prefix, self.said, self.wires = port, f"r{secrets.token_hex(4)}-", [], []
        self.wire, self.known = opened(self), {}

    def connect(self):
        wire = Wire(self.port, self.said, self.prefix)
        wire.texts = True
        self.wires.append(wire)
        return wire

    def another(self):
        """A second connection to the same broker, whose lines stand in the same list."""
        other = Talk.__new__(Talk)
        other.__dict__.update(self.__dict__)
        other.wire = opened(other)
        return other

    def close(self):
        for wire in self.wires:
            wire.close()

    def leave(self):
        """Closes this connection in the clean way."""
        self.wire.call(0, "connection.close", 200, "bye", 0, 0)
        self.wire.close()

    def vanish(self):
        self.wire.close()

    def lines(self):
        """What was said, without times, and with tables in one order."""
        return [LATER.sub("", re.sub(r"('time': ?)\d+", r"\1*", line)) for line in self.said]

    def name(self, text):
        """Names of a scenario are its own, and shown without what makes them so."""
        return text if not text or text.startswith("amq.") else self.prefix + text

    def say(self, text):
        self.wire.say(text)

    def call(self, method, *arguments):
        """Says the answer, and opens the channel again when the answer closes it."""
        self.wire.send(1, method, *arguments)
        return self.answer()

    def answer(self):
        got = self.wire.read()
        if got == "channel.close":
            self.wire.send(1, "channel.close-ok")
            self.wire.quietly(1, "channel.open", "")
        elif got == "connection.close":
            self.wire = opened(self)
        return got

    def quietly(self, method, *arguments):
        at = len(self.said)
        if self.call(method, *arguments) == method + "-ok":
            del self.said[at:]

    def sync(self):
        """Waits until everything sent before has been handled; says what comes of it."""
        self.wire.send(1, "exchange.declare", 0, "amq.direct", "direct", True, *[False] * 4, {})
        while True:
            at = len(self.said)
            got = self.answer()
            if got == "exchange.declare-ok":
                del self.said[at:]
            if got in ("exchange.declare-ok", "channel.close", "connection.close", "end", None):
                return

    def codes(self):
        """From here on only the codes of errors are compared.

        RabbitMQ's texts about wrong values are terms of Erlang; ours name the value found and the
        value allowed (16).
        """
        self.wire.texts = False

    # Topology; what goes well is not said.

    def exchange(self, name, kind="direct", arguments=None, passive=False, durable=False,
                 auto=False, internal=False):  # fmt: skip
        self.quietly("exchange.declare", 0, self.name(name), kind, passive, durable, auto,
                     internal, False, self.named(arguments))  # fmt: skip

    def delete_exchange(self, name, if_unused=False):
        self.quietly("exchange.delete", 0, self.name(name), if_unused, False)

    def queue(self, name, arguments=None, passive=False, durable=False, exclusive=False,
              auto=False):  # fmt: skip
        self.quietly("queue.declare", 0, self.name(name), passive, durable, exclusive, auto, False,
                     self.named(arguments))  # fmt: skip

    def delete(self, name, if_unused=False, if_empty=False):
        self.call("queue.delete", 0, self.name(name), if_unused, if_empty, False)

    def bind(self, queue, exchange, key="", **arguments):
        self.quietly("queue.bind", 0, self.name(queue), self.name(exchange), key, False, arguments)

    def unbind(self, queue, exchange, key="", **arguments):
        self.quietly("queue.unbind", 0, self.name(queue), self.name(exchange), key, arguments)

    def bind_exchange(self, destination, source, key=""):
        self.quietly("exchange.bind", 0, self.name(destination), self.name(source), key, False, {})

    def unbind_exchange(self, destination, source, key=""):
        self.quietly("exchange.unbind", 0, self.name(destination), self.name(source), key, False,
                     {})  # fmt: skip

    def named(self, arguments):
        """Arguments that name an exchange name one of this scenario."""
        arguments = dict(arguments or {})
        for key in ("alternate-exchange", "x-dead-letter-exchange"):
            if isinstance(arguments.get(key), str):
                arguments[key] = self.name(arguments[key])
        if (key := arguments.get("x-dead-letter-routing-key")) and isinstance(key, str):
            arguments["x-dead-letter-routing-key"] = self.key(
                arguments.get("x-dead-letter-exchange"), key)  # fmt: skip
        return arguments

    def key(self, exchange, key):
        """On the default exchange, keys are names of queues."""
        return key if exchange else self.name(key)

    # Messages.

    def publish(self, exchange, key, body="", mandatory=False, **properties):
        self.wire.publish(1, self.name(exchange), self.key(exchange, key), body,
                          mandatory=mandatory, **properties)  # fmt: skip

    def send(self, queue, *bodies, **properties):
        for body in bodies:
            self.publish("", queue, body, **properties)

    def get(self, queue, no_ack=True):
        self.call("basic.get", 0, self.name(queue), no_ack)
        return self.wire.last

    def drain(self, *queues):
        """Everything in the queues, as get says it."""
        for queue in queues:
            self.say(f"drain {queue}")
            while self.call("basic.get", 0, self.name(queue), True) == "basic.get-ok":
                pass

    def holds(self, queue, count, consumers=0, seconds=30.0):
        """Waits until a queue has so many ready messages, and says how many it has."""
        deadline = time.monotonic() + seconds
        at = len(self.said)
        while True:
            got = self.call("queue.declare", 0, self.name(queue), True, False, False, False, False,
                            {})  # fmt: skip
            if got != "queue.declare-ok":
                return
            found = self.wire.last
            if found[1:] == [count, consumers] or time.monotonic() > deadline:
                del self.said[at:]
                return self.say(f"{queue} holds {found[1]}, {found[2]} consumers")
            del self.said[at:]
            time.sleep(0.01)

    def gone(self, queue, seconds=30.0):
        """Waits until a queue is not there any more.

        To ask for a queue is to use it, which puts its expiry off, so the pauses grow.
        """
        deadline = time.monotonic() + seconds
        at, pause = len(self.said), 0.01
        while time.monotonic() < deadline:
            got = self.call("queue.declare", 0, self.name(queue), True, False, False, False, False,
                            {})  # fmt: skip
            del self.said[at:]
            if got == "channel.close":
                return self.say(f"{queue} is gone")
            time.sleep(pause)
            pause *= 2
        self.say(f"{queue} is still there")

    # Consuming.

    def consume(self, queue, tag, no_ack=False, exclusive=False, **arguments):
        table = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
        self.call("basic.consume", 0, self.name(queue), tag, False, no_ack, exclusive, False, table)

    def cancel(self, tag):
        self.call("basic.cancel", tag, False)

    def prefetch(self, count, whole_channel=False):
        self.quietly("basic.qos", 0, count, whole_channel)

    def arrive(self, count):
        """So many methods that the broker sends by itself."""
        for _ in range(count):
            self.answer()

    def nothing(self):
        """Nothing comes any more."""
        self.wire.rest()

    def ack(self, tag, multiple=False):
        self.wire.send(1, "basic.ack", tag, multiple)

    def nack(self, tag, multiple=False, requeue=True):
        self.wire.send(1, "basic.nack", tag, multiple, requeue)

    def reject(self, tag, requeue=True):
        self.wire.send(1, "basic.reject", tag, requeue)

    def confirm(self):
        self.quietly("confirm.select", False)

    def outcomes(self, count):
        """The outcomes of the first `count` publishes, however the broker puts them together."""
        while len(self.known) < count:
            at = len(self.said)
            got = self.wire.read()
            if got in (None, "end", "channel.close", "connection.close"):
                return
            if got not in ("basic.ack", "basic.nack"):
                continue
            del self.said[at:]
            tag, multiple = self.wire.last[:2]
            for publish in range(1 if multiple else tag, tag + 1):
                if publish not in self.known:
                    self.known[publish] = got
                    self.say(f"publish {publish}: {got}")
