"""Everything to everybody who listens: a fanout exchange and a queue for each listener."""

from roles import channel, run, say, serve


def listen():
    own = channel()
    own.exchange_declare("logs", "fanout")
    queue = own.queue_declare("", exclusive=True).method.queue
    own.queue_bind(queue, "logs")
    own.basic_consume(queue, lambda c, m, p, body: say(body.decode()), auto_ack=True)
    serve(own)


def log(*texts):
    own = channel()
    own.exchange_declare("logs", "fanout")
    for text in texts:
        own.basic_publish("logs", "", text.encode())
    own.connection.close()


run(listen=listen, log=log)
