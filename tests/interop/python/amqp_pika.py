"""pika: what its blocking and asynchronous connections do when all goes well."""

import threading
from datetime import datetime, timezone
from decimal import Decimal

import pika
from cases import AMQP_HOST, AMQP_PORT, case, equal, main, not_for, within
from pika_client import acked, connect, expect_close, take


@case
def publish_consume_and_confirm():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("work", durable=True)
        for number in range(50):
            channel.basic_publish(
                "", "work", b"message %d" % number,
                pika.BasicProperties(delivery_mode=2), mandatory=True,
            )
        channel.basic_qos(prefetch_count=10)
        for number, (method, _, body) in enumerate(acked(channel, "work", 50)):
            equal(body, b"message %d" % number, "order")
            equal(method.redelivered, False, "redelivered")
        equal(channel.queue_declare("work", passive=True).method.message_count, 0, "left over")
        channel.queue_delete("work")


@case
def all_properties_and_header_types_come_back():
    headers = {
        "text": "käse", "yes": True, "small": 5, "big": 1 << 40, "minus": -7, "void": None,
        "decimal": Decimal("12.50"), "bytes": b"\x00\xff",
        "time": datetime(2024, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
        "list": [1, "two", [3]], "table": {"inner": {"deep": False}},
    }
    sent = pika.BasicProperties(
        content_type="application/json", content_encoding="gzip", headers=headers,
        delivery_mode=2, priority=4, correlation_id="c-1", reply_to="answers",
        expiration="60000", message_id="m-1", timestamp=1700000000, type="order",
        user_id="guest", app_id="shop",
    )
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", name, b'{"a":1}', sent)
        _, found, body = take(channel, name, 1)[0]
        equal(body, b'{"a":1}')
        for field in ("content_type", "content_encoding", "delivery_mode", "priority",
                      "correlation_id", "reply_to", "expiration", "message_id", "timestamp",
                      "type", "user_id", "app_id"):
            equal(getattr(found, field), getattr(sent, field), field)
        time = found.headers.pop("time")
        equal(time.replace(tzinfo=timezone.utc), headers.pop("time"), "time")
        # pika reads a byte array as text where it can; compare its bytes.
        raw = found.headers.pop("bytes")
        equal(raw if isinstance(raw, bytes) else raw.encode("latin-1"), headers.pop("bytes"))
        equal(found.headers, headers, "headers")


@case
def large_and_empty_bodies():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        name = channel.queue_declare("", exclusive=True).method.queue
        large = bytes(range(256)) * 8192
        for body in (large, b"", b"x"):
            channel.basic_publish("", name, body)
        equal([body for _, _, body in take(channel, name, 3)], [large, b"", b"x"])


@case
def get_takes_one_or_says_empty():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True).method.queue
        equal(channel.basic_get(name), (None, None, None), "empty queue")
        channel.confirm_delivery()
        channel.basic_publish("", name, b"one")
        channel.basic_publish("", name, b"two")
        method, _, body = channel.basic_get(name)
        equal((body, method.message_count), (b"one", 1))
        channel.basic_reject(method.delivery_tag, requeue=True)
        method, _, body = channel.basic_get(name, auto_ack=True)
        equal((body, method.redelivered), (b"one", True))


@case
def nack_multiple_requeues_in_order():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True).method.queue
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", name, body)
        taken = take(channel, name, 3)
        channel.basic_nack(taken[-1][0].delivery_tag, multiple=True, requeue=True)
        channel.cancel()
        again = take(channel, name, 3)
        equal([body for _, _, body in again], [b"1", b"2", b"3"])
        equal([method.redelivered for method, _, _ in again], [True] * 3)


@case
def recover_gives_unacknowledged_messages_again():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        channel.basic_publish("", name, b"again")
        assert channel.basic_get(name)[2] == b"again"
        channel.basic_recover(requeue=True)
        method, _, body = take(channel, name, 1)[0]
        equal((body, method.redelivered), (b"again", True))


