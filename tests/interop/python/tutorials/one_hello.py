"""One sender, one queue, one receiver."""

from roles import channel, run, say, serve


def receive():
    own = channel()
    own.queue_declare("hello")
    own.basic_consume("hello", lambda c, m, p, body: say(body.decode()), auto_ack=True)
    serve(own)


def send(*texts):
    own = channel()
    own.queue_declare("hello")
    for text in texts:
        own.basic_publish("", "hello", text.encode())
    own.connection.close()


run(receive=receive, send=send)
