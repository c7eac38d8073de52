"""What is published and what is refused, confirms, transactions, replies, dead letters."""

from amqp_conversations import consume, conversation, declared, each, opened, queue
from amqp_wire import content_header, frame


@conversation
def refused_publishes(peer):
    each(peer, {
        "missing exchange": lambda w, c: w.publish(c, "none", "k", "x"),
        "missing exchange, mandatory": lambda w, c: w.publish(c, "none", "k", "x", mandatory=True),
        "immediate": lambda w, c: (
            w.send(c, "basic.publish", 0, "", "k", False, True), w.content(c, b"x")),
        "another user": lambda w, c: w.publish(c, "", "k", "x", user_id="somebody"),
        "bad expiration": lambda w, c: w.publish(c, "", "k", "x", expiration="soon"),
        "negative expiration": lambda w, c: w.publish(c, "", "k", "x", expiration="-1"),
        "empty expiration": lambda w, c: w.publish(c, "", "k", "x", expiration=""),
        "fraction of expiration": lambda w, c: w.publish(c, "", "k", "x", expiration="1.5"),
        "huge expiration": lambda w, c: w.publish(c, "", "k", "x", expiration="9" * 18),
        "CC of text": lambda w, c: w.publish(c, "", "k", "x", headers={"CC": "a"}),
        "CC of numbers": lambda w, c: w.publish(c, "", "k", "x", headers={"CC": [1]}),
        "BCC of text": lambda w, c: w.publish(c, "", "k", "x", headers={"BCC": "a"}),
        "no reply consumer": lambda w, c: w.publish(
            c, "", "k", "x", reply_to="amq.rabbitmq.reply-to"),
        "unroutable": lambda w, c: w.publish(c, "", "k?", "x", mandatory=True, message_id="i"),
    })  # fmt: skip


@conversation
def publish_to_a_missing_exchange_without_content(peer):
    wire = opened(peer)
    wire.send(1, "basic.publish", 0, "none", "k", False, False)
    wire.read(0.5)
    wire.content(1, b"now")
    wire.read()


@conversation
def message_too_large(peer):
    wire = opened(peer)
    wire.send(1, "basic.publish", 0, "", "k", False, False)
    wire.raw(frame(2, 1, content_header(600 << 20, {})))
    wire.read()
    wire.send(1, "channel.close-ok")
    wire.call(1, "channel.open", "")


