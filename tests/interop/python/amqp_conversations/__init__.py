"""The conversations of `amqp_differences.py`: what a client sends, legal or not.

Each takes a peer that opens connections, and says nothing about what should come back; that stands
in `amqp_differences.txt`. Here is what they share.
"""

from amqp_wire import HEADER

FULL = {
    "capabilities": {
        "consumer_cancel_notify": True,
        "authentication_failure_close": True,
        "connection.blocked": True,
        "basic.nack": True,
        "publisher_confirms": True,
    }
}
PLAIN = b"\0guest\0guest"

conversations = {}


def conversation(function):
    conversations[function.__name__] = function
    return function


def greet(peer):
    wire = peer.connect()
    wire.raw(HEADER)
    at = len(wire.said)
    wire.read()
    del wire.said[at:]
    return wire


def log_in(peer, client=FULL, tune=None, vhost="/"):
    wire = greet(peer)
    at = len(wire.said)
    wire.call(0, "connection.start-ok", client, "PLAIN", PLAIN, "en_US")
    wire.send(0, "connection.tune-ok", *(tune or (2047, 131072, 60)))
    wire.call(0, "connection.open", vhost, "", False)
    del wire.said[at:]
    return wire


def opened(peer, channels=1, **options):
    """A connection with open channels."""
    wire = log_in(peer, **options)
    for channel in range(1, channels + 1):
        wire.quietly(channel, "channel.open", "")
    return wire


def each(peer, cases):
    """Each action on a channel of its own, and what comes."""
    wire = log_in(peer)
    for channel, (name, act) in enumerate(cases.items(), 1):
        if wire.ended:
            wire = log_in(peer)
        wire.quietly(channel, "channel.open", "")
        wire.say(name)
        act(wire, channel)
        if wire.read(2) == "connection.close":
            wire.read()


def exchange(wire, name, kind="direct", passive=False, durable=False, auto=False, internal=False,
             nowait=False, channel=1, **arguments):  # fmt: skip
    table = {key.replace("_", "-"): value for key, value in arguments.items()}
    wire.send(
        channel, "exchange.declare", 0, name, kind, passive, durable, auto, internal, nowait, table
    )


def queue(wire, name, passive=False, durable=False, exclusive=False, auto=False, nowait=False,
          channel=1, **arguments):  # fmt: skip
    table = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
    wire.send(
        channel, "queue.declare", 0, name, passive, durable, exclusive, auto, nowait, table
    )


def declared(wire, name, **options):
    """An exclusive queue that is simply there."""
    at = len(wire.said)
    queue(wire, name, **{"exclusive": True, **options})
    if wire.read() == "queue.declare-ok":
        del wire.said[at:]
    return name


def consume(wire, name, tag, channel=1, no_local=False, no_ack=False, exclusive=False,
            nowait=False, **arguments):  # fmt: skip
    table = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}
    wire.send(channel, "basic.consume", 0, name, tag, no_local, no_ack, exclusive, nowait, table)
