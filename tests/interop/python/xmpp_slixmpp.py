"""slixmpp alone: logins, messages, roster and presence, queues, PubSub, rooms, resumption."""

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE

from cases import XMPP_CA, XMPP_HOST, XMPP_PORT, Skip, case, equal, main
from slixmpp.exceptions import IqError
from xmpp_client import DOMAIN, Client, child

QUEUES, TOPICS, ROOMS = (f"{name}.{DOMAIN}" for name in ("queues", "topics", "rooms"))
QUEUE_NS = "urn:polymq:queue:1"


@case
async def every_mechanism_logs_in():
    for mechanism in ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"):
        async with Client(mechanism=mechanism) as client:
            equal(client.boundjid.full, f"guest@{DOMAIN}/test", mechanism)


@case
async def wrong_password_is_refused():
    client = Client(password="wrong")
    try:
        async with client:
            raise AssertionError("a wrong password is taken")
    except AssertionError as error:
        equal(str(error), "the login failed")
    finally:
        client.abort()


@case
async def server_answers_ping_and_discovery():
    async with Client() as client:
        await client.plugin["xep_0199"].ping(DOMAIN)
        info = await client.plugin["xep_0030"].get_info(jid=DOMAIN)
        assert ("server", "im", None, "PolyMQ") in info["disco_info"]["identities"], info
        items = await client.plugin["xep_0030"].get_items(jid=DOMAIN)
        found = {jid for jid, _, _ in items["disco_items"]["items"]}
        equal(found, {QUEUES, TOPICS, ROOMS})
        for service, kind in ((QUEUES, "generic"), (TOPICS, "service"), (ROOMS, "text")):
            info = await client.plugin["xep_0030"].get_info(jid=service)
            assert any(i[1] == kind for i in info["disco_info"]["identities"]), info


@case
async def chat_reaches_its_user():
    async with Client() as guest, Client("admin") as admin:
        guest.say(f"admin@{DOMAIN}", "hello <&> 'you'", thread="t-1")
        message = await admin.message()
        equal((message["from"].full, message["type"], message["body"], message["thread"]),
              (f"guest@{DOMAIN}/test", "chat", "hello <&> 'you'", "t-1"))
        admin.say(message["from"], "back")
        equal((await guest.message())["body"], "back")


@case
async def messages_wait_for_who_is_away():
    async with Client() as guest:
        for number in range(3):
            guest.say(f"admin@{DOMAIN}", f"later {number}")
        await guest.plugin["xep_0199"].ping(DOMAIN)
        guest.say(f"admin@{DOMAIN}", "news", kind="headline")
    async with Client("admin") as admin:
        for number in range(3):
            message = await admin.message()
            equal(message["body"], f"later {number}")
            assert message["delay"]["stamp"] is not None, message
        await admin.no_message()
    async with Client("admin") as admin:
        await admin.no_message()


@case
async def highest_priority_gets_the_message_and_others_a_copy():
    async with Client() as guest, Client("admin", "low") as low, Client("admin", "high") as high:
        await low.plugin["xep_0280"].enable()
        high.send_presence(ppriority=5)
        await high.presence(lambda p: p["priority"] == 5)
        guest.say(f"admin@{DOMAIN}", "one")
        equal((await high.message())["body"], "one")
        copy = await low.message()
        equal(copy["carbon_received"]["body"], "one")
        high.say(f"guest@{DOMAIN}", "two")
        copy = await low.message()
        equal(copy["carbon_sent"]["body"], "two")
        high.send_presence(ppriority=-1)
        await high.presence(lambda p: p["priority"] == -1)
        guest.say(f"admin@{DOMAIN}", "three")
        equal((await low.message())["body"], "three")


@case
async def unknown_user_and_foreign_server_are_told():
    async with Client() as guest:
        for to, condition in ((f"nobody@{DOMAIN}", "service-unavailable"),
                              ("somebody@example.org", "remote-server-not-found")):
            guest.say(to, "hello")
            message = await guest.message()
            equal((message["type"], message["error"]["condition"]), ("error", condition), to)


