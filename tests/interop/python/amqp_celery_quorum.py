"""Celery's native delays: a ladder of queues with expiry and dead letters in the broker.

RabbitMQ of Debian's version has no quorum queues that Celery takes for such; this is for PolyMQ.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pika
from cases import AMQP_URL, case, equal, eventually, main, within
from tasks_quorum import app, second_time, when

LIMIT = 60
worker_log = tempfile.NamedTemporaryFile("w+", prefix="celery-", suffix=".log")
worker = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "tasks_quorum", "worker", "--pool=solo",
     "--loglevel=INFO", "-n", "quorum@localhost"],
    cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=worker_log,
    stderr=subprocess.STDOUT, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", C_FORCE_ROOT="1"),
)


@case
def worker_declares_the_ladder():
    try:
        eventually(lambda: app.control.ping(timeout=0.5), "the worker answers a ping", 60)
    except AssertionError:
        print(Path(worker_log.name).read_text(), file=sys.stderr)
        raise
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        for level in range(28):
            channel.queue_declare(f"celery_delayed_{level}", passive=True)
        channel.exchange_declare("celery_delayed_delivery", passive=True)


@case
def a_delayed_task_waits_in_the_broker():
    late = when.apply_async(countdown=8)
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()

        def waiting():
            return sum(
                channel.queue_declare(f"celery_delayed_{level}", passive=True).method.message_count
                for level in range(28))

        eventually(lambda: waiting() == 1, "it waits in one of the queues")
    sent = time.time()
    within(late.get(timeout=LIMIT) - sent, 0.1, 60, "delay")


@case
def an_eta_is_kept():
    eta = datetime.now(timezone.utc) + timedelta(seconds=2)
    ran = when.apply_async(eta=eta).get(timeout=LIMIT)
    within(ran - eta.timestamp(), -1.1, 30, "after its time, in whole seconds")


@case
def a_retry_is_delayed_by_the_broker_too():
    sent = time.time()
    within(second_time.delay().get(timeout=LIMIT) - sent, 0.9, 60, "delay")


@case
def worker_stops_cleanly():
    worker.terminate()
    equal(worker.wait(timeout=LIMIT), 0, "exit status of the worker")


try:
    main()
finally:
    worker.kill()
