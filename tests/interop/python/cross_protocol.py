"""pika and paho-mqtt on one broker: the same topics, the same queues, the same properties."""

import pika
from cases import PEER, case, equal, eventually, main, only_for, within
from paho_client import V5, V311, Client
from pika_client import acked, connect, take

VERSIONS = (V311, V5) if PEER == "polymq" else (V311,)


def bound_queue(channel, *keys):
    name = channel.queue_declare("", exclusive=True).method.queue
    for key in keys:
        channel.queue_bind(name, "amq.topic", key)
    return name


def user_properties(message):
    return dict(getattr(message.properties, "UserProperty", []))


@case
def mqtt_topic_is_an_amqp_key():
    with connect() as connection:
        channel = connection.channel()
        name = bound_queue(channel, "sensors.*")
        for version in VERSIONS:
            with Client("p", version) as publisher:
                for qos in (0, 1) if PEER == "rabbitmq" else (0, 1, 2):
                    publisher.publish("sensors/kitchen", b"21", qos)
                    method, found, body = take(channel, name, 1, auto_ack=True)[0]
                    channel.cancel()
                    equal((method.exchange, method.routing_key, body),
                          ("amq.topic", "sensors.kitchen", b"21"))
                    equal(found.delivery_mode, 2 if qos else 1, "delivery mode")


@case
def amqp_key_is_an_mqtt_topic():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for version in VERSIONS:
            with Client("s", version) as subscriber:
                subscriber.subscribe("sensors/+", 1)
                for mode in (1, 2):
                    channel.basic_publish("amq.topic", "sensors.kitchen", b"21",
                                          pika.BasicProperties(delivery_mode=mode),
                                          mandatory=True)
                    message = subscriber.receive()
                    equal((message.topic, message.payload), ("sensors/kitchen", b"21"))
                    if PEER == "polymq":
                        equal(message.qos, mode - 1, "QoS of the delivery mode")


@case
def topics_with_dots_and_wildcards_are_kept():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        name = bound_queue(channel, "#")
        client.subscribe("#", 1)
        for topic, key in (("a.b/c", "a/b.c"), ("spBv1.0/g/DDATA", "spBv1/0.g.DDATA"),
                           ("/a//b/", ".a..b."), ("a/*/b", "a.*.b"), ("é/x y", "é.x y")):
            client.publish(topic, b"x")
            equal(client.receive().topic, topic)
            method, _, _ = take(channel, name, 1, auto_ack=True)[0]
            channel.cancel()
            equal(method.routing_key, key)
            channel.basic_publish("amq.topic", key, b"y")
            equal(client.receive().topic, topic, "way back")
            take(channel, name, 1, auto_ack=True)
            channel.cancel()
        for key, topic in (("a.#", "a/%23"), ("a.%2B", "a/%252B")):
            channel.basic_publish("amq.topic", key, b"x")
            equal(client.receive().topic, topic)
        channel.basic_publish("amq.topic", "$SYS.x", b"hidden")
        channel.basic_publish("amq.topic", "", b"no topic")
        channel.basic_publish("amq.topic", "end", b"end")
        equal(client.receive().topic, "end", "neither a dollar topic nor an empty one")
        keys = [m.routing_key for m, _, _ in take(channel, name, 5, auto_ack=True)]
        equal(keys, ["a.#", "a.%2B", "$SYS.x", "", "end"])


@case
def mqtt_properties_reach_amqp():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        name = bound_queue(channel, "props.#")
        client.publish(
            "props/x", "text", 2, ContentType="text/plain", CorrelationData=b"c-1",
            ResponseTopic="r/1", MessageExpiryInterval=60, PayloadFormatIndicator=1,
            UserProperty=[("colour", "red"), ("size", "1")])
        _, found, body = take(channel, name, 1)[0]
        equal((body, found.content_type, found.correlation_id, found.delivery_mode),
              (b"text", "text/plain", "c-1", 2))
        equal(found.reply_to, "amq.address:/exchanges/amq.topic/r.1")
        within(int(found.expiration), 30000, 60000, "expiration")
        equal((found.headers["colour"], found.headers["size"]), ("red", "1"))
        equal(str(found.headers["x-mq-qos"]), "2")
        assert "x-mq-text" in found.headers, found.headers
        channel.cancel()

        client.publish("props/y", b"\xff", 1, CorrelationData=b"\xff\x00",
                       UserProperty=[("a", "1"), ("b", "2"), ("a", "3")])
        _, found, _ = take(channel, name, 1)[0]
        equal(found.correlation_id, "b64:/wA=")
        equal((found.headers["a"], found.headers["b"], found.headers["x-mq-multi"]),
              (["1", "3"], "2", "a,b,a"))


