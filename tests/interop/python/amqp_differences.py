"""Talks AMQP 0-9-1 below any client library and holds every answer against RabbitMQ's.

`amqp_differences.txt` holds what RabbitMQ 3.10 answered to each of `amqp_conversations`, and under
the same title with `polymq:` and a reason what PolyMQ is meant to answer instead. By hand:

    AMQP_PORT=5672 python amqp_differences.py                 # all
    AMQP_PORT=5672 python amqp_differences.py transactions    # some
    AMQP_PORT=5672 python amqp_differences.py --record FILE   # what this broker answers
"""

import difflib
import pathlib
import re
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

from amqp_conversations import connections, consuming, conversations, publishing, topology
from amqp_wire import Wire
from cases import AMQP_PORT, PEER, case, main

# Each adds its conversations when it is loaded.
LOADED = (connections, topology, publishing, consuming)
ANSWERS = pathlib.Path(__file__).with_suffix(".txt")


class Peer:
    """What a conversation works with: connections, and names nobody else uses."""

    def __init__(self):
        self.run = f"r{secrets.token_hex(4)}-"
        self.said, self.wires = [], []

    def connect(self):
        self.wires.append(Wire(AMQP_PORT, self.said, self.run))
        return self.wires[-1]

    def name(self, text):
        return self.run + text


def hold(name):
    """Leads a conversation and returns what was said."""
    peer = Peer()
    try:
        conversations[name](peer)
    finally:
        for wire in peer.wires:
            wire.close()
    return [re.sub(r"(time'?[=:]) ?\d+", r"\1*", line) for line in peer.said]


def expected():
    """Answers by title."""
    answers, lines = {}, []
    for line in ANSWERS.read_text().splitlines():
        if line.startswith("## "):
            lines = answers.setdefault(line[3:].split(" (")[0], [])
        elif line.strip():
            lines.append(line)
    return answers


def compare(name, answers, found):
    wanted = answers.get(f"{PEER}: {name}", answers.get(name, []))
    if found != wanted:
        told = difflib.unified_diff(wanted, found, "expected", "found", lineterm="", n=2)
        raise AssertionError("\n" + "\n".join(told))


def record(path, wanted, held):
    with open(path, "w") as file:
        for name in wanted:
            print(f"## {name}", *held[name].result(), sep="\n", end="\n\n", file=file)


def add_case(name, answers, held):
    def function():
        compare(name, answers, held[name].result())

    function.__name__ = name
    case(function)


recorded = sys.argv[2] if sys.argv[1:2] == ["--record"] else None
named = sys.argv[3:] if recorded else sys.argv[1:]
named = named or list(conversations)
# Most of the time goes into waiting for answers that must not come.
with ThreadPoolExecutor(max_workers=16) as pool:
    held = {name: pool.submit(hold, name) for name in named}
if recorded:
    record(recorded, named, held)
else:
    answers = expected()
    for name in named:
        add_case(name, answers, held)
    main()
