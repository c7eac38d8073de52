"""Exchanges, queues and bindings."""

from amqp_conversations import conversation, declared, each, exchange, opened, queue
from amqp_wire import Typed


@conversation
def exchange_declarations(peer):
    name = peer.name("e")
    wire = opened(peer)
    exchange(wire, name, "direct")
    wire.read()
    each(peer, {
        "same again": lambda w, c: exchange(w, name, "direct", channel=c),
        "other type": lambda w, c: exchange(w, name, "topic", channel=c),
        "other durability": lambda w, c: exchange(w, name, durable=True, channel=c),
        "other auto-delete": lambda w, c: exchange(w, name, auto=True, channel=c),
        "other internal": lambda w, c: exchange(w, name, internal=True, channel=c),
        "other arguments": lambda w, c: exchange(w, name, channel=c, x_some=1),
        "other alternate": lambda w, c: exchange(w, name, channel=c, alternate_exchange="x"),
        "passive": lambda w, c: exchange(w, name, "fanout", passive=True, channel=c),
        "passive, no type": lambda w, c: exchange(w, name, "", passive=True, channel=c),
        "passive missing": lambda w, c: exchange(w, name + "?", passive=True, channel=c),
        "unknown type": lambda w, c: exchange(w, name + "2", "fancy", channel=c),
        "no type": lambda w, c: exchange(w, name + "2", "", channel=c),
        "reserved": lambda w, c: exchange(w, "amq.mine", channel=c),
        "built in": lambda w, c: exchange(w, "amq.direct", durable=True, channel=c),
        "built in, otherwise": lambda w, c: exchange(w, "amq.direct", channel=c),
        "built in, passive": lambda w, c: exchange(w, "amq.topic", passive=True, channel=c),
        "default": lambda w, c: exchange(w, "", "direct", durable=True, channel=c),
        "default, passive": lambda w, c: exchange(w, "", passive=True, channel=c),
        "bad alternate": lambda w, c: exchange(w, name + "3", channel=c, alternate_exchange=1),
        "reserved, passive": lambda w, c: exchange(w, "amq.none", passive=True, channel=c),
    })  # fmt: skip


@conversation
def exchange_without_waiting(peer):
    name = peer.name("e")
    wire = opened(peer)
    exchange(wire, name, nowait=True)
    exchange(wire, name, passive=True)
    wire.read()
    wire.send(1, "exchange.bind", 0, name, "amq.fanout", "k", True, {})
    wire.send(1, "exchange.unbind", 0, name, "amq.fanout", "k", True, {})
    wire.send(1, "exchange.delete", 0, name, False, True)
    exchange(wire, name, passive=True)
    wire.read()
    wire = opened(peer)
    exchange(wire, "amq.direct", "fanout", nowait=True)
    wire.read()


@conversation
def exchange_deletion(peer):
    name, queue = peer.name("e"), peer.name("q")
    wire = opened(peer)
    exchange(wire, name)
    wire.read()
    wire.call(1, "queue.declare", 0, queue, False, False, True, False, False, {})
    wire.call(1, "queue.bind", 0, queue, name, "k", False, {})
    each(peer, {
        "in use": lambda w, c: w.send(c, "exchange.delete", 0, name, True, False),
        "missing": lambda w, c: w.send(c, "exchange.delete", 0, name + "?", False, False),
        "missing if unused": lambda w, c: w.send(c, "exchange.delete", 0, name + "?", True, False),
        "default": lambda w, c: w.send(c, "exchange.delete", 0, "", False, False),
        "built in": lambda w, c: w.send(c, "exchange.delete", 0, "amq.topic", False, False),
        "reserved missing": lambda w, c: w.send(c, "exchange.delete", 0, "amq.x", False, False),
    })  # fmt: skip
    wire.call(1, "exchange.delete", 0, name, False, False)
    wire.call(1, "exchange.delete", 0, name, True, False)


