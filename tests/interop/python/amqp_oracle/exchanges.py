"""Section 2: exchanges and bindings."""

from amqp_oracle import differs, scenario
from amqp_wire import Typed


@scenario
def direct(t):
    for queue, key in (("a", "k"), ("b", "k"), ("c", "other"), ("d", "")):
        t.queue(queue)
        t.bind(queue, "amq.direct", "direct-" + key)
    for key in ("k", "other", "", "none"):
        t.publish("amq.direct", "direct-" + key, key, mandatory=True)
    t.sync()
    t.drain("a", "b", "c", "d")


@scenario
def fanout(t):
    t.exchange("x", "fanout")
    for queue in ("a", "b"):
        t.queue(queue)
        t.bind(queue, "x", queue)
    t.publish("x", "whatever", "one")
    t.unbind("a", "x", "a")
    t.publish("x", "a", "two")
    t.drain("a", "b")


@scenario
def topic(t):
    t.exchange("x", "topic")
    patterns = ["#", "*", "a.#", "#.c", "a.*.c", "*.b.#", "a.#.c", "", "a", "a..c", "*.*", "#.#"]
    for at, pattern in enumerate(patterns):
        t.queue(f"q{at}")
        t.bind(f"q{at}", "x", pattern)
    for key in ("", "a", "a.b", "a.b.c", "a.c", "a..c", "b.b.b", ".", "a.b.b.c", "c"):
        t.publish("x", key, key)
    for at, pattern in enumerate(patterns):
        t.say(pattern)
        t.drain(f"q{at}")


@scenario
def headers(t):
    wanted = {"n": 1, "s": "text", "x-h": True}
    for match in ("all", "any"):
        t.queue(match)
        t.bind(match, "amq.headers", "", **{"x-match": match, **wanted})
    t.queue("present")
    t.bind("present", "amq.headers", "", n=None)
    for sent in (wanted, {"n": 1, "s": "text"}, {"n": Typed("b", 1)}, {"s": "text"}, {"n": "1"},
                 {"n": 2, "s": "other"}, {"n": 1.0, "s": "text"}, {}):  # fmt: skip
        t.publish("amq.headers", "", f"{sorted(sent)}", headers=sent)
    t.drain("all", "any", "present")
    t.codes()
    t.bind("all", "amq.headers", "", **{"x-match": "most"})


@scenario
def one_queue_by_many_bindings(t):
    t.exchange("x", "topic")
    t.queue("q")
    for key in ("a.*", "#", "a.b"):
        t.bind("q", "x", key)
    t.publish("x", "a.b", "once")
    t.drain("q")
    t.unbind("q", "x", "#")
    t.unbind("q", "x", "never bound")
    t.publish("x", "b", "not any more", mandatory=True)
    t.sync()


@scenario
def bindings_with_arguments_are_different_bindings(t):
    t.exchange("x")
    t.queue("q")
    t.bind("q", "x", "k", a=1)
    t.bind("q", "x", "k", a=2)
    t.publish("x", "k", "once")
    t.drain("q")
    t.unbind("q", "x", "k", a=1)
    t.publish("x", "k", "still")
    t.drain("q")
    t.unbind("q", "x", "k", a=2)
    t.publish("x", "k", "gone", mandatory=True)
    t.sync()


@scenario
def exchange_to_exchange(t):
    for name, kind in (("one", "topic"), ("two", "fanout"), ("three", "direct")):
        t.exchange(name, kind)
    t.bind_exchange("two", "one", "a.*")
    t.bind_exchange("three", "two")
    t.bind_exchange("one", "three", "a.b")
    t.queue("q")
    t.bind("q", "three", "a.b")
    t.bind("q", "two")
    t.publish("one", "a.b", "in a circle")
    t.publish("one", "a.c", "half the way")
    t.publish("one", "b", "nowhere", mandatory=True)
    t.sync()
    t.drain("q")
    t.delete_exchange("two")
    t.publish("one", "a.b", "cut", mandatory=True)
    t.sync()