@conversation
def properties_pass_through(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    everything = {
        "content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": 2,
        "headers": {"int": 1, "nested": {"list": [1, "x", None, True]}, "f": 1.5},
        "priority": 9, "correlation_id": "c", "reply_to": "r", "expiration": "60000",
        "message_id": "m", "timestamp": 1700000000, "type": "t", "user_id": "guest",
        "app_id": "a", "cluster_id": "cl",
    }  # fmt: skip
    wire.publish(1, "", name, "all", **everything)
    wire.publish(1, "", name, "none")
    wire.publish(1, "", name, "", headers={}, delivery_mode=1)
    wire.send(1, "basic.publish", 0, "", name, False, False)
    wire.content(1, b"abcdef", parts=[b"a", b"", b"bcd", b"ef"])
    for _ in range(5):
        wire.call(1, "basic.get", 0, name, True)


@conversation
def unusual_properties(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    wire.publish(2, "", name, "high", priority=255)
    wire.publish(1, "", name, "odd", delivery_mode=0)
    wire.rest()
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)


@conversation
def user_id_and_zero_expiration(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    wire.publish(1, "", name, "mine", user_id="guest")
    wire.publish(1, "", name, "gone", expiration="0")
    wire.publish(1, "", name, "stays")
    wire.rest()
    wire.call(1, "basic.get", 0, name, True)
    wire.call(1, "basic.get", 0, name, True)
    wire.call(1, "basic.get", 0, name, True)
    wire.quietly(1, "basic.consume", 0, name, "c", False, True, False, False, {})
    wire.publish(1, "", name, "in time", expiration="0")
    wire.read()


@conversation
def carbon_copies(peer):
    wire = opened(peer)
    one, two, three = (declared(wire, peer.name(name)) for name in "abc")
    headers = {"CC": [two, one], "BCC": [three], "kept": 1}
    wire.publish(1, "", one, "copied", headers=headers)
    for name in (one, two, three):
        wire.call(1, "basic.get", 0, name, True)
        wire.call(1, "basic.get", 0, name, True)
    wire.publish(1, "", "nobody" + peer.run, "by copy", mandatory=True, headers={"CC": [one]})
    wire.call(1, "basic.get", 0, one, True)
    wire.publish(1, "", "nobody" + peer.run, "returned", mandatory=True,
                 headers={"CC": ["none"], "BCC": ["none"]})  # fmt: skip
    wire.read()


@conversation
def bodies_in_frames(peer):
    wire = opened(peer, tune=(100, 4096, 0))
    name = declared(wire, peer.name("q"))
    for size in (0, 1, 4088, 4089, 8176, 100000):
        wire.send(1, "basic.publish", 0, "", name, False, False)
        body = b"x" * size
        wire.content(1, body, parts=[body[at : at + 4088] for at in range(0, size, 4088)])
        wire.call(1, "basic.get", 0, name, True)
    for size in (4096, 4097):
        wire.say(f"frame of {size + 8} bytes")
        wire.send(1, "basic.publish", 0, "", name, False, False)
        wire.content(1, b"x" * size)
        wire.rest()
        wire.call(1, "basic.get", 0, name, True)

@conversation
def confirms(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    wire.publish(1, "", name, "before")
    wire.call(1, "confirm.select", False)
    wire.send(1, "confirm.select", True)
    wire.call(1, "confirm.select", False)
    wire.publish(1, "", name, "one")
    wire.read()
    wire.publish(1, "", "none" + peer.run, "unrouted")
    wire.read()
    wire.publish(1, "", "none" + peer.run, "returned first", mandatory=True)
    wire.reads(2)
    wire.publish(1, "", name, "four", mandatory=True, delivery_mode=2)
    wire.read()
    wire.publish(1, "none", name, "no exchange")
    wire.read()


@conversation
def refused_by_a_full_queue(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"), max_length=1, overflow="reject-publish")
    wire.call(1, "confirm.select", False)
    for body in "abc":
        wire.publish(1, "", name, body)
        wire.read()
    wire.call(1, "basic.get", 0, name, True)
    wire.publish(1, "", name, "d")
    wire.read()


@conversation
def full_queue_of_the_length_zero(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"), max_length=0)
    wire.quietly(1, "confirm.select", False)
    wire.publish(1, "", name, "a", mandatory=True)
    wire.read()
    wire.call(1, "basic.get", 0, name, True)


@conversation
def transactions(peer):
    wire = opened(peer, channels=2)
    name = declared(wire, peer.name("q"))
    wire.call(1, "tx.select")
    wire.call(1, "tx.select")
    wire.publish(1, "", name, "a")
    wire.publish(1, "", name, "b")
    queue(wire, name, passive=True)
    wire.read()
    wire.call(1, "tx.commit")
    queue(wire, name, passive=True)
    wire.read()
    wire.publish(1, "", name, "never")
    wire.call(1, "tx.rollback")
    wire.call(1, "tx.commit")
    wire.publish(1, "", name, "lost with the channel")
    wire.call(1, "basic.get", 0, name, False)
    wire.call(1, "basic.get", 0, name, False)
    wire.call(1, "basic.get", 0, name, False)
    wire.send(1, "basic.ack", 1, False)
    wire.call(1, "tx.rollback")
    wire.send(1, "basic.ack", 1, False)
    wire.send(1, "basic.nack", 2, False, True)
    wire.call(1, "basic.get", 0, name, False)
    wire.call(1, "tx.commit")
    wire.call(1, "basic.get", 0, name, False)
    wire.send(1, "basic.ack", 3, False)
    wire.call(1, "channel.close", 200, "", 0, 0)
    wire.call(2, "basic.get", 0, name, True)
    wire.call(2, "basic.get", 0, name, True)


@conversation
def transaction_errors(peer):
    each(peer, {
        "commit without": lambda w, c: w.send(c, "tx.commit"),
        "rollback without": lambda w, c: w.send(c, "tx.rollback"),
        "confirm after tx": lambda w, c: (
            w.call(c, "tx.select"), w.send(c, "confirm.select", False)),
        "tx after confirm": lambda w, c: (
            w.call(c, "confirm.select", False), w.send(c, "tx.select")),
        "unroutable": lambda w, c: (
            w.call(c, "tx.select"),
            w.publish(c, "", "none" + peer.run, "x", mandatory=True),
            w.rest(),
            w.send(c, "tx.commit"),
            w.read()),
        "missing exchange": lambda w, c: (
            w.call(c, "tx.select"),
            w.publish(c, "none", "k", "x"),
            w.send(c, "tx.commit")),
        "unknown tag": lambda w, c: (w.call(c, "tx.select"), w.send(c, "basic.ack", 5, False)),
        "recover": lambda w, c: (w.call(c, "tx.select"), w.send(c, "basic.recover", True)),
    })  # fmt: skip


@conversation
def acknowledged_twice_in_a_transaction(peer):
    wire = opened(peer)
    name = declared(wire, peer.name("q"))
    wire.quietly(1, "tx.select")
    wire.publish(1, "", name, "a")
    wire.quietly(1, "tx.commit")
    wire.call(1, "basic.get", 0, name, False)
    wire.send(1, "basic.ack", 1, False)
    wire.send(1, "basic.ack", 1, False)
    wire.rest()

REPLY_TO = "amq.rabbitmq.reply-to"


@conversation
def direct_replies(peer):
    wire = opened(peer, channels=3)
    name = declared(wire, peer.name("q"))
    consume(wire, REPLY_TO, "r", no_ack=True)
    wire.read()
    wire.publish(1, "", name, "question", reply_to=REPLY_TO, correlation_id="7")
    wire.rest()
    wire.call(2, "basic.get", 0, name, True)
    address = wire.properties.get("reply_to", "none")
    queue(wire, address, passive=True, channel=2)
    wire.read()
    wire.publish(2, "", address, "answer", correlation_id="7")
    wire.read()
    wire.quietly(2, "confirm.select", False)
    wire.publish(2, "", address, "confirmed")
    wire.reads(2)
    wire.call(1, "basic.cancel", "r", False)
    wire.publish(2, "", address, "too late", mandatory=True)
    wire.reads(2)
    queue(wire, address, passive=True, channel=2)
    wire.read()
    consume(wire, REPLY_TO, "r", no_ack=True)
    wire.read()
    wire.call(3, "queue.delete", 0, address, False, False, False)


@conversation
def direct_reply_errors(peer):
    each(peer, {
        "with acknowledgement": lambda w, c: consume(w, REPLY_TO, "a", channel=c),
        "twice": lambda w, c: (
            consume(w, REPLY_TO, "b", channel=c, no_ack=True),
            w.read(),
            consume(w, REPLY_TO, "c", channel=c, no_ack=True)),
        "declare": lambda w, c: queue(w, REPLY_TO, channel=c),
        "declare passive": lambda w, c: queue(w, REPLY_TO, passive=True, channel=c),
        "get": lambda w, c: w.send(c, "basic.get", 0, REPLY_TO, True),
        "bind": lambda w, c: w.send(c, "queue.bind", 0, REPLY_TO, "amq.direct", "", False, {}),
        "purge": lambda w, c: w.send(c, "queue.purge", 0, REPLY_TO, False),
        "delete": lambda w, c: w.send(c, "queue.delete", 0, REPLY_TO, *[False] * 3),
        "publish": lambda w, c: w.publish(c, "", REPLY_TO, "x", mandatory=True),
        "unknown name": lambda w, c: w.publish(
            c, "", REPLY_TO + ".none", "x", mandatory=True),
        "passive unknown name": lambda w, c: queue(w, REPLY_TO + ".none", passive=True, channel=c),
    })  # fmt: skip

@conversation
def dead_letters(peer):
    wire = opened(peer)
    dead = declared(wire, peer.name("dead"))
    name = declared(
        wire, peer.name("q"), dead_letter_exchange="", dead_letter_routing_key=dead, max_length=2
    )
    wire.publish(1, "", name, "rejected", message_id="m", headers={"mine": 1})
    wire.call(1, "basic.get", 0, name, False)
    wire.send(1, "basic.reject", 1, False)
    wire.publish(1, "", name, "dropped")
    wire.publish(1, "", name, "expired", expiration="0")
    wire.publish(1, "", name, "kept")
    wire.rest()
    for _ in range(4):
        wire.call(1, "basic.get", 0, dead, True)
        deaths = wire.properties.get("headers", {}).get("x-death", [])
        for death in deaths:
            wire.say("    " + " ".join(f"{key}={death[key]}" for key in sorted(death)))
