"""pika's way of writing arguments, for every argument: tables of Python values, numbers as text."""

import time
from datetime import datetime, timezone
from decimal import Decimal

import pika
from cases import PEER, case, equal, eventually, main, not_for, only_for, within
from pika import exceptions
from pika_client import connect, take

DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


class Queue:
    """A queue of its own with the arguments under test, and one for its dead letters."""

    def __init__(self, arguments, durable=False):
        self.connection = connect()
        self.channel = self.connection.channel()
        self.durable = durable
        self.channel.queue_declare("dead", exclusive=True)
        self.name = f"arguments-{time.monotonic_ns()}"
        for _ in range(2):
            # Declaring again with the same values is no difference, however they are written.
            self.channel.queue_declare(self.name, durable=durable, arguments=arguments)
        self.channel.confirm_delivery()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.connection.is_open:
            if self.channel.is_open:
                self.channel.queue_delete(self.name)
            self.connection.close()

    def send(self, *bodies, **properties):
        """Publishes; returns which were refused."""
        refused = []
        for body in bodies:
            try:
                self.channel.basic_publish("", self.name, body,
                                           pika.BasicProperties(delivery_mode=2, **properties))
            except exceptions.NackError:
                refused.append(body)
        return refused

    def count(self, name=None):
        declared = self.channel.queue_declare(name or self.name, passive=True)
        return declared.method.message_count

    def holds(self, count, name=None):
        eventually(lambda: self.count(name) == count, f"{name or self.name} holds {count}")

    def drain(self, name=None):
        bodies = []
        while (got := self.channel.basic_get(name or self.name, auto_ack=True))[0]:
            bodies.append(got[2])
        return bodies

    def fails(self, times, how="reject"):
        """A consumer gives the next message back so often; returns when each came."""
        came = []
        for method, _, _ in self.channel.consume(self.name, inactivity_timeout=30):
            assert method is not None, "deliveries stopped"
            came.append(time.monotonic())
            if len(came) > times:
                self.channel.basic_ack(method.delivery_tag)
                break
            if how == "reject":
                self.channel.basic_reject(method.delivery_tag, requeue=True)
            else:
                self.channel.basic_nack(method.delivery_tag, requeue=True)
        self.channel.cancel()
        return came


def number_styles(number):
    """The same number as applications write it."""
    return [number] if PEER == "rabbitmq" else [number, str(number)]


@case
def message_ttl():
    for ttl in number_styles(100):
        with Queue({"x-message-ttl": ttl, **DEAD}) as queue:
            queue.send(b"1", b"2")
            queue.holds(2, "dead")
            equal(queue.drain("dead"), [b"1", b"2"])


@case
def expires():
    for ttl in number_styles(200):
        with Queue({"x-expires": ttl}) as queue:
            other = queue.connection.channel()

            def gone():
                nonlocal other
                time.sleep(0.3)
                try:
                    other.queue_declare(queue.name, passive=True)
                except exceptions.ChannelClosedByBroker as closed:
                    return closed.reply_code == 404
                return False

            eventually(gone, "the queue expires")


@case
def max_length():
    for length in number_styles(2):
        with Queue({"x-max-length": length, "x-overflow": "drop-head", **DEAD}) as queue:
            queue.send(b"1", b"2", b"3")
            queue.holds(1, "dead")
            equal(queue.drain(), [b"2", b"3"])


@case
def max_length_bytes():
    with Queue({"x-max-length-bytes": 10}) as queue:
        queue.send(b"12345", b"67890", b"a")
        queue.holds(2)
        equal(queue.drain(), [b"67890", b"a"])


@case
def overflow_reject_publish():
    with Queue({"x-max-length": 1, "x-overflow": "reject-publish"}) as queue:
        equal(queue.send(b"1", b"2"), [b"2"], "refused")


@case
def overflow_reject_publish_dlx():
    with Queue({"x-max-length": 1, "x-overflow": "reject-publish-dlx", **DEAD}) as queue:
        equal(queue.send(b"1", b"2"), [b"2"], "refused")
        queue.holds(1, "dead")
        _, properties, body = queue.channel.basic_get("dead", auto_ack=True)
        equal((body, properties.headers["x-death"][0]["reason"]), (b"2", "maxlen"))