@scenario
def alternate_exchange(t):
    t.exchange("rest", "fanout")
    t.exchange("main", "direct", {"alternate-exchange": "rest"})
    t.queue("q")
    t.bind("q", "rest")
    t.queue("known")
    t.bind("known", "main", "known")
    t.publish("main", "known", "taken", mandatory=True)
    t.publish("main", "unknown", "not taken", mandatory=True)
    t.sync()
    t.drain("q", "known")
    t.exchange("main", "direct", {"alternate-exchange": "other"})
    t.exchange("main", "direct")
    t.delete_exchange("rest")
    t.publish("main", "unknown", "the alternate is missing", mandatory=True)
    t.sync()
    t.codes()
    t.exchange("bad", "direct", {"alternate-exchange": 1})


@scenario
def alternates_in_a_chain_and_in_a_circle(t):
    t.exchange("a", "direct", {"alternate-exchange": "b"})
    t.exchange("b", "direct", {"alternate-exchange": "c"})
    t.exchange("c", "fanout", {"alternate-exchange": "a"})
    t.publish("a", "k", "in a circle", mandatory=True)
    t.sync()
    t.queue("q")
    t.bind("q", "c")
    t.publish("a", "k", "in a chain", mandatory=True)
    t.drain("q")


@scenario
def cc_and_bcc(t):
    for queue in ("key", "cc", "bcc", "both"):
        t.queue(queue)
        t.bind(queue, "amq.direct", "ccs-" + queue)
    t.bind("both", "amq.direct", "ccs-key")
    lists = {"CC": ["ccs-cc", "ccs-both"], "BCC": ["ccs-bcc"]}
    t.publish("amq.direct", "ccs-key", "copies", headers={**lists, "mine": 1})
    t.sync()
    t.drain("key", "cc", "bcc", "both")
    t.publish("amq.direct", "ccs-none", "only by CC", mandatory=True, headers={"CC": ["ccs-cc"]})
    t.publish("amq.direct", "ccs-none", "nobody", mandatory=True, headers={"CC": ["ccs-nobody"]})
    t.sync()
    t.drain("cc")
    t.codes()
    t.publish("amq.direct", "ccs-key", "CC of text", headers={"CC": "ccs-cc"})
    t.sync()
    t.publish("amq.direct", "ccs-key", "BCC of a number", headers={"BCC": 1})
    t.sync()


@scenario
@differs("2: CC and BCC are lists of text, each entry")
def cc_of_numbers(t):
    t.publish("amq.direct", "k", "CC of numbers", headers={"CC": [1]})
    t.sync()


def dead_letter_with(t, run, **lists):
    """A message with further keys dies in `q`; where do its remains go?"""
    t.queue("q", {"x-dead-letter-exchange": "amq.direct"})
    t.bind("q", "amq.direct", run + "key")
    for queue in ("key", "cc", "bcc"):
        t.queue(queue)
    t.publish("amq.direct", run + "key", "dying",
              headers={name: [run + key] for name, key in lists.items()})  # fmt: skip
    for queue in ("key", "cc", "bcc"):
        t.bind(queue, "amq.direct", run + queue)
    t.get("q", no_ack=False)
    t.unbind("q", "amq.direct", run + "key")
    t.reject(1, requeue=False)
    t.holds("key", 1)
    t.drain("key", "cc", "bcc")


@scenario
def dead_letters_go_to_the_keys_of_cc(t):
    dead_letter_with(t, "dlc-", CC="cc")


@scenario
@differs("4.4: dead letters keep the keys of CC, not those of BCC")
def dead_letters_do_not_go_to_the_keys_of_bcc(t):
    dead_letter_with(t, "dlb-", CC="cc", BCC="bcc")


@scenario
def auto_delete_exchange(t):
    t.exchange("x", "direct", auto=True)
    t.queue("q")
    t.bind("q", "x", "a")
    t.bind("q", "x", "b")
    t.unbind("q", "x", "a")
    t.exchange("x", "direct", passive=True)
    t.delete("q")
    t.exchange("x", "direct", passive=True)


@scenario
def internal_exchange(t):
    t.exchange("inside", "fanout", internal=True)
    t.exchange("outside", "fanout")
    t.bind_exchange("inside", "outside")
    t.queue("q")
    t.bind("q", "inside")
    t.publish("outside", "", "through")
    t.publish("inside", "", "refused")
    t.sync()
    t.drain("q")


@scenario
def exchange_declared_again(t):
    t.exchange("x", "direct", durable=True)
    for other in ({}, {"durable": True, "auto": True}, {"durable": True, "internal": True}):
        t.exchange("x", "direct", **other)
    t.exchange("x", "topic", durable=True)
    t.exchange("x", "direct", {"x-unknown": 1}, durable=True)
    t.exchange("x", "fanout", passive=True)
    t.exchange("missing", "direct", passive=True)
    t.exchange("amq.mine", "direct")
    t.exchange("amq.direct", "direct", durable=True)
    t.exchange("amq.direct", "fanout", durable=True)
    t.exchange("", "direct", durable=True)
    t.delete_exchange("x")


