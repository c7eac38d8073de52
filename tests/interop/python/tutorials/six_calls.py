"""A call: a request with an address for the answer, and an id that says which one it is."""

import uuid

import pika
from roles import channel, run, say, serve


def fibonacci(number):
    last, this = 0, 1
    for _ in range(number):
        last, this = this, last + this
    return last


def answer():
    own = channel()
    own.queue_declare("calls")
    own.basic_qos(prefetch_count=1)

    def call(its_channel, method, properties, body):
        its_channel.basic_publish(
            "", properties.reply_to, str(fibonacci(int(body))).encode(),
            pika.BasicProperties(correlation_id=properties.correlation_id))
        its_channel.basic_ack(method.delivery_tag)

    own.basic_consume("calls", call)
    serve(own)


def ask(way, *numbers):
    """`queue` has answers sent to a queue of its own, `direct` without one."""
    own = channel()
    direct = way == "direct"
    reply_to = "amq.rabbitmq.reply-to" if direct else own.queue_declare("", exclusive=True)
    reply_to = reply_to if direct else reply_to.method.queue
    answers = {}
    own.basic_consume(
        reply_to, lambda c, m, p, body: answers.setdefault(p.correlation_id, body), auto_ack=True)
    for number in numbers:
        wanted = str(uuid.uuid4())
        own.basic_publish("", "calls", number.encode(),
                          pika.BasicProperties(reply_to=reply_to, correlation_id=wanted))
        while wanted not in answers:
            own.connection.process_data_events(time_limit=1)
        say(answers[wanted].decode())
    own.connection.close()


run(answer=answer, ask=ask)
