"""By patterns: a topic exchange."""

from roles import channel, run, say, serve


def listen(*patterns):
    own = channel()
    own.exchange_declare("animals", "topic")
    queue = own.queue_declare("", exclusive=True).method.queue
    for pattern in patterns:
        own.queue_bind(queue, "animals", pattern)
    own.basic_consume(queue, lambda c, m, p, body: say(m.routing_key), auto_ack=True)
    serve(own)


def tell(*keys):
    own = channel()
    own.exchange_declare("animals", "topic")
    for key in keys:
        own.basic_publish("animals", key, b"")
    own.connection.close()


run(listen=listen, tell=tell)
