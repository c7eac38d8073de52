"""The Celery application that the worker process and the script share."""

import os
import time

from celery import Celery

app = Celery(
    "interop",
    broker=os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
    backend="rpc://",
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_retry=True,
    broker_connection_max_retries=None,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "confirm_publish": True, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2,
    },
    result_expires=60,
    task_default_delivery_mode="persistent",
)


@app.task
def add(a, b):
    return a + b


@app.task
def fail(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3)
def third_time_lucky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(max_retries=2, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False)
def gives_up():
    raise OSError("not yet")


@app.task(rate_limit="10/s")
def limited():
    return time.time()


@app.task
def when():
    return time.time()


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 1})
    return "done"