@case
def dead_letter_exchange_and_key():
    with Queue(DEAD) as queue:
        queue.send(b"1")
        method, _, _ = queue.channel.basic_get(queue.name)
        queue.channel.basic_nack(method.delivery_tag, requeue=False)
        queue.holds(1, "dead")
        _, properties, _ = queue.channel.basic_get("dead", auto_ack=True)
        death = properties.headers["x-death"][0]
        equal((death["queue"], death["reason"], death["count"], death["routing-keys"]),
              (queue.name, "rejected", 1, [queue.name]))
        assert isinstance(death["time"], datetime), death


@case
def dead_letter_strategy():
    only_for("polymq")
    arguments = {"x-dead-letter-strategy": "at-least-once", "x-dead-letter-exchange": "",
                 "x-dead-letter-routing-key": "later-dead", "x-message-ttl": 50}
    with Queue(arguments, durable=True) as queue:
        queue.send(b"kept")
        queue.holds(0)
        time.sleep(0.2)
        queue.channel.queue_declare("later-dead", exclusive=True)
        queue.holds(1, "later-dead")
        equal(queue.drain("later-dead"), [b"kept"])


@case
def max_priority():
    for levels in number_styles(5):
        with Queue({"x-max-priority": levels}) as queue:
            for priority in (0, 9, 3, None):
                queue.send(b"%r" % priority, priority=priority)
            queue.holds(4)
            equal(queue.drain(), [b"9", b"3", b"0", b"None"])


@case
def single_active_consumer():
    with Queue({"x-single-active-consumer": True}) as queue:
        got = {"a": [], "b": []}
        for tag in got:
            queue.channel.basic_consume(
                queue.name, lambda *call, tag=tag: got[tag].append(call[3]), auto_ack=True,
                consumer_tag=tag)
        queue.send(b"1", b"2")
        eventually(lambda: queue.connection.process_data_events(0.05) or len(got["a"]) == 2,
                   "the first consumer has both")
        queue.channel.basic_cancel("a")
        queue.send(b"3")
        eventually(lambda: queue.connection.process_data_events(0.05) or got["b"] == [b"3"],
                   "the second takes over")


@case
def quorum_and_delivery_limit():
    with Queue({"x-queue-type": "quorum", "x-delivery-limit": 2, **DEAD}, durable=True) as queue:
        queue.send(b"poison")
        for _ in range(3):
            got = eventually(lambda: queue.channel.basic_get(queue.name)[0], "it comes again")
            queue.channel.basic_reject(got.delivery_tag, requeue=True)
        queue.holds(1, "dead")
        _, properties, _ = queue.channel.basic_get("dead", auto_ack=True)
        equal(properties.headers["x-death"][0]["reason"], "delivery_limit")


@case
def delivery_limit_of_a_classic_queue_and_what_counts():
    only_for("polymq")
    for limit, counts, how in ((1, "failed", "reject"), ("1", "all", "nack")):
        arguments = {"x-delivery-limit": limit, "x-delivery-limit-counts": counts, **DEAD}
        with Queue(arguments) as queue:
            queue.send(b"poison")
            for _ in range(2):
                method, _, _ = queue.channel.basic_get(queue.name)
                if how == "reject":
                    queue.channel.basic_reject(method.delivery_tag, requeue=True)
                else:
                    queue.channel.basic_nack(method.delivery_tag, requeue=True)
            queue.holds(1, "dead")


@case
def counts_are_shown():
    only_for("polymq")
    with Queue(None) as queue:
        queue.send(b"1")
        for how in ("reject", "nack"):
            method, _, _ = queue.channel.basic_get(queue.name)
            getattr(queue.channel, f"basic_{how}")(method.delivery_tag, requeue=True)
        method, properties, _ = queue.channel.basic_get(queue.name)
        equal((method.redelivered, properties.headers), (True, {
            "x-acquired-count": 2, "x-delivery-count": 1}))