@conversation
def exchange_bindings(peer):
    one, two, queue = peer.name("one"), peer.name("two"), peer.name("q")
    wire = opened(peer)
    for name in (one, two):
        exchange(wire, name, "topic", auto=name == two)
        wire.read()
    wire.quietly(1, "queue.declare", 0, queue, False, False, True, False, False, {})
    wire.call(1, "exchange.bind", 0, two, one, "a.#", False, {})
    wire.call(1, "exchange.bind", 0, two, one, "a.#", False, {})
    wire.call(1, "exchange.bind", 0, one, two, "#", False, {})
    wire.call(1, "queue.bind", 0, queue, two, "*.b", False, {})
    wire.publish(1, one, "a.b", "through both")
    wire.publish(1, one, "b.b", "not", mandatory=True)
    wire.read()
    wire.call(1, "basic.get", 0, queue, True)
    wire.call(1, "exchange.delete", 0, one, True, False)


@conversation
def exchange_binding_errors(peer):
    bind, unbind = "exchange.bind", "exchange.unbind"
    each(peer, {
        "source missing": lambda w, c: w.send(c, bind, 0, "amq.topic", "none", "", False, {}),
        "destination missing": lambda w, c: w.send(c, bind, 0, "none", "amq.topic", "", False, {}),
        "default source": lambda w, c: w.send(c, bind, 0, "amq.topic", "", "", False, {}),
        "default destination": lambda w, c: w.send(c, bind, 0, "", "amq.topic", "", False, {}),
        "unbind missing source": lambda w, c: w.send(
            c, unbind, 0, "amq.topic", "none", "", False, {}),
        "unbind missing destination": lambda w, c: w.send(
            c, unbind, 0, "none", "amq.topic", "", False, {}),
        "unbind missing binding": lambda w, c: w.send(
            c, unbind, 0, "amq.fanout", "amq.topic", "nokey", False, {}),
        "unbind default": lambda w, c: w.send(c, unbind, 0, "amq.topic", "", "", False, {}),
    })  # fmt: skip


@conversation
def internal_and_auto_delete_exchanges(peer):
    inside, auto, queue = peer.name("inside"), peer.name("auto"), peer.name("q")
    wire = opened(peer, channels=2)
    exchange(wire, inside, "fanout", internal=True)
    exchange(wire, auto, "fanout", auto=True)
    wire.reads(2)
    wire.quietly(1, "queue.declare", 0, queue, False, False, True, False, False, {})
    wire.call(1, "exchange.bind", 0, inside, auto, "", False, {})
    wire.call(1, "queue.bind", 0, queue, inside, "", False, {})
    wire.publish(1, auto, "k", "through")
    wire.call(1, "basic.get", 0, queue, True)
    wire.publish(2, inside, "k", "refused")
    wire.read()
    wire.call(1, "exchange.unbind", 0, inside, auto, "", False, {})
    exchange(wire, auto, passive=True)
    wire.read()


@conversation
def alternate_exchanges(peer):
    main, other, queue = peer.name("main"), peer.name("other"), peer.name("q")
    wire = opened(peer)
    exchange(wire, other, "fanout")
    exchange(wire, main, "direct", alternate_exchange=other)
    wire.reads(2)
    wire.quietly(1, "queue.declare", 0, queue, False, False, True, False, False, {})
    wire.publish(1, main, "k", "nobody", mandatory=True)
    wire.read()
    wire.call(1, "queue.bind", 0, queue, other, "", False, {})
    wire.publish(1, main, "k", "fell through", mandatory=True)
    wire.call(1, "basic.get", 0, queue, True)
    wire.call(1, "exchange.delete", 0, other, False, False)
    wire.publish(1, main, "k", "alternate is gone", mandatory=True)
    wire.read()
    wire.call(1, "exchange.delete", 0, main, True, False)


