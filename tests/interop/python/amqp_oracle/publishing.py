"""Sections 7 and 12: confirms, returns, transactions, direct reply-to."""

from amqp_oracle import differs, scenario


@scenario
def confirms(t):
    t.queue("q", durable=True)
    t.confirm()
    for body in "123":
        t.send("q", body, delivery_mode=2)
    t.outcomes(3)
    t.publish("amq.direct", "confirms-nobody", "unroutable")
    t.outcomes(4)
    t.drain("q")


@scenario
def mandatory(t):
    t.publish("amq.direct", "mandatory-nobody", "returned", mandatory=True, message_id="m")
    t.sync()
    t.confirm()
    t.publish("amq.direct", "mandatory-nobody", "returned before its confirm", mandatory=True)
    t.answer()
    t.answer()
    t.publish("", "nowhere", "returned by the default exchange", mandatory=True)
    t.answer()
    t.answer()


@scenario
def immediate(t):
    t.wire.send(1, "basic.publish", 0, "", "q", False, True)
    t.wire.content(1, b"x")
    t.sync()


@scenario
def publish_to_a_missing_exchange_in_confirm_mode(t):
    t.confirm()
    t.publish("missing", "k", "refused")
    t.answer()
    t.queue("q")
    t.send("q", "goes on")
    t.drain("q")


@scenario
def user_id(t):
    t.queue("q")
    t.send("q", "mine", user_id="guest")
    t.send("q", "another's", user_id="somebody")
    t.sync()
    t.drain("q")


@scenario
def transaction(t):
    t.queue("q")
    t.quietly("tx.select")
    t.send("q", "1", "2")
    t.holds("q", 0)
    t.call("tx.commit")
    t.holds("q", 2)
    t.send("q", "3")
    t.call("tx.rollback")
    t.get("q", no_ack=False)
    t.ack(1)
    t.call("tx.rollback")
    t.ack(1)
    t.call("tx.commit")
    t.drain("q")


@scenario
def transaction_with_a_return(t):
    t.quietly("tx.select")
    t.publish("amq.direct", "tx-nobody", "returned", mandatory=True)
    t.nothing()
    t.wire.send(1, "tx.commit")
    t.answer()
    t.answer()


@scenario
def transaction_of_rejections(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "1", "2")
    t.quietly("tx.select")
    t.get("q", no_ack=False)
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.nack(2)
    t.holds("q", 0)
    t.call("tx.commit")
    t.holds("q", 1)
    t.holds("dead", 1)
    t.drain("q", "dead")


@scenario
def transaction_with_a_missing_exchange(t):
    t.queue("q")
    t.quietly("tx.select")
    t.send("q", "1")
    t.publish("missing", "k", "2")
    t.wire.send(1, "tx.commit")
    t.answer()
    t.drain("q")


@scenario
@differs("7.3: transactions are atomic")
def transaction_with_a_full_queue(t):
    t.queue("full", {"x-max-length": 0, "x-overflow": "reject-publish"})
    t.queue("q")
    t.quietly("tx.select")
    t.send("q", "1")
    t.send("full", "2")
    t.wire.send(1, "tx.commit")
    t.answer()
    t.drain("q")


@scenario
def modes_that_exclude_each_other(t):
    t.quietly("tx.select")
    t.call("confirm.select", False)
    t.quietly("confirm.select", False)
    t.call("tx.select")
    t.call("tx.commit")
    t.call("tx.rollback")


@scenario
def direct_reply_to(t):
    reply = "amq.rabbitmq.reply-to"
    t.call("basic.consume", 0, reply, "no acks missing", False, False, False, False, {})
    t.queue("q")
    t.send("q", "nobody to reply to", reply_to=reply)
    t.sync()
    t.call("basic.consume", 0, reply, "c", False, True, False, False, {})
    t.send("q", "question", reply_to=reply)
    server = t.another()
    server.get("q")
    address = server.wire.properties.get("reply_to", "")
    server.call("queue.declare", 0, address, True, False, False, False, False, {})
    server.wire.publish(1, "", address, "answer", correlation_id="1")
    t.arrive(1)
    t.cancel("c")


@scenario
def properties_and_headers_arrive_as_sent(t):
    t.queue("q")
    t.send("q", "all of them", content_type="text/plain", content_encoding="utf-8",
           headers={"a": 1, "b": "two", "c": [1, "x"], "d": {"e": True}, "f": None, "g": 1.5},
           delivery_mode=2, priority=3, correlation_id="c", reply_to="r", message_id="m",
           timestamp=1700000000, type="t", app_id="a")  # fmt: skip
    t.drain("q")


@scenario
def transaction_on_two_queues(t):
    t.queue("a")
    t.queue("b")
    t.quietly("tx.select")
    t.send("a", "1")
    t.send("b", "2")
    t.send("a", "3")
    t.call("tx.commit")
    t.drain("a", "b")


@scenario
def transaction_of_acknowledgements(t):
    t.queue("q")
    t.send("q", "1", "2", "3")
    t.quietly("tx.select")
    for _ in range(3):
        t.get("q", no_ack=False)
    t.ack(2, multiple=True)
    t.call("tx.commit")
    t.nack(3)
    t.holds("q", 0)
    t.call("tx.commit")
    t.holds("q", 1)
    t.drain("q")


@scenario
def transaction_is_lost_with_its_channel(t):
    t.queue("q")
    t.quietly("tx.select")
    t.send("q", "1")
    t.ack(99)
    t.answer()
    t.drain("q")


@scenario
def transaction_of_unknown_tags(t):
    t.queue("q")
    t.quietly("tx.select")
    t.ack(7)
    t.answer()


@scenario
def mandatory_with_an_alternate_exchange(t):
    t.exchange("rest", "fanout")
    t.exchange("main", "direct", {"alternate-exchange": "rest"})
    t.publish("main", "k", "nobody", mandatory=True)
    t.sync()
    t.queue("q")
    t.bind("q", "rest")
    t.publish("main", "k", "the alternate", mandatory=True)
    t.sync()
    t.drain("q")


@scenario
def mandatory_by_one_of_several_ways(t):
    t.exchange("one", "direct")
    t.exchange("two", "fanout")
    t.bind_exchange("two", "one", "k")
    t.publish("one", "k", "no queue behind", mandatory=True)
    t.sync()
    t.queue("q")
    t.bind("q", "two")
    t.publish("one", "k", "a queue behind", mandatory=True)
    t.sync()
    t.drain("q")


@scenario
def get_from_what_is_not_there(t):
    t.get("missing")
    t.queue("q")
    t.get("q")
    t.queue("mine", exclusive=True)
    other = t.another()
    other.get("mine")


@scenario
def get_with_and_without_acknowledgement(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.get("q", no_ack=True)
    t.get("q", no_ack=False)
    t.ack(1)
    t.sync()
    t.ack(2)
    t.sync()
    t.drain("q")
