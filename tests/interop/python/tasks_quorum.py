"""A Celery application on quorum queues, whose delays are the broker's and not the worker's."""

import os
import time

from celery import Celery
from kombu import Exchange, Queue

app = Celery(
    "quorum",
    broker=os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
    backend="rpc://",
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_default_queue="quorum",
    task_default_queue_type="quorum",
    task_default_exchange="quorum",
    task_default_exchange_type="topic",
    task_default_routing_key="quorum",
    task_queues=[Queue("quorum", Exchange("quorum", type="topic"), "quorum",
                       queue_arguments={"x-queue-type": "quorum"})],
    broker_transport_options={"confirm_publish": True},
    worker_detect_quorum_queues=True,
    broker_native_delayed_delivery_queue_type="quorum",
)


@app.task
def when():
    return time.time()


@app.task(bind=True, max_retries=2)
def second_time(self):
    if self.request.retries < 1:
        raise self.retry(countdown=1)
    return time.time()
