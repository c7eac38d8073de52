"""paho-mqtt with MQTT 5: what the fifth version added."""

import queue
import time

from cases import case, equal, main, only_for, within
from mqtt_common import cases_for, lasting
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho_client import V311, V5, Client, properties

WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=0x04)

cases_for(V5, refused={0x86, 0x87})


@case
def message_properties_come_back_in_order():
    pairs = [("a", "1"), ("b", "é"), ("a", "3"), ("", "")]
    with Client() as client:
        client.subscribe("props", 2)
        client.publish(
            "props", "text", 2, UserProperty=pairs, ContentType="text/plain",
            ResponseTopic="answers/1", CorrelationData=b"\x00\xff", PayloadFormatIndicator=1,
            MessageExpiryInterval=100,
        )
        found = client.receive().properties
        equal(found.UserProperty, pairs, "user properties")
        equal((found.ContentType, found.ResponseTopic, found.CorrelationData,
               found.PayloadFormatIndicator),
              ("text/plain", "answers/1", b"\x00\xff", 1))
        within(found.MessageExpiryInterval, 60, 100, "remaining expiry")


@case
def request_and_response():
    with Client() as asker, Client() as answerer:
        answerer.subscribe("ask")
        asker.subscribe("answers/me")
        asker.publish("ask", b"2+2", ResponseTopic="answers/me", CorrelationData=b"7")
        request = answerer.receive()
        answerer.publish(request.properties.ResponseTopic, b"4",
                         CorrelationData=request.properties.CorrelationData)
        answer = asker.receive()
        equal((answer.payload, answer.properties.CorrelationData), (b"4", b"7"))


@case
def expired_message_is_not_delivered():
    lasting(V5, "slow").connect().subscribe("expiry", 1)
    sleeper = lasting(V5, "slow").connect()
    sleeper.subscribe("expiry", 1)
    sleeper.disconnect()
    with Client() as publisher:
        publisher.publish("expiry", b"short", 1, MessageExpiryInterval=1)
        publisher.publish("expiry", b"long", 1, MessageExpiryInterval=60)
    # Expiry is the passing of time; no event announces it.
    time.sleep(2.1)
    with lasting(V5, "slow") as again:
        message = again.receive()
        equal(message.payload, b"long")
        within(message.properties.MessageExpiryInterval, 20, 58, "remaining expiry")


@case
def shared_subscription_divides_the_messages():
    with Client() as first, Client() as second, Client() as plain, Client() as publisher:
        for member in (first, second):
            equal(member.subscribe("$share/group/jobs/#", 1), [1])
        plain.subscribe("jobs/#", 1)
        for number in range(40):
            publisher.publish(f"jobs/{number % 4}", b"%d" % number)
        everything = [int(p) for p in plain.payloads(40)]
        equal(everything, list(range(40)), "plain subscriber")
        shared, deadline = [], time.monotonic() + 30
        while len(shared) < 40 and time.monotonic() < deadline:
            for member in (first, second):
                try:
                    shared.append(int(member.messages.get(timeout=0.05).payload))
                except queue.Empty:
                    pass
        equal(sorted(shared), list(range(40)), "both members together")


@case
def shared_subscription_passes_to_who_is_left():
    with Client() as stays, Client() as publisher:
        leaves = Client().connect()
        for member in (stays, leaves):
            member.subscribe("$share/g2/left", 1)
        leaves.disconnect()
        for number in range(10):
            publisher.publish("left", b"%d" % number)
        equal(stays.payloads(10), [b"%d" % n for n in range(10)])


@case
def no_local_hides_own_messages():
    with Client() as client, Client() as other:
        client.subscribe("local", 1, noLocal=True)
        client.publish("local", b"own")
        other.publish("local", b"other")
        equal(client.receive().payload, b"other")


@case
def retain_handling_and_retain_as_published():
    with Client() as client, Client() as publisher:
        publisher.publish("rh/x", b"r", retain=True)
        client.subscribe("rh/x", 1, retainHandling=2)
        client.subscribe("rh/+", 1, retainHandling=1, retainAsPublished=True)
        equal(client.receive().payload, b"r", "sent for a new subscription")
        client.subscribe("rh/+", 1, retainHandling=1, retainAsPublished=True)
        client.unsubscribe("rh/x")
        publisher.publish("rh/x", b"live", retain=True)
        message = client.receive()
        equal((message.payload, message.retain), (b"live", True), "retain as published")
        publisher.publish("rh/x", b"", retain=True)


