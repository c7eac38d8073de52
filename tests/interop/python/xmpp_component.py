"""Users of a Prosody that PolyMQ has joined as its component: slixmpp there, pika here."""

import asyncio
import os

import pika
from cases import case, equal, eventually, main
from pika_client import connect, take
from slixmpp.exceptions import IqError, IqTimeout
from xmpp_client import Client, child

DOMAIN = "example.test"
MQ = f"mq.{DOMAIN}"


def user(name):
    """A client of Prosody, not of ours."""
    client = Client(name, domain=DOMAIN, port=int(os.environ["PROSODY_PORT"]),
                    mechanism="PLAIN", plugins=("xep_0004", "xep_0030", "xep_0045", "xep_0050",
                                                "xep_0060", "xep_0199"))
    client.enable_starttls, client.enable_plaintext = False, True
    client.plugin["feature_mechanisms"].unencrypted_plain = True
    return client


async def joined(client):
    """Waits until the component answers: it joins when both servers are up."""
    for _ in range(100):
        try:
            return await client.plugin["xep_0199"].ping(MQ, timeout=1)
        except (IqError, IqTimeout):
            await asyncio.sleep(0.1)
    raise AssertionError("the component has not joined")


@case
async def component_answers_ping_and_discovery():
    async with user("alice") as alice:
        await joined(alice)
        info = await alice.plugin["xep_0030"].get_info(jid=MQ)
        assert any(i[3] == "PolyMQ" for i in info["disco_info"]["identities"]), info


@case
async def queue_of_another_server_is_filled_and_consumed():
    async with user("alice") as alice:
        await joined(alice)
        with connect() as connection:
            channel = connection.channel()
            channel.queue_declare("remote", durable=True)
            alice.say(f"q+remote@{MQ}", "from prosody", kind="normal")
            await alice.plugin["xep_0199"].ping(MQ)
            method, found, body = take(channel, "remote", 1, auto_ack=True)[0]
            equal((body, found.reply_to),
                  (b"from prosody", f"amq.address:/jids/alice%40{DOMAIN}%2Ftest"))
            channel.cancel()
            alice.send_xml(f"<presence to='q+remote@{MQ}'>"
                           "<consume xmlns='urn:polymq:queue:1'/></presence>")
            await alice.presence(lambda p: p["from"].bare == f"q+remote@{MQ}")
            channel.basic_publish("", "remote", b"to prosody", pika.BasicProperties(
                content_type="text/plain"))
            message = await alice.message()
            equal((message["body"], message["from"].bare), ("to prosody", f"q+remote@{MQ}"))
            alice.send_xml(f"<presence type='unavailable' to='q+remote@{MQ}'/>")
            channel.queue_delete("remote")


@case
async def room_and_topics_cross_the_servers():
    async with user("alice") as alice, user("bob") as bob:
        await joined(alice)
        for client, nick in ((alice, "a"), (bob, "b")):
            await client.plugin["xep_0045"].join_muc_wait(f"r+ops@{MQ}", nick, timeout=30)
        alice.say(f"r+ops@{MQ}", "hello", kind="groupchat")
        message = await bob.message(lambda m: m["body"])
        equal((message["from"].full, message["body"]), (f"r+ops@{MQ}/a", "hello"))
        await bob.plugin["xep_0060"].subscribe(MQ, "news.#", subscribee=bob.boundjid.full)
        with connect() as connection:
            connection.channel().basic_publish("amq.topic", "news.x", b"now", pika.BasicProperties(
                content_type="text/plain"))
        event = await bob.message(lambda m: m.xml.find(
            "{http://jabber.org/protocol/pubsub#event}event") is not None)
        items = event["pubsub_event"]["items"]
        equal((items["node"], items["item"].xml[0].text), ("news.x", "now"))


if __name__ == "__main__":
    main()
