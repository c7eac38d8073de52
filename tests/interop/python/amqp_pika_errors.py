"""pika: refusals with their codes, lost connections, killed and restarted brokers."""

import pika
from cases import case, ctl, equal, eventually, main
from pika import exceptions
from pika_client import acked, connect, expect_close, take


@case
def unroutable_mandatory_message_is_returned_and_confirmed():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            channel.basic_publish("", "no such queue", b"lost?", mandatory=True)
        except exceptions.UnroutableError as error:
            equal(error.messages[0].method.reply_code, 312, "reply code")
            equal(error.messages[0].method.reply_text, "NO_ROUTE", "reply text")
            equal(error.messages[0].body, b"lost?", "body")
        else:
            raise AssertionError("not returned")
        channel.basic_publish("", "no such queue", b"not mandatory")


@case
def full_queue_with_reject_publish_nacks():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        name = channel.queue_declare(
            "", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        ).method.queue
        channel.basic_publish("", name, b"fits")
        try:
            channel.basic_publish("", name, b"too much")
        except exceptions.NackError:
            return
        raise AssertionError("not refused")


@case
def missing_things_are_404():
    with connect() as connection:
        expect_close(connection, 404, lambda c: c.queue_declare("missing", passive=True))
        expect_close(connection, 404, lambda c: c.exchange_declare("missing", passive=True))
        expect_close(connection, 404, lambda c: c.basic_consume("missing", print))
        expect_close(connection, 404, lambda c: c.queue_bind("missing", "amq.direct", "k"))
        expect_close(connection, 404, lambda c: c.basic_get("missing"))

        def publish(channel):
            channel.confirm_delivery()
            channel.basic_publish("missing", "k", b"x")

        expect_close(connection, 404, publish)


@case
def contradictions_are_406():
    with connect() as connection:
        keeper = connection.channel()
        keeper.queue_declare("fixed", durable=True)
        expect_close(connection, 406, lambda c: c.queue_declare("fixed", durable=False))
        expect_close(connection, 406, lambda c: c.queue_declare(
            "fixed", durable=True, arguments={"x-message-ttl": 1000}))
        expect_close(connection, 406, lambda c: c.queue_declare(
            "bad", arguments={"x-message-ttl": -1}))
        expect_close(connection, 406, lambda c: c.exchange_declare("amq.topic", "direct",
                                                                   durable=True))
        keeper.basic_publish("", "fixed", b"x")
        eventually(lambda: keeper.queue_declare("fixed", passive=True).method.message_count,
                   "the message arrives")
        expect_close(connection, 406, lambda c: c.queue_delete("fixed", if_empty=True))

        def unknown_tag(channel):
            channel.basic_ack(99)
            channel.queue_declare("", exclusive=True)

        expect_close(connection, 406, unknown_tag)

        def confirm_in_transaction(channel):
            channel.tx_select()
            channel.confirm_delivery()

        expect_close(connection, 406, confirm_in_transaction)
        keeper.queue_delete("fixed")


@case
def reserved_names_and_exclusive_consumers_are_403():
    with connect() as connection:
        expect_close(connection, 403, lambda c: c.queue_declare("amq.mine"))
        expect_close(connection, 403, lambda c: c.exchange_declare("amq.mine", "direct"))
        expect_close(connection, 403, lambda c: c.queue_bind("x", "", "x"))
        keeper = connection.channel()
        name = keeper.queue_declare("", auto_delete=True).method.queue
        keeper.basic_consume(name, print, exclusive=True)
        expect_close(connection, 403, lambda c: c.basic_consume(name, print))


@case
def exclusive_queue_is_405_for_others_and_ends_with_its_connection():
    with connect() as connection:
        with connect() as owner:
            owner.channel().queue_declare("mine", exclusive=True)
            expect_close(connection, 405, lambda c: c.queue_declare("mine", passive=True))
            expect_close(connection, 405, lambda c: c.basic_get("mine"))
        channel = connection.channel()
        channel.queue_declare("mine", exclusive=True)


@case
def prefetch_in_bytes_is_540():
    connection = connect()
    try:
        connection.channel().basic_qos(prefetch_size=1000)
    except exceptions.ConnectionClosedByBroker as closed:
        equal(closed.reply_code, 540, "reply code")
    else:
        raise AssertionError("accepted")