@case
async def subscription_shows_presence_both_ways():
    async with Client() as guest, Client("admin") as admin:
        guest.auto_authorize = guest.auto_subscribe = None
        admin.auto_authorize, admin.auto_subscribe = True, True
        guest.send_presence_subscription(f"admin@{DOMAIN}")
        await guest.presence(lambda p: p["type"] == "subscribed")
        await guest.presence(lambda p: p["from"].full == f"admin@{DOMAIN}/test")
        admin.send_presence(pshow="away")
        away = await guest.presence(lambda p: p["show"] == "away")
        equal(away["from"].full, f"admin@{DOMAIN}/test")
    async with Client() as guest:
        assert guest.client_roster[f"admin@{DOMAIN}"]["to"], guest.client_roster
        async with Client("admin"):
            await guest.presence(lambda p: p["from"].full == f"admin@{DOMAIN}/test")
        gone = await guest.presence(lambda p: p["type"] == "unavailable")
        equal(gone["from"].full, f"admin@{DOMAIN}/test")
        await guest.del_roster_item(f"admin@{DOMAIN}")
    async with Client() as guest:
        equal(guest.client_roster[f"admin@{DOMAIN}"]["subscription"], "none")


def consume(client, queue, **attributes):
    wanted = "".join(f" {name}='{value}'" for name, value in attributes.items())
    client.send_xml(f"<presence to='{queue}'><consume xmlns='{QUEUE_NS}'{wanted}/></presence>")


async def run(client, command, **fields):
    """Runs an ad-hoc command and returns the values of its result."""
    form = client.plugin["xep_0004"].make_form(ftype="submit")
    for name, value in fields.items():
        form.add_field(var=name.replace("_", "-"), value=value)
    answer = await client.plugin["xep_0050"].send_command(
        QUEUES, f"urn:polymq:command:{command}", payload=form.xml)
    return answer


@case
async def queue_is_declared_filled_and_consumed():
    async with Client() as client:
        await run(client, "declare", queue="orders")
        for number in range(20):
            client.say(f"orders@{QUEUES}", f"{number}", kind="normal")
        await client.plugin["xep_0199"].ping(DOMAIN)
        consume(client, f"orders@{QUEUES}", prefetch=5)
        for number in range(20):
            message = await client.message()
            equal((message["body"], message["from"].full), (f"{number}", f"orders@{QUEUES}"))
        items = await client.plugin["xep_0030"].get_items(jid=QUEUES)
        assert f"orders@{QUEUES}" in {jid for jid, _, _ in items["disco_items"]["items"]}, items
        await run(client, "delete", queue="orders")
        gone = await client.presence(lambda p: p["type"] == "unavailable")
        equal(gone["from"].full, f"orders@{QUEUES}")


@case
async def delivery_is_settled_by_receipt_and_error():
    async with Client() as client:
        await run(client, "declare", queue="jobs")
        for body in ("done", "again", "dropped"):
            client.say(f"jobs@{QUEUES}", body, kind="normal")
        consume(client, f"jobs@{QUEUES}", ack="individual", prefetch=1)
        first = await client.message()
        equal(first["body"], "done")
        receipt = "<received xmlns='urn:xmpp:receipts' id='{}'/>"
        client.send_xml(f"<message to='jobs@{QUEUES}'>{receipt.format(first['id'])}</message>")
        failed = "<error type='{}'><{} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        second = await client.message()
        client.send_xml(f"<message type='error' id='{second['id']}' to='jobs@{QUEUES}'>"
                        f"{failed.format('wait', 'resource-constraint')}</message>")
        again = await client.message()
        equal((second["body"], again["body"]), ("again", "again"))
        client.send_xml(f"<message to='jobs@{QUEUES}'>{receipt.format(again['id'])}</message>")
        third = await client.message()
        client.send_xml(f"<message type='error' id='{third['id']}' to='jobs@{QUEUES}'>"
                        f"{failed.format('cancel', 'not-acceptable')}</message>")
        equal(third["body"], "dropped")
        await client.no_message()
        await run(client, "delete", queue="jobs")