@case
def rejected_and_expired_messages_are_dead_lettered():
    with connect() as connection:
        channel = connection.channel()
        dead = channel.queue_declare("", exclusive=True).method.queue
        name = channel.queue_declare("", exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
        }).method.queue
        channel.basic_publish("", name, b"bad")
        channel.basic_reject(take(channel, name, 1)[0][0].delivery_tag, requeue=False)
        channel.cancel()
        method, properties, body = take(channel, dead, 1)[0]
        equal((method.routing_key, body), (dead, b"bad"))
        death = properties.headers["x-death"][0]
        equal((death["reason"], death["queue"], death["count"]), ("rejected", name, 1))
        equal(properties.headers["x-first-death-reason"], "rejected")
        channel.cancel()

        channel.basic_publish("", name, b"late", pika.BasicProperties(expiration="30"))
        _, properties, body = take(channel, dead, 1)[0]
        equal((body, properties.headers["x-death"][0]["reason"]), (b"late", "expired"))
        equal(properties.expiration, None, "expiration after death")


@case
def exchange_types_route():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        def queue(exchange, key="", arguments=None):
            name = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(name, exchange, key, arguments)
            return name

        def count(name):
            return channel.queue_declare(name, passive=True).method.message_count

        channel.exchange_declare("logs", "topic", auto_delete=True)
        errors, shop, everything = (queue("logs", k) for k in ("*.error", "shop.#", "#"))
        for key in ("shop.error", "shop", "bank.error", ""):
            channel.basic_publish("logs", key, b"x")
        equal([count(q) for q in (errors, shop, everything)], [2, 2, 4], "topic")

        first, second = queue("amq.fanout"), queue("amq.fanout", "ignored")
        channel.basic_publish("amq.fanout", "any", b"x")
        equal([count(first), count(second)], [1, 1], "fanout")

        a, b = queue("amq.direct", "a"), queue("amq.direct", "b")
        channel.basic_publish("amq.direct", "a", b"x")
        equal([count(a), count(b)], [1, 0], "direct")

        both = queue("amq.headers", "", {"x-match": "all", "size": 1, "colour": "red"})
        either = queue("amq.headers", "", {"x-match": "any", "size": 1, "colour": "red"})
        for headers in ({"size": 1, "colour": "red"}, {"size": 1}, {"size": 2}):
            channel.basic_publish("amq.headers", "", b"x", pika.BasicProperties(headers=headers))
        equal([count(both), count(either)], [1, 2], "headers")

        channel.exchange_declare("inner", "fanout", internal=True, auto_delete=True)
        channel.exchange_bind("inner", "logs", "to.inner")
        behind = queue("inner")
        channel.basic_publish("logs", "to.inner", b"x")
        equal(count(behind), 1, "exchange to exchange")
        channel.exchange_unbind("inner", "logs", "to.inner")
        channel.basic_publish("logs", "to.inner", b"x")
        equal(count(behind), 1, "after unbind")

        channel.exchange_declare("main", "direct", auto_delete=False,
                                 arguments={"alternate-exchange": "amq.fanout"})
        channel.basic_publish("main", "nobody", b"x")
        equal(count(first), 2, "alternate exchange")
        channel.exchange_delete("main")


@case
def transactions_commit_and_roll_back():
    with connect() as connection:
        channel = connection.channel()
        watcher = connection.channel()
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.tx_select()
        channel.basic_publish("", name, b"dropped")
        channel.tx_rollback()
        channel.basic_publish("", name, b"kept")
        equal(watcher.basic_get(name), (None, None, None), "before commit")
        channel.tx_commit()
        method, _, body = channel.basic_get(name)
        equal(body, b"kept")
        channel.basic_ack(method.delivery_tag)
        channel.tx_commit()
        equal(watcher.queue_purge(name).method.message_count, 0)


