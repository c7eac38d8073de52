"""Sections 4 and 5: settling, dead letters, expiry."""

from amqp_oracle import differs, scenario


@scenario
def returned_messages_in_order(t):
    t.queue("q")
    t.send("q", "1", "2", "3", "4")
    t.prefetch(2)
    t.consume("q", "c")
    t.arrive(2)
    t.nack(2, multiple=True)
    t.arrive(2)
    t.ack(4, multiple=True)
    t.arrive(2)


@scenario
def returned_messages_by_get(t):
    t.queue("q")
    t.send("q", "1", "2", "3")
    for _ in range(3):
        t.get("q", no_ack=False)
    t.nack(3)
    t.nack(1)
    t.reject(2)
    t.sync()
    t.drain("q")


@scenario
@differs("4.2: a returned message keeps its place; RabbitMQ's quorum queue puts it last")
def returned_to_a_quorum_queue(t):
    t.queue("q", {"x-queue-type": "quorum"}, durable=True)
    t.send("q", "1", "2", "3")
    t.holds("q", 3)
    t.get("q", no_ack=False)
    t.nack(1)
    t.sync()
    t.drain("q")
    t.delete("q")


@scenario
def lost_connection_returns_its_messages(t):
    t.queue("q")
    t.send("q", "1", "2")
    other = t.another()
    other.consume("q", "c")
    other.arrive(2)
    other.vanish()
    t.holds("q", 2)
    t.drain("q")


