"""kill -9 under real clients of both protocols, and a start on the same data."""

import threading

import pika
from cases import PEER, case, ctl, equal, main
from paho_client import V5, V311, Client
from pika_client import acked, connect

PERSISTENT = pika.BasicProperties(delivery_mode=2)
VERSION = V5 if PEER == "polymq" else V311


def lasting(client_id, **more):
    if VERSION == V5:
        more["SessionExpiryInterval"] = 300
    return Client(client_id, VERSION, clean=False, **more)


@case
def confirmed_messages_of_both_protocols_survive():
    # The connection dies with the broker, so it is not closed in order.
    connection = connect()
    channel = connection.channel()
    channel.queue_declare("both", durable=True)
    channel.queue_bind("both", "amq.topic", "both.#")
    lasting("both").connect().disconnect()
    sleeper = lasting("both").connect()
    sleeper.subscribe("both/#", 1)
    sleeper.disconnect()
    channel.confirm_delivery()
    with Client("p", VERSION) as publisher:
        for number in range(50):
            channel.basic_publish("amq.topic", "both.amqp", b"a%d" % number, PERSISTENT)
            publisher.publish("both/mqtt", b"m%d" % number, 1)
        publisher.publish("both/state", b"retained", 1, retain=True)
    ctl("kill")
    expected = [b"%c%d" % (kind, n) for n in range(50) for kind in b"am"] + [b"retained"]
    with connect() as connection:
        found = [body for _, _, body in acked(connection.channel(), "both", 101)]
        equal(found, expected, "queue")
    with lasting("both") as again:
        equal(again.session_present, True)
        equal(again.payloads(101), expected, "session")
    if PEER == "rabbitmq":
        return  # its retained messages are on disk only some time later
    with Client("late", VERSION) as late:
        late.subscribe("both/state", 1)
        message = late.receive()
        equal((message.payload, message.retain), (b"retained", True))


@case
def what_was_confirmed_while_the_broker_died_is_there():
    confirmed, stop = {"amqp": [], "mqtt": []}, threading.Event()
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare("storm", durable=True)
        channel.queue_bind("storm", "amq.topic", "storm.#")

    started = threading.Semaphore(0)

    def by_amqp():
        try:
            with connect() as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                for number in range(1_000_000):
                    channel.basic_publish("amq.topic", "storm.a", b"a%d" % number, PERSISTENT)
                    confirmed["amqp"].append(b"a%d" % number)
                    if number == 100:
                        started.release()
        except pika.exceptions.AMQPError:
            pass

    def by_mqtt():
        publisher = Client("storm", VERSION).connect()
        number = 0
        while not stop.is_set() and publisher.lost.empty():
            sent = publisher.mqtt.publish("storm/m", b"m%d" % number, 1)
            try:
                publisher.answer(sent.mid).get(timeout=0.5)
            except Exception:
                continue
            confirmed["mqtt"].append(b"m%d" % number)
            publisher.answers.pop(sent.mid)
            if number == 100:
                started.release()
            number += 1
        publisher.mqtt.loop_stop()

    threads = [threading.Thread(target=by_amqp), threading.Thread(target=by_mqtt)]
    for thread in threads:
        thread.start()
    started.acquire()
    started.acquire()
    ctl("kill")
    stop.set()
    for thread in threads:
        thread.join()
    with connect() as connection:
        channel = connection.channel()
        count = channel.queue_declare("storm", passive=True).method.message_count
        found = [body for _, _, body in acked(channel, "storm", count)]
    for kind, prefix in (("amqp", b"a"), ("mqtt", b"m")):
        mine = [body for body in found if body.startswith(prefix)]
        equal([b for b in confirmed[kind] if b not in set(mine)], [], f"lost by {kind}")
        numbers = [int(body[1:]) for body in dict.fromkeys(mine)]
        equal(numbers, sorted(numbers), f"order of {kind}")
        # At most the one in flight may be there without its confirm.
        assert len(numbers) <= len(confirmed[kind]) + 1, f"{kind} messages were invented"


main()