@case
def direct_reply_to_answers_a_request():
    with connect() as client, connect() as server:
        ask, answer = client.channel(), server.channel()
        answer.queue_declare("service", auto_delete=True)
        replies = []
        ask.basic_consume("amq.rabbitmq.reply-to", lambda *a: replies.append(a), auto_ack=True)
        ask.basic_publish("", "service", b"2+2", pika.BasicProperties(
            reply_to="amq.rabbitmq.reply-to", correlation_id="7"))
        _, request, body = take(answer, "service", 1)[0]
        equal(body, b"2+2")
        assert request.reply_to.startswith("amq.rabbitmq.reply-to."), request.reply_to
        answer.basic_publish("", request.reply_to, b"4",
                             pika.BasicProperties(correlation_id=request.correlation_id))
        while not replies:
            client.process_data_events(time_limit=1)
        equal((replies[0][3], replies[0][2].correlation_id), (b"4", "7"))
        expect_close(client, 406, lambda c: c.basic_publish("", "q", b"", pika.BasicProperties(
            reply_to="amq.rabbitmq.reply-to")) or c.queue_declare("", exclusive=True))


@case
def higher_priority_comes_first():
    not_for("polymq", "does not offer x-max-priority yet")
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True,
                                     arguments={"x-max-priority": 5}).method.queue
        for priority in (1, 5, 3):
            channel.basic_publish("", name, b"%d" % priority,
                                  pika.BasicProperties(priority=priority))
        channel.queue_declare(name, passive=True)
        equal([b for _, _, b in take(channel, name, 3)], [b"5", b"3", b"1"])


@case
def full_queue_drops_its_head():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", exclusive=True,
                                     arguments={"x-max-length": 2}).method.queue
        for body in (b"1", b"2", b"3"):
            channel.basic_publish("", name, body)
        equal([b for _, _, b in take(channel, name, 2)], [b"2", b"3"])


@case
def prefetch_bounds_what_is_sent():
    with connect() as connection:
        channel, other = connection.channel(), connection.channel()
        name = channel.queue_declare("", auto_delete=True).method.queue
        for number in range(5):
            other.basic_publish("", name, b"%d" % number)
        channel.basic_qos(prefetch_count=2)
        got = []
        channel.basic_consume(name, lambda c, method, p, body: got.append((method, body)))
        while len(got) < 2:
            connection.process_data_events(time_limit=1)
        equal(other.queue_declare(name, passive=True).method.message_count, 3, "not sent")
        channel.basic_ack(got[0][0].delivery_tag)
        while len(got) < 3:
            connection.process_data_events(time_limit=1)
        equal([body for _, body in got], [b"0", b"1", b"2"])


@case
def secret_can_be_updated():
    with connect() as connection:
        connection.update_secret("guest", "rotation")
        connection.channel().queue_declare("", exclusive=True)


@case
def asynchronous_connection_gets_confirms():
    wanted, state = 200, {"acked": 0, "error": None}
    parameters = pika.ConnectionParameters(AMQP_HOST, AMQP_PORT)

    def on_confirm(frame):
        method = frame.method
        assert isinstance(method, pika.spec.Basic.Ack), method
        state["acked"] = max(state["acked"], method.delivery_tag)
        if state["acked"] == wanted:
            connection.close()

    def on_declared(frame):
        for number in range(wanted):
            channel.basic_publish("", frame.method.queue, b"%d" % number,
                                  pika.BasicProperties(delivery_mode=2))

    def on_channel(opened):
        nonlocal channel
        channel = opened
        channel.confirm_delivery(on_confirm)
        channel.queue_declare("", exclusive=True, callback=on_declared)

    channel = None
    connection = pika.SelectConnection(
        parameters,
        on_open_callback=lambda c: c.channel(on_open_callback=on_channel),
        on_open_error_callback=lambda c, error: state.update(error=error) or c.ioloop.stop(),
        on_close_callback=lambda c, reason: c.ioloop.stop(),
    )
    connection.ioloop.start()
    equal((state["acked"], state["error"]), (wanted, None))


@case
def many_connections_from_threads():
    errors = []

    def worker(number):
        try:
            with connect() as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                name = channel.queue_declare("", exclusive=True).method.queue
                for _ in range(20):
                    channel.basic_publish("", name, b"x")
                within(len(take(channel, name, 20, auto_ack=True)), 20, 20)
        except Exception as error:
            errors.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(errors, [])


main()