@case
async def missing_queue_is_not_found():
    async with Client() as client:
        sent = client.say(f"missing@{QUEUES}", "x", kind="normal")
        message = await client.message()
        equal((message["id"], message["error"]["condition"]), (sent["id"], "item-not-found"))
        consume(client, f"missing@{QUEUES}")
        refused = await client.presence(lambda p: p["type"] == "error")
        equal(refused["error"]["condition"], "item-not-found")


@case
async def upper_case_queue_has_an_address():
    async with Client() as client:
        await run(client, "declare", queue="Orders")
        client.say(f"{QUEUES}/Orders", "x", kind="normal")
        consume(client, f"{QUEUES}/Orders")
        equal((await client.message())["from"].full, f"{QUEUES}/Orders")
        await run(client, "delete", queue="Orders")


def payload(text):
    from xml.etree import ElementTree
    entry = ElementTree.Element("{http://www.w3.org/2005/Atom}entry")
    entry.text = text
    return entry


@case
async def pubsub_nodes_are_topics():
    async with Client() as client, Client("admin") as other:
        pubsub, publish = client.plugin["xep_0060"], other.plugin["xep_0060"]
        await pubsub.subscribe(TOPICS, "weather.*", subscribee=client.boundjid.full)
        answer = await publish.publish(TOPICS, "weather.rome", id="i-1", payload=payload("sun"))
        equal(answer["pubsub"]["publish"]["item"]["id"], "i-1")
        event = await client.message()
        items = event["pubsub_event"]["items"]
        equal((event["from"].full, items["node"], items["item"]["id"]),
              (TOPICS, "weather.rome", "i-1"))
        equal(items["item"]["payload"].text, "sun")
        await pubsub.unsubscribe(TOPICS, "weather.*", subscribee=client.boundjid.full)
        await publish.publish(TOPICS, "weather.rome", payload=payload("rain"))
        await client.no_message()


@case
async def bare_subscription_survives_absence():
    async with Client() as client:
        await client.plugin["xep_0060"].subscribe(TOPICS, "kept.x")
        found = await client.plugin["xep_0060"].get_subscriptions(TOPICS)
        assert "kept.x" in str(found), found
    async with Client("admin") as other:
        await other.plugin["xep_0060"].publish(TOPICS, "kept.x", payload=payload("while away"))
    async with Client() as client:
        event = await client.message()
        equal(event["pubsub_event"]["items"]["item"]["payload"].text, "while away")
        await client.plugin["xep_0060"].unsubscribe(TOPICS, "kept.x")


@case
async def persistent_item_is_the_last_value():
    async with Client() as client:
        pubsub = client.plugin["xep_0060"]
        options = client.plugin["xep_0004"].make_form(ftype="submit")
        options.add_field(var="FORM_TYPE", ftype="hidden",
                          value="http://jabber.org/protocol/pubsub#publish-options")
        options.add_field(var="pubsub#persist_items", value="true")
        options.add_field(var="pubsub#max_items", value="1")
        for text in ("old", "new"):
            await pubsub.publish(TOPICS, "last.x", id=text, payload=payload(text), options=options)
        await pubsub.subscribe(TOPICS, "last.#", subscribee=client.boundjid.full)
        event = await client.message()
        equal(event["pubsub_event"]["items"]["item"]["payload"].text, "new")
        found = await pubsub.get_items(TOPICS, "last.x")
        equal([item["id"] for item in found["pubsub"]["items"]], ["new"])
        await pubsub.retract(TOPICS, "last.x", "new")
        found = await pubsub.get_items(TOPICS, "last.x")
        equal([item["id"] for item in found["pubsub"]["items"]], [])