@case
def amqp_properties_reach_mqtt():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        client.subscribe("props/#", 2)
        channel.basic_publish("amq.topic", "props.plain", b"hi", pika.BasicProperties(
            content_type="text/plain", delivery_mode=2))
        message = client.receive()
        equal((message.qos, message.properties.ContentType, user_properties(message)),
              (1, "text/plain", {}), "plain message")

        channel.basic_publish("amq.topic", "props.full", b"hi", pika.BasicProperties(
            content_type="text/plain", content_encoding="gzip", delivery_mode=2, priority=7,
            correlation_id="c-1", reply_to="answers", expiration="999", message_id="m-1",
            timestamp=1700000000, type="order", app_id="shop",
            headers={"colour": "red", "size": 5, "ok": True}))
        message = client.receive()
        found = message.properties
        equal((found.ContentType, found.CorrelationData, found.ResponseTopic,
               found.MessageExpiryInterval), ("text/plain", b"c-1", "$queue/answers", 1))
        user = user_properties(message)
        equal({name: user.get(name) for name in ("colour", "size", "ok")},
              {"colour": "red", "size": "5", "ok": "true"})
        equal({name: user.get(f"x-mq-{name}") for name in
               ("priority", "id", "type", "app", "encoding")},
              {"priority": "7", "id": "m-1", "type": "order", "app": "shop",
               "encoding": "gzip"})
        assert "x-mq-timestamp" in user, user
        equal(set(user["x-mq-types"].split(";")), {"size=i32", "ok=bool"})


@case
def properties_survive_the_way_there_and_back():
    only_for("polymq")
    sent = pika.BasicProperties(
        content_type="text/plain", content_encoding="gzip", delivery_mode=2, priority=7,
        correlation_id="c-1", reply_to="answers", message_id="m-1", timestamp=1700000000,
        type="order", app_id="shop",
        headers={"size": 5, "ok": True, "list": [1, "a"], "table": {"deep": 2**40}})
    with connect() as connection, Client() as client:
        channel = connection.channel()
        name = bound_queue(channel, "back")
        client.subscribe("there", 1)
        channel.basic_publish("amq.topic", "there", b"x", sent)
        message = client.receive()
        client.mqtt.publish("back", message.payload, 1, False, _copy(message.properties))
        _, found, _ = take(channel, name, 1)[0]
        for field in ("content_type", "content_encoding", "delivery_mode", "priority",
                      "correlation_id", "reply_to", "message_id", "timestamp", "type", "app_id",
                      "headers"):
            equal(getattr(found, field), getattr(sent, field), field)


def _copy(found):
    from paho_client import properties

    names = ("ContentType", "CorrelationData", "ResponseTopic", "UserProperty",
             "MessageExpiryInterval", "PayloadFormatIndicator")
    return properties("PUBLISH", **{n: getattr(found, n) for n in names if hasattr(found, n)})


@case
def amqp_answers_an_mqtt_request():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        name = bound_queue(channel, "ask")
        client.subscribe("r/1", 1)
        client.publish("ask", b"2+2", 1, ResponseTopic="r/1", CorrelationData=b"\x01\x02")
        _, request, _ = take(channel, name, 1)[0]
        channel.basic_publish("", request.reply_to, b"4",
                              pika.BasicProperties(correlation_id=request.correlation_id))
        answer = client.receive()
        equal((answer.topic, answer.payload, answer.properties.CorrelationData),
              ("r/1", b"4", b"\x01\x02"))


@case
def mqtt_answers_an_amqp_request():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        client.subscribe("ask/mqtt", 1)
        replies = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("amq.topic", "ask.mqtt", b"2+2", pika.BasicProperties(
            reply_to=replies, correlation_id="7"))
        request = client.receive().properties
        client.publish(request.ResponseTopic, b"4", 1, CorrelationData=request.CorrelationData)
        _, answer, body = take(channel, replies, 1)[0]
        equal((body, answer.correlation_id), (b"4", "7"))


@case
def retained_by_amqp_for_late_mqtt():
    only_for("polymq")
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "state.door", b"open",
                              pika.BasicProperties(headers={"x-retain": True}))
        with Client("late") as late:
            late.subscribe("state/+", 1)
            message = late.receive()
            equal((message.payload, message.retain), (b"open", True))
            late.publish("state/door", b"", 1, retain=True)


@case
def will_reaches_amqp():
    with connect() as connection:
        channel = connection.channel()
        name = bound_queue(channel, "wills.#")
        will = {"topic": "wills/client", "payload": b"gone", "qos": 1}
        Client("mortal", V311, will=will).connect().vanish()
        method, _, body = take(channel, name, 1)[0]
        equal((method.routing_key, body), ("wills.client", b"gone"))


