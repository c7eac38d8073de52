"""Section 3: queues, their arguments, and delivery."""

import time

from amqp_oracle import differs, scenario


@scenario
def queue_declared_again(t):
    t.queue("q", {"x-message-ttl": 1000, "x-max-length": 5}, durable=True)
    same = {"x-message-ttl": 1000, "x-max-length": 5}
    t.queue("q", same, durable=True)
    t.queue("q", same)
    t.queue("q", same, durable=True, auto=True)
    t.queue("q", {**same, "x-message-ttl": 2000}, durable=True)
    t.queue("q", {"x-max-length": 5}, durable=True)
    t.queue("q", {**same, "x-expires": 60000}, durable=True)
    t.queue("q", {**same, "x-overflow": "reject-publish"}, durable=True)
    t.queue("q", {**same, "x-dead-letter-exchange": "amq.fanout"}, durable=True)
    t.queue("q", {**same, "x-unknown": 1}, durable=True)
    t.queue("q", passive=True)
    t.queue("missing", passive=True)
    t.queue("amq.mine")
    t.delete("q")


@scenario
def queue_declared_again_with_levels_and_single_active_consumer(t):
    t.queue("q")
    t.queue("q", {"x-max-priority": 3})
    t.queue("q", {"x-single-active-consumer": True})


@scenario
def lazy_redeclared(t):
    t.queue("q", {"x-queue-mode": "lazy"})
    t.queue("q", {"x-queue-mode": "lazy"})
    t.send("q", "one")
    t.drain("q")


@scenario
def wrong_queue_arguments(t):
    t.codes()
    for name, value in (("x-message-ttl", -1), ("x-message-ttl", "soon"), ("x-expires", 0),
                        ("x-max-length", -1), ("x-max-length", "long"), ("x-overflow", "spill"),
                        ("x-dead-letter-exchange", 1), ("x-dead-letter-routing-key", "k"),
                        ("x-max-length-bytes", -1), ("x-message-ttl", 2**32),
                        ("x-message-ttl", 315360000000), ("x-message-ttl", 315360000001),
                        ("x-queue-type", "fancy")):  # fmt: skip
        t.say(f"{name} {value}")
        t.queue(f"q{value}", {name: value})


@scenario
def exclusive_queue(t):
    t.queue("q", exclusive=True)
    t.send("q", "mine")
    other = t.another()
    other.queue("q")
    other.queue("q", exclusive=True)
    other.queue("q", passive=True)
    other.get("q")
    other.consume("q", "c")
    other.call("queue.purge", 0, t.name("q"), False)
    other.delete("q")
    other.bind("q", "amq.direct", "k")
    other.send("q", "yours")
    t.holds("q", 2)
    t.drain("q")
    t.leave()
    other.gone("q")


@scenario
def auto_delete_queue(t):
    t.queue("q", auto=True)
    t.consume("q", "a")
    t.consume("q", "b")
    t.cancel("a")
    t.queue("q", passive=True)
    t.cancel("b")
    t.gone("q")
    t.queue("never", auto=True)
    t.get("never")
    t.holds("never", 0)


@scenario
def queue_expires(t):
    t.queue("q", {"x-expires": 200})
    t.queue("used", {"x-expires": 200})
    t.consume("used", "c")
    t.gone("q")
    t.holds("used", 0, consumers=1)
    t.cancel("c")
    t.gone("used")


@scenario
def purge_and_delete(t):
    t.queue("q")
    t.send("q", "1", "2", "3")
    t.get("q", no_ack=False)
    t.delete("q", if_empty=True)
    t.call("queue.purge", 0, t.name("q"), False)
    t.drain("q")
    t.consume("q", "c")
    t.delete("q", if_unused=True)
    t.cancel("c")
    t.send("q", "4", "5")
    t.holds("q", 2)
    t.delete("q")