@scenario
def closed_channel_returns_its_messages(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.get("q", no_ack=False)
    t.get("q", no_ack=False)
    t.ack(99)
    t.sync()
    t.holds("q", 2)
    t.drain("q")


@scenario
def recover(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.consume("q", "c")
    t.arrive(2)
    t.call("basic.recover", True)
    t.arrive(2)
    t.call("basic.recover", False)


@scenario
def unknown_and_repeated_tags(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.get("q", no_ack=False)
    t.ack(1)
    t.ack(1)
    t.sync()
    t.get("q", no_ack=False)
    t.ack(0, multiple=True)
    t.sync()
    t.nack(5)
    t.sync()
    t.reject(5)
    t.sync()
    t.ack(0, multiple=True)
    t.sync()


@scenario
def rejected_messages(t):
    t.queue("dead")
    t.bind("dead", "amq.fanout")
    t.queue("q", {"x-dead-letter-exchange": "amq.fanout"})
    t.send("q", "by nack", "by reject", message_id="m", headers={"mine": 1})
    for _ in range(2):
        t.get("q", no_ack=False)
    t.nack(1, requeue=False)
    t.reject(2, requeue=False)
    t.holds("dead", 2)
    t.drain("dead", "q")


@scenario
def dead_letters_of_several_reasons(t):
    t.exchange("dlx", "fanout")
    t.queue("dead")
    t.bind("dead", "dlx")
    t.queue("q", {"x-dead-letter-exchange": "dlx", "x-max-length": 1})
    t.send("q", "pushed out", "expires", expiration="50")
    t.holds("dead", 2)
    t.drain("dead")


@scenario
def dead_letters_count_their_rounds(t):
    t.queue("wait", {"x-message-ttl": 30, "x-dead-letter-exchange": "",
                     "x-dead-letter-routing-key": "work"})  # fmt: skip
    t.queue("work", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "wait"})
    t.send("work", "retried")
    t.consume("work", "c")
    for tag in (1, 2, 3):
        t.arrive(1)
        t.reject(tag, requeue=False)
    t.arrive(1)


@scenario
def expired_messages_do_not_go_in_circles(t):
    t.queue("q", {"x-message-ttl": 30, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "q"})  # fmt: skip
    t.send("q", "once")
    t.holds("q", 1, seconds=0.2)
    t.holds("q", 0)


@scenario
def dead_letter_exchange_that_is_missing(t):
    t.queue("q", {"x-dead-letter-exchange": "gone"})
    t.send("q", "lost")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.sync()
    t.drain("q")


@scenario
def messages_of_a_deleted_queue_are_not_dead_letters(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "1", "2")
    t.call("queue.purge", 0, t.name("q"), False)
    t.send("q", "3")
    t.holds("q", 1)
    t.delete("q")
    t.holds("dead", 0)


@scenario
def expiration_of_a_message(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "short", expiration="50")
    t.holds("dead", 1)
    t.drain("dead")
    t.send("q", "none", expiration="0")
    t.holds("dead", 1)
    t.send("q", "long", expiration="60000")
    t.drain("q")


@scenario
def shorter_of_two_expiries(t):
    t.queue("q", {"x-message-ttl": 100})
    t.send("q", "long", expiration="60000")
    t.holds("q", 0)
    t.queue("r", {"x-message-ttl": 60000})
    t.send("r", "short", expiration="50")
    t.holds("r", 0)


@scenario
def expired_behind_one_that_is_not(t):
    t.queue("q")
    t.send("q", "head")
    t.send("q", "behind", expiration="30")
    t.wire.rest(0.1)
    t.holds("q", 2)
    t.drain("q")


@scenario
def wrong_expirations(t):
    t.queue("q")
    t.codes()
    for wrong in ("soon", "-1", "1.5", ""):
        t.say(f"expiration '{wrong}'")
        t.send("q", "x", expiration=wrong)
        t.sync()


@scenario
def acknowledged_before_expiry_of_its_queue(t):
    t.queue("q", {"x-message-ttl": 50})
    t.send("q", "held")
    t.get("q", no_ack=False)
    t.wire.rest(0.1)
    t.nack(1)
    t.holds("q", 0)


@scenario
def dead_letters_keep_their_properties(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "all of them", content_type="text/plain", headers={"mine": 1}, delivery_mode=2,
           priority=3, correlation_id="c", reply_to="r", expiration="60000", message_id="m",
           timestamp=1700000000, type="t", app_id="a")  # fmt: skip
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.holds("dead", 1)
    t.drain("dead")


@scenario
def dead_letters_in_two_steps(t):
    t.queue("third")
    t.queue("second", {"x-message-ttl": 50, "x-dead-letter-exchange": "",
                       "x-dead-letter-routing-key": "third"})  # fmt: skip
    t.queue("first", {"x-max-length": 0, "x-dead-letter-exchange": "",
                      "x-dead-letter-routing-key": "second"})  # fmt: skip
    t.send("first", "through both")
    t.holds("third", 1)
    t.drain("third")


@scenario
def dead_letters_to_several_queues(t):
    t.exchange("dlx", "topic")
    for queue, key in (("all", "#"), ("errors", "*.error"), ("none", "x")):
        t.queue(queue)
        t.bind(queue, "dlx", key)
    t.queue("q", {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": "app.error"})
    t.send("q", "1")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.holds("all", 1)
    t.drain("all", "errors", "none")


@scenario
def dead_letter_that_its_target_refuses(t):
    t.queue("dead", {"x-max-length": 1, "x-overflow": "reject-publish"})
    t.send("dead", "in the way")
    t.holds("dead", 1)
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "refused")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.sync()
    t.drain("dead", "q")


@scenario
def dead_letter_exchange_with_an_alternate(t):
    t.exchange("rest", "fanout")
    t.exchange("dlx", "direct", {"alternate-exchange": "rest"})
    t.queue("dead")
    t.bind("dead", "rest")
    t.queue("q", {"x-dead-letter-exchange": "dlx"})
    t.send("q", "by the alternate")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.holds("dead", 1)
    t.drain("dead")


@scenario
def rejected_message_without_dead_letter_exchange(t):
    t.queue("q")
    t.send("q", "1", "2")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.sync()
    t.drain("q")


@scenario
def forged_deaths(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "forged", headers={"mine": 1})
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.holds("dead", 1)
    t.drain("dead")


@scenario
@differs("messages.md 1.4: a client's own record of deaths is removed")
def deaths_that_a_client_made_up(t):
    t.queue("q")
    t.send("q", "forged", headers={"x-death": [{"queue": "other", "count": 7}], "mine": 1})
    t.drain("q")


@scenario
def several_nacked_at_once(t):
    t.queue("dead")
    t.queue("q", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    t.send("q", "1", "2", "3")
    t.consume("q", "c")
    t.arrive(3)
    t.nack(2, multiple=True, requeue=False)
    t.ack(3)
    t.holds("dead", 2)
    t.drain("dead")


@scenario
def requeued_by_two_connections(t):
    t.queue("q")
    t.send("q", "1", "2", "3", "4")
    one, two = t.another(), t.another()
    one.get("q", no_ack=False)
    two.get("q", no_ack=False)
    one.get("q", no_ack=False)
    two.nack(1)
    two.sync()
    one.nack(2, multiple=True)
    one.sync()
    t.holds("q", 4)
    t.drain("q")


@scenario
def redelivered_flag(t):
    t.queue("q")
    t.send("q", "1")
    for tag in (1, 2):
        t.get("q", no_ack=False)
        t.nack(tag)
        t.sync()
    t.get("q")


@scenario
def expiry_goes_on_while_a_message_is_returned(t):
    t.queue("dead")
    t.queue("q", {"x-message-ttl": 150, "x-dead-letter-exchange": "",
                  "x-dead-letter-routing-key": "dead"})  # fmt: skip
    t.send("q", "1")
    t.get("q", no_ack=False)
    t.nack(1)
    t.holds("q", 1)
    t.holds("dead", 1)
    t.drain("dead")


@scenario
def dead_letter_routing_key_that_is_empty(t):
    t.exchange("dlx", "direct")
    t.queue("dead")
    t.bind("dead", "dlx", "")
    t.queue("q", {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": ""})
    t.send("q", "1")
    t.get("q", no_ack=False)
    t.reject(1, requeue=False)
    t.holds("dead", 1)
    t.drain("dead")
