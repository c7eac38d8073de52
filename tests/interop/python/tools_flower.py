"""Celery Flower: its page of the broker and its API of queues, read through our /api."""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from cases import HTTP_PORT, PASS, USER, at_end, case, eventually, main
from tasks import add, app

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


PORT = free_port()
LOG = tempfile.NamedTemporaryFile("w+", prefix="flower-", suffix=".log")
flower = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "tasks", "flower", "--address=127.0.0.1",
     f"--port={PORT}", f"--broker_api=http://{USER}:{PASS}@127.0.0.1:{HTTP_PORT}/api/"],
    cwd=HERE, stdin=subprocess.DEVNULL, stdout=LOG, stderr=subprocess.STDOUT,
    env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", FLOWER_UNAUTHENTICATED_API="true"),
)


@at_end
def stop():
    flower.kill()
    flower.wait(10)
    os.unlink(LOG.name)


def page(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=30) as answer:
        return answer.read().decode()


def ours(path, body=None, method="GET"):
    request = urllib.request.Request(
        f"http://127.0.0.1:{HTTP_PORT}/api/{path}", body and json.dumps(body).encode(),
        {"Content-Type": "application/json"}, method=method)
    login = base64.b64encode(f"{USER}:{PASS}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def answers():
    try:
        return page("/healthcheck") == "OK"
    except OSError:
        return False


def length():
    """What Flower tells of the queue; nothing when the broker took more than two seconds."""
    found = json.loads(page("/api/queues/length"))["active_queues"]
    return [row["messages"] for row in found if row["name"] == "celery"]


@case
def flower_comes_up():
    try:
        eventually(answers, "Flower answers", 60)
    except AssertionError:
        print(Path(LOG.name).read_text(), file=sys.stderr)
        raise


@case
def lengths_of_queues_are_told_by_its_api():
    with app.connection_for_write() as connection:
        app.amqp.queues["celery"](connection.default_channel).declare()
    for number in range(7):
        add.delay(number, number)

    eventually(lambda: length() == [7], "seven messages", 30)


@case
def its_page_of_the_broker_shows_the_queue_with_its_numbers():
    text = page("/broker")
    for part in ("celery", "messages"):
        if part not in text.lower():
            raise AssertionError(text)
    start = text.index("celery", text.index("<tbody"))
    numbers = text[start:start + 600]
    if ">7<" not in "".join(numbers.split()):
        raise AssertionError(numbers)


@case
def ten_thousand_queues_are_no_reason_to_give_up():
    queues = [{"name": f"other-{n}", "vhost": "/", "durable": False, "auto_delete": False,
               "arguments": {}} for n in range(10_000)]
    ours("definitions", {"queues": queues}, "POST")
    eventually(lambda: length() == [7], "the length of one queue of 10,001", 60)


main()