def delays(arguments, times):
    with Queue(arguments) as queue:
        queue.send(b"retried")
        came = queue.fails(times)
        return [round(after - before, 2) for before, after in zip(came, came[1:])]


def near(found, expected):
    for delay, wanted in zip(found, expected):
        within(delay, wanted - 0.02, wanted + 10, f"delays {found}")


@case
def delayed_retry_linear():
    only_for("polymq")
    near(delays({"x-delayed-retry-type": "all", "x-delayed-retry-min": 200}, 3), [0.2, 0.4, 0.6])


@case
def delayed_retry_exponential_with_a_factor_and_a_largest():
    only_for("polymq")
    # pika knows no floating-point numbers in tables.
    for factor in (3, Decimal("3.0"), "3"):
        arguments = {"x-delayed-retry-type": "failed", "x-delayed-retry-min": "100",
                     "x-delayed-retry-max": 400, "x-delayed-retry-backoff": "exponential",
                     "x-delayed-retry-factor": factor}
        near(delays(arguments, 3), [0.1, 0.3, 0.4])


@case
def delayed_retry_fixed_with_jitter():
    only_for("polymq")
    arguments = {"x-delayed-retry-type": "failed", "x-delayed-retry-min": 200,
                 "x-delayed-retry-backoff": "fixed", "x-delayed-retry-jitter": Decimal("0.5")}
    for delay in delays(arguments, 3):
        within(delay, 0.08, 10)


@case
def consumer_timeout_of_a_queue_and_of_a_consumer():
    only_for("polymq")
    for queue_arguments, consumer_arguments in (
            ({"x-consumer-timeout": 300}, None), (None, {"x-consumer-timeout": "300"})):
        with Queue(queue_arguments) as queue:
            queue.send(b"slow")
            cancelled = []
            queue.channel.add_on_cancel_callback(cancelled.append)
            queue.channel.basic_consume(queue.name, lambda *_: None, arguments=consumer_arguments)
            eventually(lambda: queue.connection.process_data_events(0.05) or cancelled,
                       "the consumer is cancelled")
            queue.holds(1)


@case
def durability():
    only_for("polymq")
    for word in ("sync", "sync-interval:50", "os", "memory"):
        with Queue({"x-durability": word}, durable=True) as queue:
            equal(queue.send(b"1"), [])


@case
def largest_message():
    only_for("polymq")
    with Queue({"x-max-message-size": 3}) as queue:
        queue.send(b"123")
        try:
            queue.send(b"1234")
        except exceptions.ChannelClosedByBroker as closed:
            equal(closed.reply_code, 406)
            assert "x-max-message-size 3" in closed.reply_text, closed.reply_text
        else:
            raise AssertionError("a message that is too large was taken")


@case
def arguments_without_effect():
    arguments = {
        "x-queue-mode": "lazy", "x-queue-version": 2, "x-queue-master-locator": "min-masters",
        "x-of-mine": {"deep": [1, Decimal("1.5"), None]},
        "x-time": datetime(2024, 2, 3, tzinfo=timezone.utc),
    }
    if PEER == "polymq":
        # RabbitMQ refuses it for classic queues.
        arguments["x-max-in-memory-length"] = 10
    with Queue(arguments) as queue:
        equal(queue.send(b"1"), [])


@case
def priority_of_a_consumer():
    for high in number_styles(10):
        with Queue(None) as queue:
            got = []
            for tag, arguments in (("low", None), ("high", {"x-priority": high})):
                queue.channel.basic_consume(
                    queue.name, lambda *call, tag=tag: got.append(tag), auto_ack=True,
                    consumer_tag=tag, arguments=arguments)
            queue.send(b"1", b"2")
            eventually(lambda: queue.connection.process_data_events(0.05) or len(got) == 2,
                       "both messages")
            equal(got, ["high", "high"])


