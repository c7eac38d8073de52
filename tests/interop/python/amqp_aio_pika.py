"""aio-pika: robust connections, RPC pattern, transactions."""

import asyncio

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import (
    AMQPConnectionError, ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed,
    DeliveryError, ProbableAuthenticationError,
)
from aio_pika.patterns import RPC
from cases import AMQP_URL, case, ctl, equal, main

LIMIT = 30


async def plain():
    return await aio_pika.connect(AMQP_URL)


async def robust():
    return await aio_pika.connect_robust(AMQP_URL, reconnect_interval=0.1)


async def take(queue, count):
    bodies = []
    async with queue.iterator(timeout=LIMIT) as messages:
        async for message in messages:
            async with message.process():
                bodies.append(message.body)
            if len(bodies) == count:
                return bodies


@case
async def publish_consume_and_confirm():
    async with await plain() as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue("aio", durable=True)
        await asyncio.gather(*(
            channel.default_exchange.publish(
                Message(b"%d" % n, delivery_mode=DeliveryMode.PERSISTENT), routing_key="aio")
            for n in range(100)
        ))
        found = await take(queue, 100)
        equal(sorted(map(int, found)), list(range(100)))
        await queue.delete()


@case
async def header_types_come_back():
    headers = {"real": 1.5, "text": "é", "number": 3, "yes": True, "none": None,
               "list": [1, "a", {"b": 2.25}], "big": 2**40}
    async with await plain() as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(
            Message(b"x", headers=headers, content_type="text/plain", priority=3,
                    correlation_id="c", message_id="m", expiration=30, type="t", app_id="a"),
            routing_key=queue.name)
        message = await queue.get(timeout=LIMIT)
        equal(dict(message.headers), headers)
        equal((message.content_type, message.priority, message.correlation_id,
               message.message_id, message.expiration, message.type, message.app_id),
              ("text/plain", 3, "c", "m", 30, "t", "a"))
        await message.ack()


@case
async def unroutable_message_is_returned():
    async with await plain() as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        try:
            await channel.default_exchange.publish(Message(b"x"), routing_key="nobody")
        except DeliveryError as error:
            equal(error.message.delivery.reply_code, 312)
        else:
            raise AssertionError("not returned")


@case
async def channel_errors_leave_the_connection():
    async with await plain() as connection:
        channel = await connection.channel()
        try:
            await channel.declare_queue("missing", passive=True)
            raise AssertionError("found")
        except ChannelNotFoundEntity:
            pass
        channel = await connection.channel()
        queue = await channel.declare_queue("aio-fixed", auto_delete=True)
        try:
            await channel.declare_queue("aio-fixed", durable=True)
            raise AssertionError("accepted")
        except ChannelPreconditionFailed:
            pass
        channel = await connection.channel()
        try:
            await channel.declare_queue("amq.reserved")
            raise AssertionError("accepted")
        except ChannelClosed as closed:
            assert "ACCESS_REFUSED" in str(closed), closed
        channel = await connection.channel()
        await channel.queue_delete(queue.name)


@case
async def wrong_password_is_refused():
    try:
        await aio_pika.connect(AMQP_URL.replace("guest:guest", "guest:wrong"))
    except ProbableAuthenticationError as error:
        assert "ACCESS_REFUSED" in str(error), error
    else:
        raise AssertionError("accepted")


@case
async def topic_exchange_and_reject():
    async with await plain() as connection:
        channel = await connection.channel()
        dead = await channel.declare_queue(exclusive=True)
        exchange = await channel.declare_exchange("aio-topic", ExchangeType.TOPIC,
                                                  auto_delete=True)
        queue = await channel.declare_queue(exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
        await queue.bind(exchange, "orders.*.new")
        await exchange.publish(Message(b"yes"), routing_key="orders.eu.new")
        message = await queue.get(timeout=LIMIT)
        equal(message.routing_key, "orders.eu.new")
        await message.reject(requeue=False)
        equal(await take(dead, 1), [b"yes"])


@case
async def transaction_commits():
    async with await plain() as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True)
        transaction = channel.transaction()
        await transaction.select()
        await channel.default_exchange.publish(Message(b"no"), routing_key=queue.name)
        await transaction.rollback()
        await channel.default_exchange.publish(Message(b"yes"), routing_key=queue.name)
        await transaction.commit()
        equal(await take(queue, 1), [b"yes"])


@case
async def remote_procedure_calls():
    async with await plain() as connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)

        async def add(*, a, b):
            return a + b

        await rpc.register("add", add, auto_delete=True)
        found = await asyncio.gather(*(rpc.call("add", dict(a=n, b=1)) for n in range(10)))
        equal(found, list(range(1, 11)))
        await rpc.close()


async def survive(order):
    """A robust consumer and a robust publisher go on after the broker was away."""
    consumer_side, publisher_side = await robust(), await robust()
    async with consumer_side, publisher_side:
        channel = await consumer_side.channel()
        name = f"robust-{order}"
        queue = await channel.declare_queue(name, durable=True)
        got = asyncio.Queue()

        async def on_message(message):
            await got.put(message.body)
            await message.ack()

        await queue.consume(on_message)
        publisher = await publisher_side.channel(publisher_confirms=True)

        async def publish(body):
            message = Message(body, delivery_mode=DeliveryMode.PERSISTENT)
            for _ in range(200):
                try:
                    return await asyncio.wait_for(
                        publisher.default_exchange.publish(message, routing_key=name), LIMIT)
                except (AMQPConnectionError, ChannelClosed, RuntimeError, asyncio.CancelledError):
                    await asyncio.sleep(0.05)
            raise AssertionError("could not publish after the reconnect")

        await publish(b"before")
        equal(await asyncio.wait_for(got.get(), LIMIT), b"before")
        lost, back = asyncio.Event(), asyncio.Event()
        consumer_side.close_callbacks.add(lambda *_: lost.set())
        consumer_side.reconnect_callbacks.add(lambda *_: back.set())
        await asyncio.to_thread(ctl, order)
        await asyncio.wait_for(back.wait(), 30)
        await publish(b"after")
        while await asyncio.wait_for(got.get(), 30) != b"after":
            pass
        await publisher.queue_delete(name)


@case
async def robust_connection_survives_a_cut():
    await survive("cut")


@case
async def robust_connection_survives_a_kill():
    await survive("kill")


main()