@conversation
def headers_exchange(peer):
    wire = opened(peer)
    bindings = {
        "all": {"x-match": "all", "a": 1, "b": "two"},
        "default": {"a": 1, "b": "two"},
        "any": {"x-match": "any", "a": 1, "b": "two"},
        "with-x": {"x-match": "all-with-x", "a": 1, "x-c": True},
        "any-with-x": {"x-match": "any-with-x", "x-c": True},
        "present": {"x-match": "all", "a": None},
        "none": {},
        "any-none": {"x-match": "any"},
        "x-ignored": {"x-match": "all", "a": 1, "x-c": False},
    }
    messages = [
        {"a": 1, "b": "two"},
        {"a": 1},
        {"a": Typed("I", 1), "b": "two"},
        {"a": Typed("b", 1), "b": "two", "x-c": True},
        {"a": "1", "b": "two"},
        {"a": 1.0, "b": "two"},
        {"x-c": True},
        {},
    ]
    for name, arguments in bindings.items():
        queue = peer.name(name)
        wire.quietly(1, "queue.declare", 0, queue, False, False, True, False, False, {})
        wire.quietly(1, "queue.bind", 0, queue, "amq.headers", "", False, arguments)
    for at, headers in enumerate(messages):
        wire.publish(1, "amq.headers", "", f"message {at}", headers=headers)
    wire.publish(1, "amq.headers", "", "message without headers")
    for name in bindings:
        wire.say(name)
        while wire.call(1, "basic.get", 0, peer.name(name), True) == "basic.get-ok":
            pass
    each(peer, {
        "bad x-match": lambda w, c: w.send(
            c, "exchange.bind", 0, "amq.topic", "amq.match", "", False, {"x-match": "most"}),
        "x-match of a number": lambda w, c: w.send(
            c, "exchange.bind", 0, "amq.topic", "amq.match", "", False, {"x-match": 1}),
    })  # fmt: skip

@conversation
def queue_declarations(peer):
    name = peer.name("q")
    wire = opened(peer)
    queue(wire, name, message_ttl=1000)
    wire.read()
    each(peer, {
        "same": lambda w, c: queue(w, name, channel=c, message_ttl=1000),
        "same, other integer": lambda w, c: queue(
            w, name, channel=c, message_ttl=Typed("I", 1000)),
        "other ttl": lambda w, c: queue(w, name, channel=c, message_ttl=1001),
        "no ttl": lambda w, c: queue(w, name, channel=c),
        "with its type": lambda w, c: queue(
            w, name, channel=c, message_ttl=1000, queue_type="classic"),
        "unknown argument more": lambda w, c: queue(w, name, channel=c, message_ttl=1000, some=1),
        "other durability": lambda w, c: queue(
            w, name, channel=c, durable=True, message_ttl=1000),
        "other exclusivity": lambda w, c: queue(
            w, name, channel=c, exclusive=True, message_ttl=1000),
        "other auto-delete": lambda w, c: queue(w, name, channel=c, auto=True, message_ttl=1000),
        "passive": lambda w, c: queue(w, name, passive=True, channel=c),
        "passive, otherwise": lambda w, c: queue(
            w, name, passive=True, durable=True, exclusive=True, channel=c),
        "passive missing": lambda w, c: queue(w, name + "?", passive=True, channel=c),
        "passive, no name": lambda w, c: queue(w, "", passive=True, channel=c),
        "reserved": lambda w, c: queue(w, "amq.mine", channel=c),
        "reserved, passive": lambda w, c: queue(w, "amq.none", passive=True, channel=c),
        "negative ttl": lambda w, c: queue(w, name + "2", channel=c, message_ttl=-1),
        "ttl of text": lambda w, c: queue(w, name + "2", channel=c, message_ttl="soon"),
        "ttl of a fraction": lambda w, c: queue(w, name + "2", channel=c, message_ttl=1.5),
        "expires at once": lambda w, c: queue(w, name + "2", channel=c, expires=0),
        "bad overflow": lambda w, c: queue(w, name + "2", channel=c, overflow="spill"),
        "overflow of a number": lambda w, c: queue(w, name + "2", channel=c, overflow=1),
        "negative length": lambda w, c: queue(w, name + "2", channel=c, max_length=-1),
        "key without exchange": lambda w, c: queue(
            w, name + "2", channel=c, dead_letter_routing_key="k"),
        "dead letters to a number": lambda w, c: queue(
            w, name + "2", channel=c, dead_letter_exchange=1),
        "unknown queue type": lambda w, c: queue(w, name + "2", channel=c, queue_type="fancy"),
        "queue type of a number": lambda w, c: queue(w, name + "2", channel=c, queue_type=1),
    })  # fmt: skip
    wire.call(1, "queue.delete", 0, name, False, False, False)