@scenario
@differs("2: an unknown exchange type is 406, of the channel only")
def unknown_exchange_type(t):
    t.exchange("x", "fancy")


@scenario
def exchange_deletion(t):
    t.exchange("x", "fanout")
    t.queue("q")
    t.bind("q", "x")
    t.delete_exchange("x", if_unused=True)
    t.unbind("q", "x")
    t.delete_exchange("x", if_unused=True)
    t.delete_exchange("x")
    t.delete_exchange("amq.topic")
    t.delete_exchange("")


@scenario
def what_is_missing(t):
    t.queue("q")
    t.bind("q", "missing", "k")
    t.bind("missing", "amq.direct", "k")
    t.bind_exchange("missing", "amq.direct")
    t.bind_exchange("amq.direct", "missing")
    t.unbind("q", "missing", "k")
    t.unbind("missing", "amq.direct", "k")
    t.unbind_exchange("missing", "amq.direct")
    t.unbind_exchange("amq.direct", "missing")
    t.publish("missing", "k", "refused")
    t.sync()
    t.get("missing")
    t.consume("missing", "c")
    t.delete("missing")
    t.call("queue.purge", 0, t.name("missing"), False)


@scenario
def default_exchange(t):
    t.queue("q")
    t.bind("q", "", "k")
    t.unbind("q", "", t.name("q"))
    t.bind_exchange("amq.direct", "")
    t.bind_exchange("", "amq.direct")
    t.send("q", "by its name")
    t.drain("q")


@scenario
def trace_exchange_is_the_brokers(t):
    t.exchange("amq.rabbitmq.trace", "topic", passive=True)
    t.publish("amq.rabbitmq.trace", "k", "forged")
    t.sync()


@scenario
def exchange_to_exchange_by_headers(t):
    t.exchange("one", "headers")
    t.exchange("two", "topic")
    t.wire.send(1, "exchange.bind", 0, t.name("two"), t.name("one"), "", False,
                {"x-match": "all", "n": 1})  # fmt: skip
    t.answer()
    t.queue("q")
    t.bind("q", "two", "a.#")
    t.publish("one", "a.b", "both match", headers={"n": 1})
    t.publish("one", "b", "only the headers match", headers={"n": 1}, mandatory=True)
    t.publish("one", "a.b", "only the key matches", headers={"n": 2}, mandatory=True)
    t.sync()
    t.drain("q")


@scenario
def unbinding_one_of_two_exchange_bindings(t):
    t.exchange("one", "direct")
    t.exchange("two", "fanout")
    t.queue("q")
    t.bind("q", "two")
    for key in "ab":
        t.bind_exchange("two", "one", key)
    t.unbind_exchange("two", "one", "a")
    t.publish("one", "a", "not any more", mandatory=True)
    t.publish("one", "b", "still")
    t.sync()
    t.drain("q")


@scenario
def auto_delete_exchange_bound_to_an_exchange(t):
    t.exchange("x", "fanout", auto=True)
    t.exchange("y", "fanout")
    t.bind_exchange("y", "x")
    t.exchange("x", "fanout", passive=True)
    t.delete_exchange("y")
    t.exchange("x", "fanout", passive=True)


@scenario
def alternate_exchange_of_an_internal_kind(t):
    t.exchange("inside", "fanout", internal=True)
    t.exchange("main", "direct", {"alternate-exchange": "inside"})
    t.queue("q")
    t.bind("q", "inside")
    t.publish("main", "k", "by the alternate", mandatory=True)
    t.sync()
    t.drain("q")


@scenario
def headers_with_other_matches(t):
    t.exchange("x", "headers")
    wanted = {"a": 1, "x-b": 2}
    for match in ("all-with-x", "any-with-x"):
        t.queue(match)
        t.bind(match, "x", "", **{"x-match": match, **wanted})
    for sent in (wanted, {"a": 1}, {"x-b": 2}, {"c": 3}, {}):
        t.publish("x", "", f"{sorted(sent)}", headers=sent)
    t.drain("all-with-x", "any-with-x")
