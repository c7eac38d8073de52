"""Work that is shared by workers: durable, acknowledged when done, one task at a time."""

import os

import pika
from roles import channel, run, say, serve


def work(how="done"):
    """With `dies` the worker ends amid its first task."""
    own = channel()
    own.queue_declare("tasks", durable=True)
    own.basic_qos(prefetch_count=1)

    def task(its_channel, method, properties, body):
        say(f"{body.decode()}{' again' if method.redelivered else ''}")
        if how == "dies":
            os._exit(1)
        its_channel.basic_ack(method.delivery_tag)

    own.basic_consume("tasks", task)
    serve(own)


def give(*texts):
    own = channel()
    own.queue_declare("tasks", durable=True)
    for text in texts:
        own.basic_publish("", "tasks", text.encode(), pika.BasicProperties(delivery_mode=2))
    own.connection.close()


run(work=work, give=give)