@conversation
def queue_without_waiting(peer):
    name = peer.name("q")
    wire = opened(peer)
    queue(wire, name, nowait=True)
    queue(wire, name, passive=True)
    wire.read()
    wire.send(1, "queue.bind", 0, name, "amq.direct", "k", True, {})
    wire.publish(1, "amq.direct", "k" + peer.run, "no")
    wire.publish(1, "", name, "yes")
    wire.send(1, "queue.purge", 0, name, True)
    queue(wire, name, passive=True)
    wire.read()
    wire.send(1, "queue.delete", 0, name, False, False, True)
    queue(wire, name, passive=True)
    wire.read()
    wire = opened(peer)
    queue(wire, "amq.no", nowait=True)
    wire.read()
    wire = opened(peer)
    wire.send(1, "basic.consume", 0, name, "", False, False, False, True, {})
    wire.read()


@conversation
def server_named_queues(peer):
    wire = opened(peer)
    queue(wire, "", exclusive=True)
    wire.read()
    generated = wire.last[0]
    wire.call(1, "queue.bind", 0, "", "amq.direct", "", False, {})
    wire.publish(1, "", generated, "to the last")
    wire.publish(1, "amq.direct", generated, "by its own name")
    wire.call(1, "basic.get", 0, "", True)
    wire.call(1, "basic.get", 0, "", True)
    queue(wire, generated, exclusive=True)
    wire.read()
    wire.call(1, "queue.purge", 0, "", False)
    wire.call(1, "basic.consume", 0, "", "", False, False, False, False, {})
    wire.call(1, "queue.delete", 0, "", False, False, False)
    wire.rest()
    each(peer, {
        "get": lambda w, c: w.send(c, "basic.get", 0, "", True),
        "consume": lambda w, c: w.send(c, "basic.consume", 0, "", "", *[False] * 4, {}),
        "bind": lambda w, c: w.send(c, "queue.bind", 0, "", "amq.direct", "k", False, {}),
        "purge": lambda w, c: w.send(c, "queue.purge", 0, "", False),
        "delete": lambda w, c: w.send(c, "queue.delete", 0, "", False, False, False),
        "unbind": lambda w, c: w.send(c, "queue.unbind", 0, "", "amq.direct", "k", {}),
        "generated by the client": lambda w, c: queue(w, "amq.gen-client", channel=c),
    })  # fmt: skip


@conversation
def exclusive_queues(peer):
    name = peer.name("q")
    wire = opened(peer)
    queue(wire, name, exclusive=True)
    queue(wire, name, exclusive=True)
    queue(wire, name)
    wire.reads(3)
    each(peer, {
        "declare": lambda w, c: queue(w, name, channel=c),
        "declare exclusive": lambda w, c: queue(w, name, exclusive=True, channel=c),
        "passive": lambda w, c: queue(w, name, passive=True, channel=c),
        "bind": lambda w, c: w.send(c, "queue.bind", 0, name, "amq.direct", "k", False, {}),
        "unbind": lambda w, c: w.send(c, "queue.unbind", 0, name, "amq.direct", "k", {}),
        "get": lambda w, c: w.send(c, "basic.get", 0, name, True),
        "consume": lambda w, c: w.send(c, "basic.consume", 0, name, "", *[False] * 4, {}),
        "purge": lambda w, c: w.send(c, "queue.purge", 0, name, False),
        "delete": lambda w, c: w.send(c, "queue.delete", 0, name, False, False, False),
    })  # fmt: skip
    wire.call(0, "connection.close", 200, "bye", 0, 0)
    wire = opened(peer)
    queue(wire, name, exclusive=True)
    wire.read()