@case
def subscription_identifiers_are_shown():
    with Client() as client:
        client.subscribe("ids/a", 1, properties("SUBSCRIBE", SubscriptionIdentifier=7))
        client.subscribe("ids/+", 1, properties("SUBSCRIBE", SubscriptionIdentifier=268435455))
        client.publish("ids/b", b"x")
        equal(client.receive().properties.SubscriptionIdentifier, [268435455])
        client.publish("ids/a", b"x")
        found = list(client.receive().properties.SubscriptionIdentifier)
        if len(found) == 1:
            found += client.receive().properties.SubscriptionIdentifier
        equal(sorted(found), [7, 268435455])


@case
def broker_assigns_a_client_id():
    with Client() as client:
        assert client.connack[2].AssignedClientIdentifier


@case
def topic_alias_stands_for_the_topic():
    with Client() as client:
        within(client.connack[2].TopicAliasMaximum, 1, 65535, "topic alias maximum")
        client.subscribe("alias/long/topic")
        client.publish("alias/long/topic", b"first", TopicAlias=1)
        client.publish("", b"second", TopicAlias=1)
        found = [client.receive(), client.receive()]
        equal([(m.topic, m.payload) for m in found],
              [("alias/long/topic", b"first"), ("alias/long/topic", b"second")])


@case
def receive_maximum_of_the_client_is_kept():
    with Client("narrow", manual_ack=True, ReceiveMaximum=2) as client, Client() as publisher:
        client.subscribe("narrow", 1)
        client.subscribe("wide", 0)
        for number in range(4):
            publisher.publish("narrow", b"%d" % number)
        publisher.publish("wide", b"end", 0)
        first, second = client.receive(), client.receive()
        equal((first.payload, second.payload), (b"0", b"1"))
        # QoS 0 needs no place in the window; the two held back must not come before it.
        equal(client.receive().payload, b"end")
        client.ack(first)
        third = client.receive()
        equal(third.payload, b"2")
        for message in (second, third):
            client.ack(message)
        equal(client.receive().payload, b"3")


@case
def maximum_packet_size_of_the_client_is_kept():
    with Client("small", MaximumPacketSize=200) as client, Client() as publisher:
        client.subscribe("size", 1)
        publisher.publish("size", b"x" * 500)
        publisher.publish("size", b"fits")
        equal(client.receive().payload, b"fits")


@case
def reason_codes_tell_what_happened():
    with Client() as client:
        equal(client.publish("nobody/listens", b"", 1), 0x10, "no matching subscribers")
        equal(client.unsubscribe("never/subscribed"), [0x11], "no subscription existed")
        client.subscribe("now")
        equal(client.publish("now", b"", 1), 0, "success")
        equal(client.unsubscribe("now"), [0])


@case
def reason_codes_of_refusals():
    only_for("polymq")
    with Client() as client:
        equal(client.publish("$SYS/mine"), 0x90, "a topic of the server")
        equal(client.publish("$exchange/missing/k"), 0x10, "a missing exchange")
        equal(client.subscribe("$exchange/missing/#"), [0x8F], "a missing exchange")
        equal(client.subscribe("$queue/amq.mine"), [0x87], "a reserved name")
        equal(client.subscribe("$other/x"), [0x8F], "a topic of nobody")
        equal(client.publish("$queue/missing", b"x"), 0x10, "a missing queue")
        equal(client.subscribe("$queue/made-by-paho"), [1], "a queue is made")
        equal(client.publish("$queue/made-by-paho", b"x"), 0)
        equal(client.receive().payload, b"x")


@case
def expiry_counts_down_in_a_queue_and_rounds_up():
    only_for("polymq")
    with Client() as maker:
        maker.subscribe("$queue/paho-expiry")
    with Client() as publisher:
        publisher.publish("$queue/paho-expiry", b"short", MessageExpiryInterval=1)
        publisher.publish("$queue/paho-expiry", b"long", MessageExpiryInterval=60)
    # Expiry is the passing of time; no event announces it.
    time.sleep(1.5)
    with Client() as reader:
        reader.subscribe("$queue/paho-expiry")
        message = reader.receive()
        equal(message.payload, b"long")
        within(message.properties.MessageExpiryInterval, 20, 59, "remaining expiry")


