"""What the scripts of all patterns share: a channel, and how a consumer lives."""

import os
import sys
import threading

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")


def channel():
    return pika.BlockingConnection(pika.URLParameters(URL)).channel()


def say(text):
    print(text, flush=True)


def serve(channel):
    """Consumes until the input of the process ends."""
    connection = channel.connection

    def wait():
        sys.stdin.read()
        connection.add_callback_threadsafe(channel.stop_consuming)

    threading.Thread(target=wait, daemon=True).start()
    say("ready")
    channel.start_consuming()
    connection.close()


def run(**roles):
    """The first argument is the role, the others are its own."""
    roles[sys.argv[1]](*sys.argv[2:])