@case
def alternate_exchange():
    for name in ["alternate-exchange"] if PEER == "rabbitmq" else ["alternate-exchange",
                                                                   "x-alternate-exchange"]:
        with Queue(None) as queue:
            queue.channel.exchange_declare("rest", "fanout", auto_delete=True)
            queue.channel.queue_bind(queue.name, "rest")
            queue.channel.exchange_declare(f"main-{name}", "direct", arguments={name: "rest"})
            queue.channel.basic_publish(f"main-{name}", "nobody", b"the rest", mandatory=True)
            equal([body for _, _, body in take(queue.channel, queue.name, 1)], [b"the rest"])
            queue.channel.cancel()
            queue.channel.exchange_delete(f"main-{name}")


@case
def headers_bindings():
    with Queue(None) as queue:
        queue.channel.queue_bind(queue.name, "amq.headers", arguments={
            "x-match": "all", "n": 5, "yes": True, "there": None})
        for headers in ({"n": 5, "yes": True, "there": "x"}, {"n": 5, "yes": False, "there": 1}):
            queue.channel.basic_publish("amq.headers", "", b"%r" % headers["yes"],
                                        pika.BasicProperties(headers=headers))
        equal(queue.drain(), [b"True"])


@case
def hashes_with_weights():
    not_for("rabbitmq", "needs plugins for these")
    with Queue(None) as queue:
        for kind, arguments in (("x-consistent-hash", {"hash-header": "customer"}),
                                ("x-modulus-hash", None), ("x-random", None)):
            exchange = f"pika-{kind}"
            queue.channel.exchange_declare(exchange, kind, arguments=arguments)
            queue.channel.queue_bind(queue.name, exchange, "5")
            queue.channel.basic_publish(exchange, "k", b"x",
                                        pika.BasicProperties(headers={"customer": 7}))
            equal(queue.drain(), [b"x"], kind)
            queue.channel.exchange_delete(exchange)


@case
def topic_syntax_of_a_binding():
    only_for("polymq")
    with Queue(None) as queue:
        queue.channel.queue_bind(queue.name, "amq.topic", "pika.+.#", {"x-topic-syntax": "mqtt"})
        for key in ("pika.a.b", "pika", "other.a"):
            queue.channel.basic_publish("amq.topic", key, key.encode())
        equal(queue.drain(), [b"pika.a.b"])


@case
def delay_on_every_exchange():
    only_for("polymq")
    with Queue(None) as queue:
        queue.channel.exchange_declare("pika-delayed", "x-delayed-message",
                                       arguments={"x-delayed-type": "topic"})
        queue.channel.queue_bind(queue.name, "pika-delayed", "a.#")
        for exchange, key, delay in (("", queue.name, 300), ("", queue.name, "300"),
                                     ("pika-delayed", "a.b", 300)):
            sent = time.monotonic()
            queue.channel.basic_publish(exchange, key, b"later", pika.BasicProperties(
                headers={"x-delay": delay, "mine": 1}))
            equal(queue.count(), 0)
            _, properties, body = take(queue.channel, queue.name, 1, auto_ack=True)[0]
            queue.channel.cancel()
            within(time.monotonic() - sent, 0.28, 20, "delay")
            equal((body, properties.headers), (b"later", {"mine": 1, "x-delay": -300}))
        queue.channel.exchange_delete("pika-delayed")


@case
def copies_by_cc_and_bcc():
    with Queue(None) as queue:
        queue.channel.basic_publish("", "nobody", b"copy", pika.BasicProperties(
            headers={"CC": [queue.name], "BCC": ["dead"]}))
        _, properties, body = queue.channel.basic_get(queue.name, auto_ack=True)
        equal((body, properties.headers), (b"copy", {"CC": [queue.name]}))
        equal(queue.drain("dead"), [b"copy"])


@case
def wrong_values_are_406():
    for name, wrong in (("x-message-ttl", -1), ("x-expires", 0), ("x-max-length", -1),
                        ("x-overflow", "spill"), ("x-max-priority", 256),
                        ("x-dead-letter-routing-key", "k"), ("x-queue-type", "fancy")):
        with connect() as connection:
            channel = connection.channel()
            try:
                channel.queue_declare("wrong", exclusive=True, arguments={name: wrong})
            except exceptions.ChannelClosedByBroker as closed:
                equal(closed.reply_code, 406, name)
            else:
                raise AssertionError(f"{name}={wrong} was taken")


main()
