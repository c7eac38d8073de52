"""Cases that hold for every version of MQTT; the version's script calls `cases_for`."""

from cases import PEER, case, ctl, equal
from paho_client import V31, V5, Client


def lasting(protocol, client_id, **more):
    """A client whose session outlives its connection."""
    if protocol == V5:
        more["SessionExpiryInterval"] = 300
    return Client(client_id, protocol, clean=False, **more)


def cases_for(protocol, refused):
    """Defines the cases; `refused` holds the acceptable codes for a wrong password."""

    def connect(client_id="", **more):
        return Client(client_id, protocol, **more)

    def published(client_id):
        # MQTT 3.1 has no empty client id.
        return connect(client_id)

    @case
    def each_qos_arrives_at_the_lower_of_both():
        with published("pub-q") as publisher, connect("sub-q") as subscriber:
            for granted in (0, 1, 2):
                equal(subscriber.subscribe("q/+", granted), [granted], "granted")
                for sent in (0, 1, 2):
                    publisher.publish("q/x", b"%d" % sent, sent)
                    message = subscriber.receive()
                    equal((message.payload, message.qos, message.retain),
                          (b"%d" % sent, min(sent, granted), False))

    @case
    def order_is_kept_within_a_topic():
        with published("pub-o") as publisher, connect("sub-o") as subscriber:
            for qos in (1, 2):
                subscriber.subscribe("order", qos)
                for number in range(100):
                    publisher.mqtt.publish("order", b"%d" % number, qos)
                equal(subscriber.payloads(100), [b"%d" % n for n in range(100)], f"QoS {qos}")

    @case
    def wildcards_match_whole_levels():
        with published("pub-w") as publisher, connect("sub-w") as subscriber:
            for topic in ("a/+/c", "b/#", "+"):
                subscriber.subscribe(topic)
            for topic in ("a/b", "a/x/c", "a/x/y/c", "b", "b/", "b/1/2", "/b", "end"):
                publisher.publish(topic, b"")
            found = []
            while not found or found[-1] != "end":
                found.append(subscriber.receive().topic)
            # `b` matches two filters; both copies, or one, are allowed.
            equal([t for n, t in enumerate(found) if n == 0 or found[n - 1] != t],
                  ["a/x/c", "b", "b/", "b/1/2", "end"])

    @case
    def retained_message_reaches_late_subscribers():
        with published("pub-r") as publisher:
            publisher.publish("house/kitchen", b"old", 1, retain=True)
            publisher.publish("house/kitchen", b"21", 1, retain=True)
            publisher.publish("house/bath", b"23", 2, retain=True)
            publisher.publish("house/attic", b"10", 0, retain=True)
            publisher.publish("house/none", b"x", 1)
            with connect("late-1") as late:
                late.subscribe("house/#", 2)
                found = sorted((m.topic, m.payload, m.qos, m.retain)
                               for m in (late.receive() for _ in range(3)))
                equal(found, [("house/attic", b"10", 0, True), ("house/bath", b"23", 2, True),
                              ("house/kitchen", b"21", 1, True)])
                publisher.publish("house/kitchen", b"22", 1, retain=True)
                message = late.receive()
                equal((message.payload, message.retain), (b"22", False), "live")
            for room in ("kitchen", "bath", "attic"):
                publisher.publish(f"house/{room}", b"", 1, retain=True)
            with connect("late-2") as late:
                late.subscribe("house/+")
                publisher.publish("house/end", b"end")
                equal(late.receive().payload, b"end", "after clearing")

    @case
    def will_is_published_when_the_client_vanishes():
        will = {"topic": "wills/w", "payload": b"gone", "qos": 1, "retain": True}
        with connect("watch") as watcher:
            watcher.subscribe("wills/#", 1)
            connect("mortal", will=will).connect().vanish()
            message = watcher.receive()
            equal((message.topic, message.payload, message.qos), ("wills/w", b"gone", 1))
            connect("mortal", will=dict(will, topic="wills/kept")).connect().disconnect()
            watcher.publish("wills/end", b"end")
            equal(watcher.receive().topic, "wills/end", "no will after DISCONNECT")
        with connect("watch-late") as watcher:
            watcher.subscribe("wills/w")
            message = watcher.receive()
            equal((message.payload, message.retain), (b"gone", True), "retained will")
            watcher.publish("wills/w", b"", retain=True)

    @case
    def session_is_resumed_with_what_was_missed():
        first = lasting(protocol, "sleeper").connect()
        equal(first.session_present, False, "new session")
        first.subscribe("night/#", 2)
        first.disconnect()
        with published("pub-s") as publisher:
            for qos in (1, 2):
                publisher.publish(f"night/{qos}", b"%d" % qos, qos)
        with lasting(protocol, "sleeper") as again:
            # CONNACK tells of a kept session only from MQTT 3.1.1 on.
            equal(again.session_present, protocol != V31, "session present")
            equal([(m.topic, m.payload, m.qos) for m in (again.receive(), again.receive())],
                  [("night/1", b"1", 1), ("night/2", b"2", 2)])
            again.publish("night/own", b"x")
            equal(again.receive().topic, "night/own", "the subscription lives")
        with connect("sleeper", clean=True) as cleared:
            equal(cleared.session_present, False, "clean session")
            with published("pub-s") as publisher:
                publisher.publish("night/lost", b"x")
                cleared.subscribe("night/end")
                publisher.publish("night/end", b"end")
                equal(cleared.receive().topic, "night/end")

    @case
    def unacknowledged_message_comes_again():
        client = lasting(protocol, "forgetful", manual_ack=True).connect()
        client.subscribe("again", 1)
        with published("pub-a") as publisher:
            publisher.publish("again", b"x", 1)
        equal(client.receive().dup, False)
        client.vanish()
        with lasting(protocol, "forgetful") as again:
            message = again.receive()
            equal((message.payload, message.dup), (b"x", True))
        connect("forgetful", clean=True).connect().disconnect()

    @case
    def second_connection_with_the_same_id_takes_over():
        first = connect("twin").connect()
        with connect("twin") as second:
            reason, _ = first.lost.get(timeout=30)
            # Mosquitto 2.0 closes without the DISCONNECT that MQTT-3.1.4-3 asks for.
            if protocol == V5 and PEER != "mosquitto":
                equal(reason.value, 0x8E, "DISCONNECT reason")
            second.subscribe("twin")
            second.publish("twin", b"mine")
            equal(second.receive().payload, b"mine")
        first.mqtt.loop_stop()

    @case
    def wrong_password_is_refused():
        reason, _, _ = connect("intruder", password="wrong").try_connect()
        assert reason.value in refused, f"CONNACK {reason.value}, {sorted(refused)} expected"

    @case
    def anonymous_client_may_enter_from_loopback():
        with connect("nobody", user=None) as client:
            client.subscribe("anon")
            client.publish("anon", b"x")
            equal(client.receive().payload, b"x")

    @case
    def unsubscribed_client_hears_nothing():
        with connect("un") as client:
            client.subscribe("un/a")
            client.subscribe("un/b")
            client.unsubscribe("un/a")
            client.publish("un/a", b"no")
            client.publish("un/b", b"yes")
            equal(client.receive().payload, b"yes")

    @case
    def large_payload_passes():
        body = bytes(range(256)) * 4096
        with connect("large") as client:
            client.subscribe("large", 1)
            client.publish("large", body, 1)
            equal(client.receive().payload == body, True, "same bytes")
            client.publish("large", b"", 1)
            equal(client.receive().payload, b"", "empty")

    @case
    def unicode_topics_and_empty_levels():
        topics = ["/", "//", "é/ü/日本", " space /x", "a.b/c", "a/*/b", "%2B/x"]
        with connect("topics") as client:
            for topic in topics:
                client.subscribe(topic)
                client.publish(topic, b"x")
                equal(client.receive().topic, topic)

    @case
    def keep_alive_pings_hold_the_connection():
        with Client("idle", protocol) as client:
            client.disconnect()
        client = Client("idle", protocol)
        client.connect(keepalive=2)
        # The broker may close after 1.5 keep-alives of silence; paho's pings must prevent it.
        try:
            reason, _ = client.lost.get(timeout=4)
            raise AssertionError(f"closed: {reason}")
        except Exception as silence:
            if type(silence).__name__ != "Empty":
                raise
        client.disconnect()

    @case
    def client_reconnects_after_a_cut():
        with lasting(protocol, "stubborn", reconnect=True) as client:
            client.subscribe("stubborn", 1)
            ctl("cut")
            reason, present, _ = client.connected.get(timeout=30)
            equal((reason.is_failure, present), (False, protocol != V31))
            client.publish("stubborn", b"back", 1)
            equal(client.receive().payload, b"back")

    @case
    def killed_broker_keeps_sessions_and_retained():
        with published("pub-k") as publisher:
            publisher.publish("kept/state", b"retained", 1, retain=True)
            client = lasting(protocol, "survivor").connect()
            client.subscribe("kept/#", 2)
            equal(client.receive().retain, True)
            client.disconnect()
            for number in range(50):
                publisher.publish("kept/n", b"%d" % number, 1 + number % 2)
        ctl("kill")
        with lasting(protocol, "survivor") as again:
            equal(again.session_present, protocol != V31)
            found = [again.receive() for _ in range(50)]
            # The specification orders messages of one topic and one QoS.
            for qos in (1, 2):
                equal([int(m.payload) for m in found if m.qos == qos],
                      list(range(qos - 1, 50, 2)), f"QoS {qos}")
        with connect("newcomer") as newcomer:
            newcomer.subscribe("kept/#")
            message = newcomer.receive()
            equal((message.topic, message.payload, message.retain),
                  ("kept/state", b"retained", True))
            newcomer.publish("kept/state", b"", retain=True)

    @case
    def clean_restart_keeps_sessions():
        client = lasting(protocol, "restarted").connect()
        client.subscribe("restart", 1)
        client.publish("restart", b"done", 1)
        equal(client.receive().payload, b"done")
        client.disconnect()
        with published("pub-c") as publisher:
            publisher.publish("restart", b"waiting", 1)
        ctl("restart")
        with lasting(protocol, "restarted") as again:
            equal(again.session_present, protocol != V31)
            equal(again.receive().payload, b"waiting")
            again.publish("restart", b"end")
            equal(again.receive().payload, b"end", "nothing came twice")
