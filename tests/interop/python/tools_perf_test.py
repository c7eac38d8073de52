"""RabbitMQ's PerfTest, with the options that people measure a broker with."""

import base64
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from cases import AMQP_URL, HTTP_PORT, PASS, USER, Skip, case, equal, main

JARS = Path(sys.prefix).parent / "java" / "perf-test"
LIMIT = 120


def perf(*options):
    """Runs PerfTest to its end; returns what it says it has sent and received a second."""
    if not shutil.which("java") or not JARS.exists():
        raise Skip("setup.sh has not fetched PerfTest")
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*",
               "com.rabbitmq.perf.PerfTest", "--uri", AMQP_URL, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    told = done.stdout + done.stderr
    equal(done.returncode, 0, told)
    if re.search(r"exception|error", told, re.IGNORECASE):
        raise AssertionError(told)

    def rate(word):
        found = re.search(rf"{word} rate avg: (\d+)", told)
        return int(found[1]) if found else None

    return rate("sending"), rate("receiving"), told


def flows(*options):
    sent, received, told = perf(*options)
    if not sent or not received:
        raise AssertionError(f"nothing flowed: {told}")
    return told


def queue(name):
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP_PORT}/api/queues/%2F/{name}")
    login = base64.b64encode(f"{USER}:{PASS}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@case
def one_publisher_and_one_consumer():
    flows("-x", 1, "-y", 1, "-C", 5000, "-D", 5000)


@case
def persistent_messages_with_confirms_in_a_durable_queue():
    told = flows("-f", "persistent", "-c", 100, "-C", 3000, "-D", 3000, "-ad", "false",
                 "-u", "perf-durable", "-q", 100, "--multi-ack-every", 50)
    if "confirm" not in told:
        raise AssertionError(f"no confirms: {told}")
    shown = queue("perf-durable")
    equal((shown["durable"], shown["messages"]), (True, 0))


@case
def a_quorum_queue_with_arguments():
    flows("-qq", "-u", "perf-quorum", "-C", 1000, "-D", 1000, "-c", 50, "-q", 200,
          "-qa", "x-max-length=100000,x-delivery-limit=5")
    equal(queue("perf-quorum")["arguments"],
          {"x-queue-type": "quorum", "x-max-length": 100000, "x-delivery-limit": 5})


@case
def many_queues_by_a_pattern_and_many_channels():
    flows("-x", 3, "-y", 6, "-X", 2, "-Y", 2, "-qp", "perf-%d", "-qpf", 1, "-qpt", 3,
          "-z", 2, "-a")


@case
def a_topic_exchange_and_properties():
    flows("-e", "perf-topic", "-t", "topic", "-k", "perf.key", "-u", "perf-topic-queue",
          "-mp", "priority=5,contentType=text/plain,expiration=60000,header1=value1",
          "-C", 1000, "-D", 1000, "-s", 4000, "-f", "mandatory")


@case
def transactions_on_both_sides():
    flows("-m", 10, "-n", 10, "-C", 1000, "-D", 1000)


@case
def polling_with_get():
    flows("-po", "-C", 500, "-D", 500)


@case
def messages_that_are_refused_once_and_come_again():
    perf("-na", "-re", "false", "-C", 1000, "-D", 1000)


@case
def a_rate_json_bodies_and_latencies():
    told = flows("-r", 500, "-jb", "-s", 1000, "-z", 2, "-i", 1, "-ms", "-mf", "compact")
    if "latency" not in told and "ms" not in told:
        raise AssertionError(told)


@case
def a_publisher_alone_fills_and_a_consumer_alone_empties():
    perf("-x", 1, "-y", 0, "-C", 2000, "-u", "perf-filled", "-ad", "false", "-f", "persistent")
    equal(queue("perf-filled")["messages"], 2000)
    perf("-x", 0, "-y", 1, "-D", 2000, "-u", "perf-filled", "-ad", "false", "-p", "-q", 100)
    equal(queue("perf-filled")["messages"], 0)


main()
