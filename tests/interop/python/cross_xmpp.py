"""slixmpp beside pika and paho-mqtt: one set of queues and topics."""

import asyncio
import base64

import pika
from cases import case, equal, main
from paho_client import Client as Mqtt
from pika_client import connect, take
from xmpp_client import DOMAIN, Client, child

QUEUES, TOPICS, ROOMS = (f"{name}.{DOMAIN}" for name in ("queues", "topics", "rooms"))
DATA, PROPERTIES = "urn:polymq:data:1", "urn:polymq:properties:1"


async def blocking(function, *arguments):
    return await asyncio.get_event_loop().run_in_executor(None, function, *arguments)


@case
async def chat_to_amqp_and_back():
    async with Client() as client:
        with connect() as connection:
            channel = connection.channel()
            channel.queue_declare("from-xmpp", durable=True)
            client.say(f"from-xmpp@{QUEUES}", "hi", thread="t")
            await client.plugin["xep_0199"].ping(DOMAIN)
            method, found, body = take(channel, "from-xmpp", 1, auto_ack=True)[0]
            equal((body, found.content_type, found.correlation_id, found.delivery_mode),
                  (b"hi", "text/plain;charset=utf-8", "t", 2))
            equal(found.reply_to, f"amq.address:/jids/guest%40{DOMAIN}%2Ftest")
            channel.basic_publish("", found.reply_to, b"answer", pika.BasicProperties(
                content_type="text/plain", correlation_id="t"))
            answer = await client.message()
            equal((answer["body"], answer["thread"]), ("answer", "t"))
            channel.queue_delete("from-xmpp")


@case
async def amqp_to_a_mailbox_waits():
    with connect() as connection:
        connection.channel().basic_publish(
            "", f"xmpp-mailbox-admin@{DOMAIN}", b"stored",
            pika.BasicProperties(content_type="text/plain", delivery_mode=2))
    async with Client("admin") as admin:
        message = await admin.message()
        equal((message["body"], message["from"].full), ("stored", DOMAIN))
        child(message, "urn:xmpp:delay", "delay")


@case
async def binary_reaches_xmpp_as_data():
    async with Client() as client:
        with connect() as connection:
            channel = connection.channel()
            channel.queue_declare("bytes")
            client.send_xml(f"<presence to='bytes@{QUEUES}'>"
                            "<consume xmlns='urn:polymq:queue:1'/></presence>")
            channel.basic_publish("", "bytes", b"\x00\xff", pika.BasicProperties(
                priority=7, headers={"colour": "red", "size": 5}))
            message = await client.message()
            data = child(message, DATA, "data")
            equal((data.get("encoding"), base64.b64decode(data.text)), ("base64", b"\x00\xff"))
            entries = {(p.get("f") or p.get("n")): (p.get("t"), p.text)
                       for p in child(message, PROPERTIES, "properties")}
            equal((entries["priority"], entries["colour"], entries["size"]),
                  (("u8", "7"), (None, "red"), ("i32", "5")))
            channel.queue_delete("bytes")


@case
async def mqtt_and_pubsub_share_topics():
    async with Client() as client:
        pubsub = client.plugin["xep_0060"]
        await pubsub.subscribe(TOPICS, "home.#", subscribee=client.boundjid.full)
        with Mqtt() as device:
            await blocking(device.subscribe, "home/lamp", 1)
            await blocking(device.publish, "home/heat", b"21")
            event = await client.message()
            items = event["pubsub_event"]["items"]
            equal(items["node"], "home.heat")
            data = items["item"].xml.find(f"{{{DATA}}}data")
            equal(base64.b64decode(data.text), b"21")
            from xml.etree import ElementTree
            lamp = ElementTree.Element("{urn:xmpp:json:0}json")
            lamp.text = '{"on":true}'
            await pubsub.publish(TOPICS, "home.lamp", payload=lamp)
            message = await blocking(device.receive)
            equal((message.topic, message.payload, message.qos),
                  ("home/lamp", b'{"on":true}', 1))
            equal(message.properties.ContentType, "application/json")


@case
async def room_is_a_topic():
    async with Client() as client:
        await client.plugin["xep_0045"].join_muc_wait(f"ops@{ROOMS}", "me", timeout=30)
        with Mqtt() as device:
            await blocking(device.subscribe, "rooms/ops", 0)
            await blocking(device.publish, "rooms/ops", "over mqtt")
            message = await client.message(lambda m: m["from"].resource == "mqtt5")
            equal(message["type"], "groupchat")
            client.say(f"ops@{ROOMS}", "over xmpp", kind="groupchat")
            while (found := await blocking(device.receive)).payload != b"over xmpp":
                pass
            equal(found.topic, "rooms/ops")


if __name__ == "__main__":
    main()