@case
async def room_shows_who_is_there_and_what_is_said():
    async with Client() as guest, Client("admin") as admin:
        room = f"ops@{ROOMS}"
        await guest.plugin["xep_0045"].join_muc_wait(room, "g", timeout=30)
        await admin.plugin["xep_0045"].join_muc_wait(room, "a", timeout=30)
        entered = await guest.presence(lambda p: p["from"].full == f"{room}/a")
        equal(entered["type"], "available")
        guest.say(room, "hello all", kind="groupchat")
        for client in (guest, admin):
            message = await client.message(lambda m: m["body"])
            equal((message["from"].full, message["type"], message["body"]),
                  (f"{room}/g", "groupchat", "hello all"))
        admin.say(f"{room}/g", "psst")
        message = await guest.message(lambda m: m["body"])
        equal((message["from"].full, message["body"]), (f"{room}/a", "psst"))
        admin.plugin["xep_0045"].leave_muc(room, "a")
        left = await guest.presence(lambda p: p["type"] == "unavailable")
        equal(left["from"].full, f"{room}/a")
        admin.say(room, "from outside", kind="groupchat")
        refused = await admin.message(lambda m: m["type"] == "error")
        equal(refused["error"]["condition"], "not-acceptable")


@case
async def stream_is_resumed_and_nothing_is_lost():
    async with Client() as guest, Client("admin") as admin:
        resumed = asyncio.get_event_loop().create_future()
        guest.add_event_handler("session_resumed", lambda _: resumed.set_result(True))
        admin.say(f"guest@{DOMAIN}", "before")
        equal((await guest.message())["body"], "before")
        guest.abort()
        await asyncio.sleep(0.1)
        async with Client("admin", "second") as second:
            second.say(f"guest@{DOMAIN}/test", "while away")
            second.say(f"guest@{DOMAIN}", "also")
            await second.plugin["xep_0199"].ping(DOMAIN)
        guest.connect(XMPP_HOST, XMPP_PORT)
        await asyncio.wait_for(resumed, 30)
        equal({(await guest.message())["body"] for _ in range(2)}, {"while away", "also"})


@case
async def commands_manage_queues():
    async with Client() as client:
        await run(client, "declare", queue="managed", arguments="x-max-length=1")
        client.say(f"managed@{QUEUES}", "one", kind="normal")
        client.say(f"managed@{QUEUES}", "two", kind="normal")
        answer = await run(client, "purge", queue="managed")
        assert ">1<" in str(answer), answer
        answer = await run(client, "list")
        assert "managed" in str(answer), answer
        await run(client, "pause", queue="managed")
        client.say(f"managed@{QUEUES}", "three", kind="normal")
        consume(client, f"managed@{QUEUES}")
        await client.no_message()
        await run(client, "resume", queue="managed")
        equal((await client.message())["body"], "three")
        try:
            await run(client, "declare", queue="managed", durable="false")
            raise AssertionError("another queue of the same name is declared")
        except IqError as error:
            equal(error.condition, "conflict")
        await run(client, "delete", queue="managed")


@case
async def go_sendxmpp_of_debian_sends_and_listens():
    program = shutil.which("go-sendxmpp")
    if program is None:
        raise Skip("Debian's package go-sendxmpp is not installed")

    async def start(user, *arguments):
        return await asyncio.create_subprocess_exec(
            program, "-u", f"{user}@{DOMAIN}", "-p", user, "-j", f"{XMPP_HOST}:{XMPP_PORT}",
            *arguments, stdin=PIPE, stdout=PIPE, env={**os.environ, "SSL_CERT_FILE": XMPP_CA})

    async with Client("admin") as admin:
        sender = await start("guest", f"admin@{DOMAIN}")
        await asyncio.wait_for(sender.communicate(b"from the shell\n"), 10)
        equal((await admin.message())["body"].strip(), "from the shell")
        listener = await start("guest", "-l")
        try:
            admin.say(f"guest@{DOMAIN}", "to the shell")
            line = await asyncio.wait_for(listener.stdout.readline(), 10)
            assert b"to the shell" in line, line
        finally:
            listener.kill()
            await listener.wait()


if __name__ == "__main__":
    main()
