"""Consumers, acknowledgements, prefetch."""

from amqp_conversations import consume, conversation, declared, each, log_in, opened, queue


@conversation
def consumer_tags(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    consume(wire, name, "")
    wire.read()
    consume(wire, name, "t")
    wire.read()
    consume(wire, name, "t", channel=2)
    wire.read()
    consume(wire, name, "n", nowait=True)
    wire.rest()
    wire.call(1, "basic.cancel", "n", False)
    wire.call(1, "basic.cancel", "none", False)
    wire.send(1, "basic.cancel", "t", True)
    wire.send(1, "basic.cancel", "none", True)
    consume(wire, name, "t")
    wire.read()
    consume(wire, name, "t")
    wire.reads(2)
    wire = opened(peer)
    wire.send(1, "basic.cancel-ok", "t")
    wire.rest()


@conversation
def exclusive_consumers(peer):
    wire = opened(peer, channels=4)
    name = declared(wire, peer.name("q"))
    consume(wire, name, "one", exclusive=True)
    wire.read()
    consume(wire, name, "two", channel=2)
    wire.read()
    consume(wire, name, "three", channel=3, exclusive=True)
    wire.read()
    wire.call(1, "basic.cancel", "one", False)
    consume(wire, name, "four", channel=1)
    wire.read()
    consume(wire, name, "five", channel=4, exclusive=True)
    wire.read()


@conversation
def consume_arguments(peer):
    wire = log_in(peer)
    wire.quietly(1, "channel.open", "")
    name = declared(wire, peer.name("q"), exclusive=False)
    each(peer, {
        "no-local": lambda w, c: consume(w, name, "a", channel=c, no_local=True),
        "priority": lambda w, c: consume(w, name, "b", channel=c, priority=5),
        "priority of text": lambda w, c: consume(w, name, "c", channel=c, priority="high"),
        "huge priority": lambda w, c: consume(w, name, "d", channel=c, priority=1 << 40),
        "unknown": lambda w, c: consume(w, name, "e", channel=c, whatever=[1]),
        "cancel on failover": lambda w, c: consume(
            w, name, "f", channel=c, cancel_on_ha_failover=True),
    })  # fmt: skip
    wire.call(1, "queue.delete", 0, name, False, False, False)


@conversation
def consumer_priorities(peer):
    wire = opened(peer, channels=3)
    name = declared(wire, peer.name("q"))
    wire.quietly(1, "basic.qos", 0, 1, False)
    wire.quietly(2, "basic.qos", 0, 1, False)
    consume(wire, name, "low", channel=1, priority=-1)
    wire.read()
    consume(wire, name, "high", channel=2, priority=10)
    wire.read()
    for body in ("1", "2", "3"):
        wire.publish(3, "", name, body)
        if body != "3":
            wire.read()
    wire.rest()
    wire.send(2, "basic.ack", 1, False)
    wire.read()


@conversation
def acknowledgements(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "abcdef":
        wire.publish(1, "", name, body)
    consume(wire, name, "t")
    wire.reads(7)
    wire.send(1, "basic.ack", 2, True)
    wire.send(1, "basic.nack", 3, False, True)
    wire.read()
    wire.send(1, "basic.reject", 4, True)
    wire.read()
    wire.send(1, "basic.reject", 5, False)
    wire.send(1, "basic.nack", 6, False, False)
    wire.rest()
    wire.send(1, "basic.nack", 0, True, True)
    wire.reads(2)
    wire.send(1, "basic.ack", 0, True)
    queue(wire, name, passive=True)
    wire.read()
    wire.send(1, "basic.ack", 0, True)
    wire.rest()


@conversation
def unknown_delivery_tags(peer):
    def after_one(settle):
        def act(w, channel):
            name = peer.name(f"q{channel}")
            w.quietly(channel, "queue.declare", 0, name, False, False, False, True, False, {})
            w.publish(channel, "", name, "x")
            w.call(channel, "basic.get", 0, name, False)
            settle(w, channel)

        return act

    each(peer, {
        "ack 7": lambda w, c: w.send(c, "basic.ack", 7, False),
        "ack 7 multiple": lambda w, c: w.send(c, "basic.ack", 7, True),
        "ack 0": lambda w, c: w.send(c, "basic.ack", 0, False),
        "nack 7": lambda w, c: w.send(c, "basic.nack", 7, False, True),
        "nack 0": lambda w, c: w.send(c, "basic.nack", 0, False, True),
        "reject 7": lambda w, c: w.send(c, "basic.reject", 7, True),
        "reject 0": lambda w, c: w.send(c, "basic.reject", 0, True),
        "ack 2 of 1, multiple": after_one(lambda w, c: w.send(c, "basic.ack", 2, True)),
        "ack twice": after_one(
            lambda w, c: (w.send(c, "basic.ack", 1, False), w.send(c, "basic.ack", 1, False))),
        "ack up to one that is settled": after_one(
            lambda w, c: (w.send(c, "basic.ack", 1, False), w.send(c, "basic.ack", 1, True))),
    })  # fmt: skip


@conversation
def multiple_acknowledgement_up_to_a_settled_tag(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "abc":
        wire.publish(1, "", name, body)
        wire.call(1, "basic.get", 0, name, False)
    wire.send(1, "basic.ack", 2, False)
    wire.send(1, "basic.ack", 2, True)
    wire.read()


@conversation
def acknowledging_what_needs_none(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    wire.publish(1, "", name, "x")
    consume(wire, name, "t", no_ack=True)
    wire.reads(2)
    wire.send(1, "basic.ack", 1, False)
    wire.read()


@conversation
def get(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    wire.call(1, "basic.get", 0, name, False)
    for body in "abc":
        wire.publish(1, "", name, body)
    wire.call(1, "basic.get", 0, name, False)
    wire.call(1, "basic.get", 0, name, True)
    wire.send(1, "basic.nack", 1, False, True)
    wire.call(1, "basic.get", 0, name, False)
    wire.call(1, "channel.close", 200, "", 0, 0)
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)


@conversation
def prefetch_of_each_consumer(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "abcdef":
        wire.publish(1, "", name, body)
    wire.call(1, "basic.qos", 0, 1, False)
    consume(wire, name, "one")
    wire.reads(2)
    wire.call(1, "basic.qos", 0, 2, False)
    consume(wire, name, "two")
    wire.reads(3)
    wire.rest()
    wire.send(1, "basic.ack", 1, False)
    wire.reads(1)
    wire.rest()
    wire.call(1, "basic.qos", 0, 0, False)
    wire.rest()


@conversation
def prefetch_of_the_channel(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "abcdef":
        wire.publish(1, "", name, body)
    wire.call(1, "basic.qos", 0, 2, True)
    consume(wire, name, "one")
    consume(wire, name, "two")
    wire.rest()
    wire.send(1, "basic.ack", 0, True)
    wire.rest()
    wire.call(1, "basic.qos", 0, 0, True)
    wire.rest()


@conversation
def prefetch_and_get(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "abc":
        wire.publish(1, "", name, body)
    wire.call(1, "basic.qos", 0, 1, True)
    wire.call(1, "basic.get", 0, name, False)
    consume(wire, name, "one")
    wire.read()
    wire.rest()
    wire.send(1, "basic.ack", 1, False)
    wire.rest()


@conversation
def prefetch_by_bytes(peer):
    wire = opened(peer)
    wire.call(1, "basic.qos", 1, 0, False)


@conversation
def recovery(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    for body in "ab":
        wire.publish(1, "", name, body)
    consume(wire, name, "t")
    wire.reads(3)
    wire.send(1, "basic.recover", True)
    wire.reads(3)
    wire.send(1, "basic.recover-async", True)
    wire.reads(2)
    wire.send(1, "basic.ack", 6, True)
    queue(wire, name, passive=True)
    wire.read()
    wire.call(1, "basic.recover", False)
    wire = opened(peer)
    wire.call(1, "basic.recover-async", False)


@conversation
def cancelled_consumer_keeps_its_deliveries(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    wire.publish(1, "", name, "a")
    wire.publish(1, "", name, "b")
    wire.quietly(1, "basic.qos", 0, 1, False)
    consume(wire, name, "t")
    wire.reads(2)
    wire.call(1, "basic.cancel", "t", False)
    queue(wire, name, passive=True)
    wire.read()
    wire.send(1, "basic.nack", 1, False, True)
    wire.rest()
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)


def delete_elsewhere(peer, name):
    """Another connection deletes a queue."""
    opened(peer).call(1, "queue.delete", 0, name, False, False, False)


@conversation
def deleted_queue_cancels_its_consumers(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"), exclusive=False)
    wire.publish(1, "", name, "a")
    consume(wire, name, "t")
    wire.reads(2)
    delete_elsewhere(peer, name)
    wire.rest()
    wire.send(1, "basic.ack", 1, False)
    wire.call(1, "basic.cancel", "t", False)
    consume(wire, declared(wire, peer.name("q2")), "t")
    wire.read()
    wire = opened(peer, client={})
    name = declared(wire, peer.name("q3"), exclusive=False)
    consume(wire, name, "t")
    wire.read()
    delete_elsewhere(peer, name)
    wire.rest()


@conversation
def redelivery(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    wire.publish(2, "", name, "a")
    wire.publish(2, "", name, "b")
    consume(wire, name, "t")
    wire.reads(3)
    wire.call(1, "channel.close", 200, "", 0, 0)
    wire.call(2, "basic.get", 0, name, False)
    wire.send(2, "basic.reject", 1, True)
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)
