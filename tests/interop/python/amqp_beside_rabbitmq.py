"""Plays every scenario of `amqp_oracle` to RabbitMQ and PolyMQ at once and compares the answers.

By hand, with both running:

    AMQP_PORT=5672 ORACLE_PORT=5673 python amqp_beside_rabbitmq.py                # all
    AMQP_PORT=5672 ORACLE_PORT=5673 python amqp_beside_rabbitmq.py priorities     # some
    ... python amqp_beside_rabbitmq.py --show priorities                          # what both said
"""

import difflib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from amqp_oracle import Talk, exchanges, publishing, queues, scenarios, settling
from cases import AMQP_PORT, Skip, case, main

# Each adds its scenarios when it is loaded.
LOADED = (exchanges, queues, settling, publishing)
ORACLE_PORT = int(os.environ["ORACLE_PORT"])


def play(name, port):
    """What one broker says in a scenario, a failure of the scenario included."""
    talk = Talk(port)
    try:
        scenarios[name](talk)
    except Exception as error:  # the comparison shows where it stopped
        talk.said.append(f"stopped: {error!r}")
    finally:
        talk.close()
    return talk.lines()


def judge(name, wanted, found):
    scenario = scenarios[name]
    stated = getattr(scenario, "differs", None)
    waits = getattr(scenario, "awaited", None)
    told = list(difflib.unified_diff(wanted, found, "RabbitMQ", "PolyMQ", lineterm="", n=3))
    if waits:
        raise Skip(f"awaited: {waits}" + ("" if told else ", and it is there: remove the mark"))
    if told and not stated:
        raise AssertionError("\n" + "\n".join(told))
    if stated and not told:
        raise AssertionError(f"no difference is left, though one is stated: {stated}")
    if stated:
        print(f"note {name} differs as stated in {stated}\n" + "\n".join(told), file=sys.stderr)


def add_case(name, oracle, ours):
    def function():
        judge(name, oracle.result(), ours.result())

    function.__name__ = name
    case(function)


show = sys.argv[1:2] == ["--show"]
named = sys.argv[2:] if show else sys.argv[1:]
named = named or list(scenarios)
# Most of the time goes into waiting for expiry, and for answers that must not come.
with ThreadPoolExecutor(max_workers=32) as pool:
    played = {
        name: (pool.submit(play, name, ORACLE_PORT), pool.submit(play, name, AMQP_PORT))
        for name in named
    }
if show:
    for name, (oracle, ours) in played.items():
        print(f"## {name}: RabbitMQ", *oracle.result(), "## PolyMQ", *ours.result(), sep="\n")
else:
    for name, (oracle, ours) in played.items():
        add_case(name, oracle, ours)
    main()
