"""aiomqtt: asyncio style over MQTT 3.1.1 and 5."""

import asyncio

import aiomqtt
from aiomqtt import Client, MqttError, ProtocolVersion, Will
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cases import MQTT_HOST, MQTT_PORT, PASS, USER, case, ctl, equal, main

LIMIT = 30


def client(identifier=None, version=ProtocolVersion.V5, password=PASS, **more):
    return Client(MQTT_HOST, MQTT_PORT, username=USER, password=password, identifier=identifier,
                  protocol=version, **more)


def lasting(identifier, version):
    if version == ProtocolVersion.V5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 300
        return client(identifier, version, clean_start=False, properties=properties)
    return client(identifier, version, clean_session=False)


async def take(connected, count):
    found = []
    async with asyncio.timeout(LIMIT):
        async for message in connected.messages:
            found.append(message)
            if len(found) == count:
                return found


VERSIONS = (ProtocolVersion.V311, ProtocolVersion.V5)


@case
async def publish_and_subscribe():
    for version in VERSIONS:
        async with client(version=version) as subscriber, client(version=version) as publisher:
            await subscriber.subscribe("aio/#", qos=2)
            for number in range(30):
                await publisher.publish("aio/x", f"{number}", qos=number % 3)
            found = await take(subscriber, 30)
            equal(sorted(int(m.payload) for m in found), list(range(30)))


@case
async def many_publishes_at_once():
    async with client() as subscriber, client(max_queued_outgoing_messages=0) as publisher:
        await subscriber.subscribe("burst", qos=1)
        await asyncio.gather(*(publisher.publish("burst", b"x", qos=1) for _ in range(200)))
        equal(len(await take(subscriber, 200)), 200)


@case
async def retained_and_will():
    async with client() as watcher:
        await watcher.publish("aio-r/state", b"on", qos=1, retain=True)
        await watcher.subscribe("aio-r/#", qos=1)
        message = (await take(watcher, 1))[0]
        equal((message.payload, message.retain), (b"on", True))
        mortal = client("aio-mortal", will=Will("aio-r/will", b"gone", qos=1))
        await mortal.__aenter__()
        mortal._client.socket().shutdown(2)
        equal(str((await take(watcher, 1))[0].topic), "aio-r/will")
        await watcher.publish("aio-r/state", b"", qos=1, retain=True)
        try:
            await mortal.__aexit__(None, None, None)
        except MqttError:
            pass


@case
async def wrong_password_is_refused():
    for version in VERSIONS:
        try:
            async with client(version=version, password="wrong"):
                raise AssertionError("accepted")
        except aiomqtt.MqttError:
            pass


@case
async def session_and_reconnect():
    for version in VERSIONS:
        name = f"aio-session-{version.name}"
        try:
            async with lasting(name, version) as connected:
                await connected.subscribe(f"{name}/#", qos=1)
                await asyncio.to_thread(ctl, "cut")
                async with asyncio.timeout(LIMIT):
                    async for _ in connected.messages:
                        raise AssertionError("a message from nowhere")
                raise AssertionError("the loss was not noticed")
        except MqttError:
            pass
        async with client() as publisher:
            await publisher.publish(f"{name}/x", b"missed", qos=1)
        async with lasting(name, version) as again:
            equal((await take(again, 1))[0].payload, b"missed")


@case
async def properties_and_shared_subscription():
    async with client() as first, client() as second, client() as publisher:
        for member in (first, second):
            await member.subscribe("$share/aio/jobs", qos=1)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("k", "1"), ("k", "2")]
        properties.ResponseTopic = "r"
        for _ in range(20):
            await publisher.publish("jobs", b"x", qos=1, properties=properties)
        found = []

        async def collect(member):
            async for message in member.messages:
                found.append(message)
                if len(found) == 20:
                    enough.set()

        enough = asyncio.Event()
        collectors = [asyncio.create_task(collect(m)) for m in (first, second)]
        await asyncio.wait_for(enough.wait(), LIMIT)
        for collector in collectors:
            collector.cancel()
        equal(found[0].properties.UserProperty, [("k", "1"), ("k", "2")])
        equal(found[0].properties.ResponseTopic, "r")


main()
