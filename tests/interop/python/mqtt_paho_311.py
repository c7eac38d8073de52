"""paho-mqtt with MQTT 3.1.1, and a pass with MQTT 3.1."""

from cases import case, equal, main
from mqtt_common import cases_for
from paho_client import V31, V311, Client

cases_for(V311, refused={0x86, 0x87})


@case
def mqtt_3_1_publishes_and_subscribes():
    with Client("old", V31) as old, Client("new", V311) as new:
        for qos in (0, 1, 2):
            equal(old.subscribe("versions", qos), [qos])
            new.publish("versions", b"from new", qos)
            message = old.receive()
            equal((message.payload, message.qos), (b"from new", qos))
        new.subscribe("back", 2)
        old.publish("back", b"from old", 2)
        equal(new.receive().payload, b"from old")


@case
def mqtt_3_1_keeps_its_session():
    first = Client("old-sleeper", V31, clean=False).connect()
    first.subscribe("v31", 1)
    first.disconnect()
    with Client("p", V311) as publisher:
        publisher.publish("v31", b"missed", 1)
    with Client("old-sleeper", V31, clean=False) as again:
        equal(again.receive().payload, b"missed")


@case
def failed_subscription_leaves_the_others():
    with Client("", V311) as client:
        result, mid = client.mqtt.subscribe([("fine", 1), ("fine/too", 0)])
        equal([r.value for r in client.answer(mid).get(timeout=30)], [1, 0])


main()
