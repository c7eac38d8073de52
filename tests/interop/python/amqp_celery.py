"""Celery as a task queue: a real worker process, results over rpc://, retries, control."""

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from celery import chain, group
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout

from cases import case, ctl, equal, eventually, main, within
from tasks import add, app, fail, gives_up, limited, progress, third_time_lucky, total, when

LIMIT = 40
HERE = Path(__file__).parent


def start_worker():
    log = tempfile.NamedTemporaryFile("w+", prefix="celery-", suffix=".log")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork",
         "--concurrency=2", "--loglevel=INFO", "-n", "interop@localhost"],
        cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", C_FORCE_ROOT="1"),
    )
    return worker, log


worker, worker_log = start_worker()


@case
def worker_comes_up():
    try:
        eventually(lambda: app.control.ping(timeout=0.5), "the worker answers a ping", 60)
    except AssertionError:
        print(Path(worker_log.name).read_text(), file=sys.stderr)
        raise


@case
def tasks_return_results():
    results = [add.delay(n, n) for n in range(20)]
    equal([result.get(timeout=LIMIT) for result in results], [2 * n for n in range(20)])


@case
def failure_reaches_the_caller():
    try:
        fail.delay("on purpose").get(timeout=LIMIT)
    except ValueError as error:
        equal(str(error), "on purpose")
    else:
        raise AssertionError("no error")


@case
def task_is_retried():
    equal(third_time_lucky.delay().get(timeout=LIMIT), 2)


@case
def countdown_and_expiry():
    equal(add.apply_async((1, 2), countdown=0.2).get(timeout=LIMIT), 3)
    late = add.apply_async((1, 2), countdown=0.5, expires=0.1)
    try:
        late.get(timeout=LIMIT)
        raise AssertionError("an expired task ran")
    except CeleryTimeout:
        raise
    except Exception as error:
        equal(type(error).__name__, "TaskRevokedError")


@case
def tasks_wait_for_their_time():
    for late in (0.5, 1.5):
        eta = datetime.now(timezone.utc) + timedelta(seconds=late)
        ran = when.apply_async(eta=eta).get(timeout=LIMIT)
        within(ran - eta.timestamp(), 0, 20, "after its time")
    # One that waits holds up none that are due.
    later = add.apply_async((1, 1), countdown=3)
    equal(add.delay(2, 2).get(timeout=LIMIT), 4)
    equal(later.get(timeout=LIMIT), 2)


@case
def retries_back_off():
    started = time.time()
    equal(gives_up.delay().get(timeout=LIMIT, propagate=False).__class__.__name__, "OSError")
    # 1, 2 seconds: Celery's own backoff in whole seconds.
    within(time.time() - started, 2.9, 60, "two retries")


@case
def rate_limit_spreads_tasks():
    times = sorted(group(limited.s() for _ in range(6))().get(timeout=LIMIT))
    within(times[-1] - times[0], 0.4, 30, "six tasks at ten in a second")
    app.control.rate_limit("tasks.limited", "1000/s", reply=True, timeout=2)
    times = sorted(group(limited.s() for _ in range(6))().get(timeout=LIMIT))
    within(times[-1] - times[0], 0, 20, "six tasks at a thousand in a second")


@case
def a_revoked_task_does_not_run():
    # Time for the worker to hear of it first.
    late = add.apply_async((1, 2), countdown=3)
    late.revoke()
    try:
        late.get(timeout=LIMIT)
    except TaskRevokedError:
        return
    raise AssertionError("a revoked task ran")


@case
def groups_and_chains():
    equal(group(add.s(n, 1) for n in range(10))().get(timeout=LIMIT), list(range(1, 11)))
    equal(chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=LIMIT), 10)


@case
def inspection_over_the_control_exchange():
    def registered():
        answers = app.control.inspect(timeout=2).registered() or {}
        return "tasks.add" in answers.get("interop@localhost", [])

    eventually(registered, "the worker tells its tasks")


@case
def worker_reconnects_after_the_broker_was_killed():
    ctl("kill")
    result = None

    def ask():
        nonlocal result
        try:
            result = add.apply_async((20, 22), retry=True)
            return True
        except OSError:
            return False

    eventually(ask, "a task can be published again", LIMIT)
    equal(result.get(timeout=LIMIT), 42)


@case
def worker_stops_cleanly():
    worker.terminate()
    equal(worker.wait(timeout=LIMIT), 0, "exit status of the worker")


try:
    main()
finally:
    worker.kill()
