"""pika's blocking connection, as the scripts use it."""

import pika
from cases import AMQP_URL, equal
from pika import exceptions


def connect(**changes):
    parameters = pika.URLParameters(AMQP_URL)
    for name, value in changes.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def take(channel, queue, count, auto_ack=False, timeout=30):
    """The next `count` deliveries, in order."""
    taken = []
    for method, properties, body in channel.consume(
        queue, auto_ack=auto_ack, inactivity_timeout=timeout
    ):
        if method is None:
            raise AssertionError(f"only {len(taken)} of {count} messages came from {queue}")
        taken.append((method, properties, body))
        if len(taken) == count:
            break
    return taken


def acked(channel, queue, count):
    """Consumes, acknowledges each delivery, and stops after `count`."""
    taken = 0
    for method, properties, body in channel.consume(queue, inactivity_timeout=30):
        assert method is not None, "deliveries stopped"
        channel.basic_ack(method.delivery_tag)
        yield method, properties, body
        taken += 1
        if taken == count:
            channel.cancel()
            return


def expect_close(connection, code, action):
    """The action closes its channel with `code`; the connection goes on."""
    channel = connection.channel()
    try:
        action(channel)
    except exceptions.ChannelClosedByBroker as closed:
        equal(closed.reply_code, code, "reply code")
    else:
        raise AssertionError(f"no channel error, {code} expected")
    again = connection.channel()
    name = again.queue_declare("", exclusive=True).method.queue
    again.basic_publish("", name, b"still here")
    equal(take(again, name, 1)[0][2], b"still here", "message on a new channel")
    again.close()