@scenario
def length_with_drop_head(t):
    t.queue("dead")
    t.queue("q", {"x-max-length": 2, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "1", "2", "3", "4")
    t.holds("dead", 2)
    t.drain("q", "dead")


@scenario
def length_in_bytes(t):
    t.queue("q", {"x-max-length-bytes": 10})
    t.send("q", "12345", "67890", "abc", "de", "this is too long on its own")
    t.holds("q", 0)
    t.send("q", "1234567890")
    t.drain("q")


@scenario
def length_zero(t):
    t.queue("q", {"x-max-length": 0})
    t.send("q", "1")
    t.holds("q", 0)


@scenario
def unacknowledged_messages_do_not_count_for_the_length(t):
    t.queue("q", {"x-max-length": 1})
    t.send("q", "1")
    t.get("q", no_ack=False)
    t.send("q", "2")
    t.holds("q", 1)
    t.drain("q")


@scenario
def reject_publish(t):
    t.queue("q", {"x-max-length": 1, "x-overflow": "reject-publish"})
    t.confirm()
    for count, body in enumerate("12", 1):
        t.send("q", body)
        t.outcomes(count)
    t.get("q")
    t.send("q", "3")
    t.outcomes(3)
    t.drain("q")


@scenario
def reject_publish_with_dead_letters(t):
    t.queue("dead")
    t.queue("q", {"x-max-length": 1, "x-overflow": "reject-publish-dlx",
                  "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.confirm()
    for count, body in enumerate("12", 1):
        t.send("q", body)
        t.outcomes(count)
    t.holds("dead", 1)
    t.drain("q", "dead")


@scenario
def ttl_of_the_queue(t):
    t.queue("dead")
    t.queue("q", {"x-message-ttl": 100, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "1", "2")
    t.holds("dead", 2)
    t.drain("q", "dead")


@scenario
def ttl_of_the_queue_zero(t):
    t.queue("q", {"x-message-ttl": 0})
    t.send("q", "nobody is there")
    t.holds("q", 0)
    t.consume("q", "c", no_ack=True)
    t.send("q", "somebody is there")
    t.arrive(1)


@scenario
def prefetch_of_a_consumer(t):
    t.queue("q")
    t.send("q", "1", "2", "3", "4")
    t.prefetch(2)
    t.consume("q", "c")
    t.arrive(2)
    t.nothing()
    t.ack(1)
    t.arrive(1)
    t.nothing()
    t.ack(3, multiple=True)
    t.arrive(1)


@scenario
def prefetch_of_the_whole_channel(t):
    t.queue("q")
    t.queue("r")
    t.prefetch(2, whole_channel=True)
    t.consume("q", "c")
    t.consume("r", "d")
    t.send("q", "1", "2")
    t.arrive(2)
    t.send("r", "3")
    t.nothing()
    t.ack(1)
    t.arrive(1)


@scenario
def consumers_take_turns(t):
    t.queue("q")
    t.consume("q", "a")
    t.consume("q", "b")
    for body in "1234":
        t.send("q", body)
        t.arrive(1)


@scenario
def higher_consumer_priority_first(t):
    t.queue("q")
    t.prefetch(1)
    t.consume("q", "low")
    t.consume("q", "high", priority=5)
    for body in "12":
        t.send("q", body)
        t.arrive(1)
    t.ack(1)
    t.sync()
    t.send("q", "3")
    t.arrive(1)


@scenario
def exclusive_consumer(t):
    t.queue("q")
    t.consume("q", "c", exclusive=True)
    other = t.another()
    other.consume("q", "d")
    other.consume("q", "e", exclusive=True)
    t.cancel("c")
    other.consume("q", "f")
    t.consume("q", "g", exclusive=True)


@scenario
def consumer_tag_in_use(t):
    t.queue("q")
    t.consume("q", "c")
    t.consume("q", "c")


@scenario
def cancel_notice(t):
    t.queue("q")
    t.consume("q", "c")
    other = t.another()
    other.delete("q")
    t.arrive(1)
    t.queue("q")
    t.get("q")


@scenario
def single_active_consumer(t):
    t.queue("q", {"x-single-active-consumer": True})
    t.consume("q", "a")
    t.consume("q", "b")
    t.send("q", "1", "2")
    t.arrive(2)
    t.cancel("a")
    t.send("q", "3")
    t.arrive(1)
    other = t.another()
    other.consume("q", "c", exclusive=True)


@scenario
@differs("3.3: get on a queue with a single active consumer is 405; RabbitMQ's classic queue gives")
def get_beside_a_single_active_consumer(t):
    t.queue("q", {"x-single-active-consumer": True})
    t.send("q", "1")
    t.get("q")


@scenario
def priorities(t):
    t.queue("q", {"x-max-priority": 5})
    for priority in (0, 3, 5, 9, 1, 3):
        t.send("q", f"of {priority}", priority=priority)
    t.send("q", "of none")
    t.holds("q", 7)
    t.drain("q")


@scenario
@differs("6: drop-head takes the lowest level")
def priorities_and_length(t):
    t.queue("q", {"x-max-priority": 5, "x-max-length": 2})
    for priority in (5, 0, 3):
        t.send("q", f"of {priority}", priority=priority)
    t.holds("q", 2)
    t.drain("q")


@scenario
def priority_without_the_argument_has_no_effect(t):
    t.queue("q")
    for priority in (0, 9):
        t.send("q", f"of {priority}", priority=priority)
    t.drain("q")


@scenario
def delivery_limit_of_a_quorum_queue(t):
    t.queue("dead")
    t.queue("q", {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"}, durable=True)  # fmt: skip
    t.send("q", "poison")
    t.holds("q", 1)
    t.consume("q", "c")
    for tag in (1, 2, 3):
        t.arrive(1)
        t.reject(tag)
    t.holds("dead", 1)
    t.drain("dead")
    t.cancel("c")
    t.delete("q")


@scenario
def quorum_queues_are_durable_and_not_exclusive(t):
    t.codes()
    t.queue("q", {"x-queue-type": "quorum"})
    t.queue("q", {"x-queue-type": "quorum"}, durable=True, exclusive=True)


@scenario
def get_counts_what_remains(t):
    t.queue("q")
    t.send("q", "1", "2")
    time.sleep(0.05)
    t.get("q")
    t.get("q")
    t.get("q")


@scenario
def equal_priorities_keep_their_order(t):
    t.queue("q", {"x-max-priority": 2})
    for body in "1234":
        t.send("q", body, priority=1)
    t.drain("q")


@scenario
def returned_message_keeps_its_level(t):
    t.queue("q", {"x-max-priority": 5})
    for priority in (1, 5, 3):
        t.send("q", f"of {priority}", priority=priority)
    t.get("q", no_ack=False)
    t.nack(1)
    t.sync()
    t.drain("q")


@scenario
@differs("5.1: an expired message leaves at the head of its level, not only of the queue")
def expired_messages_of_each_level(t):
    t.queue("dead")
    t.queue("q", {"x-max-priority": 5, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "low", priority=1, expiration="50")
    t.send("q", "high and lasting", priority=5)
    t.holds("dead", 1)
    t.drain("dead", "q")


@scenario
def wrong_levels(t):
    t.codes()
    for levels in (-1, 256, "many", True):
        t.say(f"{levels}")
        t.queue(f"q{levels}", {"x-max-priority": levels})


@scenario
def length_zero_with_a_consumer(t):
    t.queue("q", {"x-max-length": 0})
    t.consume("q", "c", no_ack=True)
    t.send("q", "taken at once")
    t.arrive(1)


@scenario
def length_of_messages_and_of_bytes(t):
    t.queue("q", {"x-max-length": 3, "x-max-length-bytes": 6})
    t.send("q", "1", "2", "3", "4")
    t.holds("q", 3)
    t.send("q", "12345")
    t.holds("q", 2)
    t.drain("q")


@scenario
def reject_publish_by_bytes(t):
    t.queue("q", {"x-max-length-bytes": 4, "x-overflow": "reject-publish"})
    t.confirm()
    for count, body in enumerate(("1234", "5"), 1):
        t.send("q", body)
        t.outcomes(count)
    t.drain("q")


@scenario
def reject_publish_of_one_that_passes_the_bytes(t):
    t.queue("q", {"x-max-length-bytes": 4, "x-overflow": "reject-publish"})
    t.confirm()
    t.send("q", "12345")
    t.outcomes(1)
    t.drain("q")


@scenario
def reject_publish_of_one_of_two_queues(t):
    t.exchange("x", "fanout")
    t.queue("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    t.queue("free")
    t.send("full", "in the way")
    t.holds("full", 1)
    t.bind("full", "x")
    t.bind("free", "x")
    t.confirm()
    t.publish("x", "", "for both")
    t.outcomes(1)
    t.drain("full", "free")


@scenario
def drop_head_lets_go_of_what_expired_first(t):
    t.queue("dead")
    t.queue("q", {"x-max-length": 1, "x-message-ttl": 50, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "1")
    t.holds("dead", 1)
    t.send("q", "2", "3")
    t.holds("dead", 3)
    t.drain("dead", "q")


@scenario
def queue_expiry_is_put_off_by_declaring_and_getting(t):
    t.queue("declared", {"x-expires": 300})
    t.queue("got", {"x-expires": 300})
    for _ in range(3):
        t.wire.rest(0.15)
        t.queue("declared", {"x-expires": 300})
        t.call("basic.get", 0, t.name("got"), True)
    t.gone("declared")
    t.gone("got")


@scenario
def messages_of_an_expired_queue_are_not_dead_letters(t):
    t.queue("dead")
    t.queue("q", {"x-expires": 100, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "1")
    t.gone("q")
    t.holds("dead", 0)


@scenario
def single_active_consumer_is_lost(t):
    t.queue("q", {"x-single-active-consumer": True})
    other = t.another()
    other.consume("q", "first")
    t.consume("q", "second")
    t.send("q", "1")
    other.arrive(1)
    t.nothing()
    other.vanish()
    t.arrive(1)


@scenario
def single_active_consumer_goes_by_age(t):
    t.queue("q", {"x-single-active-consumer": True})
    for tag in "abc":
        t.consume("q", tag)
    t.cancel("b")
    t.send("q", "1")
    t.arrive(1)
    t.cancel("a")
    t.send("q", "2")
    t.arrive(1)


@scenario
def single_active_consumer_goes_by_priority(t):
    t.queue("q", {"x-single-active-consumer": True})
    t.consume("q", "a")
    t.consume("q", "b")
    t.consume("q", "c", priority=9)
    t.cancel("a")
    t.send("q", "1")
    t.arrive(1)


@scenario
def lower_consumer_priority_gets_what_the_higher_has_no_room_for(t):
    t.queue("q")
    t.prefetch(1)
    t.consume("q", "low", priority=-1)
    t.consume("q", "usual")
    for body in "123":
        t.send("q", body)
    t.arrive(2)
    t.nothing()


@scenario
def wrong_consumer_priority(t):
    t.queue("q")
    t.codes()
    t.consume("q", "c", priority="high")


@scenario
def consumer_that_comes_late_gets_what_waits(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.holds("q", 2)
    t.consume("q", "c", no_ack=True)
    t.arrive(2)
    t.holds("q", 0, consumers=1)


@scenario
def cancelled_consumer_keeps_what_it_has(t):
    t.queue("q")
    t.send("q", "1")
    t.consume("q", "c")
    t.arrive(1)
    t.cancel("c")
    t.holds("q", 0)
    t.nack(1)
    t.holds("q", 1)
    t.drain("q")


@scenario
def cancel_notice_of_an_expired_exclusive_owner(t):
    t.queue("q", auto=True)
    t.consume("q", "c")
    other = t.another()
    other.delete("q", if_unused=True)
    other.delete("q")
    t.arrive(1)
    t.cancel("c")