@conversation
def queue_deletion(peer):
    name = peer.name("q")
    wire = opened(peer, channels=3)
    queue(wire, name)
    wire.read()
    wire.publish(1, "", name, "one")
    wire.publish(1, "", name, "two")
    wire.rest()
    wire.call(2, "queue.delete", 0, name, False, True, False)
    wire.quietly(1, "basic.consume", 0, name, "c", False, False, False, False, {})
    wire.rest()
    wire.call(3, "queue.delete", 0, name, True, False, False)
    wire.call(1, "queue.purge", 0, name, False)
    queue(wire, name, passive=True)
    wire.read()
    wire.call(1, "basic.cancel", "c", False)
    wire.call(1, "queue.delete", 0, name, True, True, False)
    wire.call(1, "queue.delete", 0, name, False, False, False)
    wire.call(1, "queue.delete", 0, name, True, True, False)
    wire.call(1, "basic.ack", 1, False)


@conversation
def queue_binding_errors(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"), exclusive=False)
    bind, unbind = "queue.bind", "queue.unbind"
    each(peer, {
        "no queue": lambda w, c: w.send(c, bind, 0, "none", "amq.direct", "k", False, {}),
        "no exchange": lambda w, c: w.send(c, bind, 0, name, "none", "k", False, {}),
        "neither": lambda w, c: w.send(c, bind, 0, "none", "none", "k", False, {}),
        "default exchange": lambda w, c: w.send(c, bind, 0, name, "", name, False, {}),
        "unbind no queue": lambda w, c: w.send(c, unbind, 0, "none", "amq.direct", "k", {}),
        "unbind no exchange": lambda w, c: w.send(c, unbind, 0, name, "none", "k", {}),
        "unbind no binding": lambda w, c: w.send(c, unbind, 0, name, "amq.direct", "k", {}),
        "unbind default": lambda w, c: w.send(c, unbind, 0, name, "", name, {}),
        "purge missing": lambda w, c: w.send(c, "queue.purge", 0, "none", False),
        "delete missing": lambda w, c: w.send(c, "queue.delete", 0, "none", *[False] * 3),
        "get missing": lambda w, c: w.send(c, "basic.get", 0, "none", False),
        "consume missing": lambda w, c: w.send(
            c, "basic.consume", 0, "none", "", *[False] * 4, {}),
    })  # fmt: skip
    wire.call(1, "queue.delete", 0, name, False, False, False)


@conversation
def auto_delete_queues(peer):
    name = peer.name("q")
    wire = opened(peer, channels=2)
    queue(wire, name, auto=True)
    wire.read()
    wire.call(1, "basic.consume", 0, name, "a", False, False, False, False, {})
    wire.call(2, "basic.consume", 0, name, "b", False, False, False, False, {})
    wire.call(1, "basic.cancel", "a", False)
    queue(wire, name, passive=True)
    wire.read()
    wire.call(2, "channel.close", 200, "", 0, 0)
    queue(wire, name, passive=True)
    wire.read()


@conversation
def bindings_with_arguments(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    key = peer.name("k")
    wire.quietly(1, "queue.bind", 0, name, "amq.direct", key, False, {"a": 1})
    wire.quietly(1, "queue.bind", 0, name, "amq.direct", key, False, {"a": 2})
    wire.publish(1, "amq.direct", key, "once")
    wire.rest()
    queue(wire, name, passive=True)
    wire.read()
    wire.quietly(1, "queue.unbind", 0, name, "amq.direct", key, {"a": 1})
    wire.publish(1, "amq.direct", key, "still bound")
    wire.rest()
    queue(wire, name, passive=True)
    wire.read()
    wire.quietly(1, "queue.unbind", 0, name, "amq.direct", key, {"a": 2})
    wire.publish(1, "amq.direct", key, "not any more", mandatory=True)
    wire.read()