@case
def wrong_password_and_unknown_vhost_are_refused():
    wrong = pika.PlainCredentials("guest", "wrong")
    try:
        connect(credentials=wrong)
    except exceptions.ProbableAuthenticationError as error:
        assert "403" in str(error), error
    else:
        raise AssertionError("the wrong password was accepted")
    try:
        connect(virtual_host="nowhere")
    except (exceptions.ConnectionClosedByBroker, exceptions.ProbableAccessDeniedError) as error:
        assert "530" in str(error), error
    else:
        raise AssertionError("the unknown vhost was accepted")


@case
def consumer_hears_that_its_queue_is_gone():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", auto_delete=True).method.queue
        cancelled = []
        channel.add_on_cancel_callback(cancelled.append)
        tag = channel.basic_consume(name, print)
        connection.channel().queue_delete(name)
        while not cancelled:
            connection.process_data_events(time_limit=1)
        equal(cancelled[0].method.consumer_tag, tag)


@case
def auto_delete_queue_ends_with_its_last_consumer():
    with connect() as connection:
        channel = connection.channel()
        name = channel.queue_declare("", auto_delete=True).method.queue
        assert name.startswith("amq.gen-"), name
        channel.basic_cancel(channel.basic_consume(name, print))
        expect_close(connection, 404, lambda c: c.queue_declare(name, passive=True))


@case
def heartbeats_keep_an_idle_connection():
    with connect(heartbeat=1) as connection:
        # Longer than two intervals: either side would have given up without heartbeats.
        connection.process_data_events(time_limit=3.2)
        channel = connection.channel()
        channel.queue_declare("", exclusive=True)


@case
def cut_connection_returns_its_deliveries():
    connection = connect()
    channel = connection.channel()
    channel.queue_declare("returning", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "returning", b"in flight", pika.BasicProperties(delivery_mode=2))
    equal(take(channel, "returning", 1)[0][2], b"in flight")
    ctl("cut")
    try:
        connection.process_data_events(time_limit=5)
    except exceptions.AMQPError:
        pass
    with connect() as again:
        channel = again.channel()
        method, _, body = take(channel, "returning", 1)[0]
        equal((body, method.redelivered), (b"in flight", True))
        channel.basic_ack(method.delivery_tag)
        channel.queue_delete("returning")


@case
def killed_broker_keeps_what_it_confirmed():
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare("kept", "topic", durable=True)
    channel.queue_declare("kept", durable=True)
    channel.queue_bind("kept", "kept", "a.#")
    channel.queue_declare("gone", durable=False, auto_delete=True)
    channel.confirm_delivery()
    for number in range(100):
        channel.basic_publish("kept", "a.b", b"%d" % number, pika.BasicProperties(
            delivery_mode=2, headers={"number": number}), mandatory=True)
    channel.basic_publish("kept", "a.b", b"transient", pika.BasicProperties(delivery_mode=1))
    ctl("kill")
    try:
        connection.process_data_events(time_limit=5)
        raise AssertionError("the connection outlived the broker")
    except exceptions.AMQPError:
        pass
    with connect() as again:
        channel = again.channel()
        channel.exchange_declare("kept", passive=True)
        for number, (method, properties, body) in enumerate(acked(channel, "kept", 100)):
            equal((body, properties.headers), (b"%d" % number, {"number": number}))
            equal(method.routing_key, "a.b")
        equal(channel.basic_get("kept"), (None, None, None), "the transient message")
        expect_close(again, 404, lambda c: c.queue_declare("gone", passive=True))


@case
def clean_restart_forgets_acknowledged_messages():
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare("ledger", durable=True)
        channel.confirm_delivery()
        for number in range(10):
            channel.basic_publish("", "ledger", b"%d" % number,
                                  pika.BasicProperties(delivery_mode=2))
        for _ in acked(channel, "ledger", 4):
            pass
        channel.queue_declare("ledger", passive=True)
    ctl("restart")
    with connect() as connection:
        channel = connection.channel()
        bodies = [body for _, _, body in acked(channel, "ledger", 6)]
        equal(bodies, [b"%d" % number for number in range(4, 10)])
        equal(channel.basic_get("ledger"), (None, None, None), "left over")


main()