@case
def mqtt_publishes_to_a_plain_queue():
    only_for("polymq")
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare("orders/eu", durable=True)
        for version in VERSIONS:
            with Client("p", version) as client:
                client.publish("$queue/orders%2Feu", b"1", 1)
                method, found, body = list(acked(channel, "orders/eu", 1))[0]
                equal((method.exchange, method.routing_key, body, found.delivery_mode),
                      ("", "orders/eu", b"1", 2))
        channel.queue_delete("orders/eu")


@case
def mqtt_consumes_a_plain_queue():
    only_for("polymq")
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("jobs", durable=True)
        for version in VERSIONS:
            with Client("c", version, manual_ack=True) as client:
                equal(client.subscribe("$queue/jobs", 1), [1])
                channel.basic_publish("", "jobs", b"x", pika.BasicProperties(delivery_mode=2))
                message = client.receive()
                equal((message.topic, message.payload), ("$queue/jobs", b"x"))
                client.ack(message)
                client.unsubscribe("$queue/jobs")
            equal(channel.queue_declare("jobs", passive=True).method.message_count, 0)
            equal(channel.basic_get("jobs"), (None, None, None), "the PUBACK settled it")

            client = Client("c2", version, manual_ack=True).connect()
            client.subscribe("$queue/jobs", 1)
            channel.basic_publish("", "jobs", b"again", pika.BasicProperties(delivery_mode=2))
            equal(client.receive().payload, b"again")
            client.vanish()
            method, _, body = take(channel, "jobs", 1)[0]
            equal((body, method.redelivered), (b"again", True), "returned by a lost client")
            channel.basic_ack(method.delivery_tag)
            channel.cancel()

            with Client("c3", version) as client:
                client.subscribe("$queue/jobs/#", 1)
                channel.queue_bind("jobs", "amq.topic", "k.1")
                channel.basic_publish("amq.topic", "k.1", b"x")
                equal(client.receive().topic, "$queue/jobs/k/1")
        channel.queue_delete("jobs")


@case
def missing_queue_is_declared_by_mqtt():
    only_for("polymq")
    with connect() as connection, Client() as client:
        client.subscribe("$queue/made", 1)
        channel = connection.channel()
        channel.queue_declare("made", durable=True)
        channel.basic_publish("", "made", b"x")
        equal(client.receive().payload, b"x")
        channel.queue_delete("made")


@case
def dead_letter_of_mqtt_tells_why():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        dead = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_declare("strict", arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
            "x-message-ttl": 100})
        # Without a consumer the message expires; the death is told in AMQP's way.
        client.publish("$queue/strict", b"late", 1)
        _, found, body = take(channel, dead, 1)[0]
        equal((body, found.headers["x-death"][0]["reason"]), (b"late", "expired"))
        channel.queue_delete("strict")


@case
def mqtt_publishes_to_any_exchange():
    only_for("polymq")
    with connect() as connection, Client() as client:
        channel = connection.channel()
        channel.exchange_declare("logs", "direct", auto_delete=True)
        name = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(name, "logs", "app.error")
        client.publish("$exchange/logs/app/error", b"x", 1)
        method, _, _ = take(channel, name, 1)[0]
        equal((method.exchange, method.routing_key), ("logs", "app.error"))


@case
def shared_subscription_is_a_queue():
    only_for("polymq")
    shared = "$share/g/jobs/#"
    with connect() as connection, Client() as member, Client() as publisher:
        equal(member.subscribe(shared, 1), [1])
        channel = connection.channel()
        channel.basic_qos(prefetch_count=5)
        by_amqp = []

        def on_message(consumer, method, _, body):
            by_amqp.append(int(body))
            consumer.basic_ack(method.delivery_tag)

        channel.basic_consume(shared, on_message)
        for number in range(40):
            publisher.publish(f"jobs/{number % 3}", b"%d" % number, 1)

        def all_arrived():
            connection.process_data_events(time_limit=0.05)
            return len(by_amqp) + member.messages.qsize() >= 40

        eventually(all_arrived, "40 messages at both consumers together")
        by_mqtt = [int(p) for p in member.payloads(member.messages.qsize())]
        equal(sorted(by_amqp + by_mqtt), list(range(40)))
        assert by_amqp and by_mqtt, "both consumers take part"


@case
def mqtt_session_queue_is_seen_from_amqp():
    with connect() as connection:
        client = Client("seen", V311, clean=False).connect()
        client.subscribe("seen", 1)
        found = connection.channel().queue_declare("mqtt-subscription-seenqos1", passive=True)
        equal(found.method.message_count, 0)
        client.disconnect()


main()
