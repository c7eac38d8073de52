"""To those who want it: a direct exchange, and a binding for each wish."""

from roles import channel, run, say, serve


def listen(*levels):
    own = channel()
    own.exchange_declare("levels", "direct")
    queue = own.queue_declare("", exclusive=True).method.queue
    for level in levels:
        own.queue_bind(queue, "levels", level)
    own.basic_consume(
        queue, lambda c, m, p, body: say(f"{m.routing_key}: {body.decode()}"), auto_ack=True)
    serve(own)


def log(level, text):
    own = channel()
    own.exchange_declare("levels", "direct")
    own.basic_publish("levels", level, text.encode())
    own.connection.close()


run(listen=listen, log=log)
