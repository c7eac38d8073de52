"""The small frame of every Python client script: cases, their verdicts, orders to the broker."""

import asyncio
import faulthandler
import inspect
import os
import sys
import time
import traceback

PEER = os.environ.get("PEER", "polymq")
AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
AMQP_HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
AMQP_PORT = int(os.environ.get("AMQP_PORT") or 5672)
MQTT_HOST = os.environ.get("MQTT_HOST", "127.0.0.1")
MQTT_PORT = int(os.environ.get("MQTT_PORT") or 1883)
STOMP_HOST = os.environ.get("STOMP_HOST", "127.0.0.1")
STOMP_PORT = int(os.environ.get("STOMP_PORT") or 61613)
XMPP_HOST = os.environ.get("XMPP_HOST", "127.0.0.1")
XMPP_PORT = int(os.environ.get("XMPP_PORT") or 5222)
HTTP_PORT = int(os.environ.get("HTTP_PORT") or 15672)
METRICS_PORT = int(os.environ.get("METRICS_PORT") or 15692)
XMPP_CA = os.environ.get("XMPP_CA")
USER = os.environ.get("USER", "guest")
PASS = os.environ.get("PASS", "guest")

_registered = []
_endings = []


def at_end(function):
    """Has something done after the last case: the process ends without running what is open."""
    _endings.append(function)
    return function


def case(function):
    """Registers a case. Its name is the function's; it passes when the function returns."""
    _registered.append(function)
    return function


class Skip(Exception):
    """Raised by a case that the broker of this run is known not to support."""


def only_for(*peers):
    if PEER not in peers:
        raise Skip(f"not for {PEER}")


def not_for(peer, why):
    if PEER == peer:
        raise Skip(f"{peer} {why}")


def equal(found, expected, what="value"):
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def within(found, low, high, what="value"):
    if not low <= found <= high:
        raise AssertionError(f"{what}: expected {low} to {high}, found {found!r}")


def ctl(order):
    """Asks the test to kill, restart or cut; returns when that is done."""
    print(f"ctl {order}", flush=True)
    answer = sys.stdin.readline()
    if answer != "done\n":
        raise RuntimeError(f"the test did not answer the order {order!r}")


def eventually(check, what, limit=30.0):
    """Asks again and again, for facts that no client event announces."""
    deadline = time.monotonic() + limit
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)


def main():
    """Runs all cases, or those named on the command line, and ends the process."""
    limit = 170
    faulthandler.dump_traceback_later(limit, exit=True)
    wanted = sys.argv[1:]
    failures = 0
    for function in _registered:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), limit))
            else:
                function()
            print(f"ok {name}", flush=True)
        except Skip as skip:
            print(f"skip {name}: {skip}", flush=True)
        except BaseException as error:  # one bad case must not hide the others
            failures += 1
            text = " ".join(str(error).split()) or type(error).__name__
            print(f"not ok {name}: {type(error).__name__}: {text}", flush=True)
            traceback.print_exc()
    for function in _endings:
        function()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failures else 0)