@case
def a_share_is_a_queue_whose_messages_expire_and_wait():
    only_for("polymq")
    with Client() as member:
        member.subscribe("$share/paho/waits/#", 1)
    with Client() as publisher:
        publisher.publish("waits/a", b"expires", MessageExpiryInterval=1)
        publisher.publish("waits/b", b"stays")
    time.sleep(1.5)
    with Client() as again:
        again.subscribe("$share/paho/waits/#", 1)
        equal(again.receive().payload, b"stays")


@case
def a_delayed_publish_comes_in_its_time():
    only_for("polymq")
    with Client() as client:
        client.subscribe("later/#")
        sent = time.monotonic()
        equal(client.publish("$delayed/1/later/x", b"x", UserProperty=[("k", "v")]), 0)
        client.publish("later/y", b"at once")
        equal(client.receive().topic, "later/y")
        message = client.receive()
        within(time.monotonic() - sent, 0.9, 20, "delay")
        equal((message.topic, message.payload), ("later/x", b"x"))
        assert ("k", "v") in message.properties.UserProperty


def leave_and_be_missed(make, **more):
    """Disconnects with the will, whose arrival shows that the broker has read the DISCONNECT."""
    with Client() as watcher:
        watcher.subscribe("left")
        client = make(will={"topic": "left", "payload": b"x", "qos": 1}).connect()
        client.disconnect(reasoncode=WITH_WILL, **more)
        equal(watcher.receive().topic, "left")


@case
def session_expires_with_its_connection_by_default():
    leave_and_be_missed(lambda will: Client("brief", clean=False, will=will))
    with Client("brief", clean=False) as again:
        equal(again.session_present, False)


@case
def session_expiry_can_be_changed_at_disconnect():
    leave_and_be_missed(
        lambda will: lasting(V5, "changed", will=will),
        properties=properties("DISCONNECT", SessionExpiryInterval=0),
    )
    with lasting(V5, "changed") as again:
        equal(again.session_present, False)


@case
def will_has_properties_and_a_delay():
    will = {
        "topic": "wills/five", "payload": b"gone", "qos": 1,
        "properties": properties("WILLMESSAGE", WillDelayInterval=1, ContentType="text/plain",
                                 UserProperty=[("k", "v")]),
    }
    with Client() as watcher:
        watcher.subscribe("wills/#")
        mortal = lasting(V5, "five", will=will).connect()
        mortal.vanish()
        started = time.monotonic()
        with lasting(V5, "five", will=will) as again:
            again.publish("wills/back", b"in time")
            equal(watcher.receive().topic, "wills/back", "returning cancels the will")
            again.vanish()
            started = time.monotonic()
        message = watcher.receive()
        equal((message.topic, message.properties.ContentType, message.properties.UserProperty),
              ("wills/five", "text/plain", [("k", "v")]))
        within(time.monotonic() - started, 0.5, 20, "delay")


@case
def disconnect_with_will_publishes_it():
    with Client() as watcher:
        watcher.subscribe("wills/asked")
        client = Client("asks", will={"topic": "wills/asked", "payload": b"w", "qos": 1}).connect()
        client.disconnect(reasoncode=WITH_WILL)
        equal(watcher.receive().payload, b"w")


@case
def versions_talk_to_each_other():
    with Client("v5") as five, Client("v311", V311) as four:
        four.subscribe("mixed", 1)
        five.publish("mixed", b"to 3.1.1", UserProperty=[("k", "v")])
        equal(four.receive().payload, b"to 3.1.1")
        five.subscribe("mixed/back", 1)
        four.publish("mixed/back", b"to 5", 1)
        equal(five.receive().payload, b"to 5")


@case
def retained_message_keeps_its_properties_and_expiry():
    with Client() as publisher:
        publisher.publish("rp", b"x", retain=True, UserProperty=[("k", "v")],
                          MessageExpiryInterval=50)
        with Client() as late:
            late.subscribe("rp")
            found = late.receive().properties
            equal(found.UserProperty, [("k", "v")])
            within(found.MessageExpiryInterval, 20, 50)
        publisher.publish("rp", b"", retain=True)


main()
