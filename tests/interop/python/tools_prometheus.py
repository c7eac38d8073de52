"""A real Prometheus that scrapes /metrics, asked what dashboards for RabbitMQ ask."""

import json
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import pika

from cases import AMQP_URL, METRICS_PORT, Skip, at_end, case, equal, eventually, main

# Queries join every metric with who the node is, by these labels.
IDENTITY = ('* on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) '
            'rabbitmq_identity_info{namespace="test", rabbitmq_endpoint="aggregated"}')
FOLDER = Path(tempfile.mkdtemp(prefix="prometheus-"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


PORT = free_port()


def start():
    program = shutil.which("prometheus") or shutil.which("prometheus", path="/usr/bin")
    if not program:
        return None
    (FOLDER / "config.yml").write_text(f"""
global: {{scrape_interval: 500ms}}
scrape_configs:
  - job_name: polymq
    static_configs:
      - targets: ["127.0.0.1:{METRICS_PORT}"]
        labels: {{namespace: test}}
""")
    log = open(FOLDER / "log", "w")
    return subprocess.Popen(
        [program, f"--config.file={FOLDER}/config.yml", f"--storage.tsdb.path={FOLDER}/data",
         f"--web.listen-address=127.0.0.1:{PORT}"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)


prometheus = start()


@at_end
def stop():
    if prometheus:
        prometheus.kill()
        prometheus.wait(10)
    shutil.rmtree(FOLDER, ignore_errors=True)


def asked(query):
    if not prometheus:
        raise Skip("Debian's package prometheus is not installed")
    url = f"http://127.0.0.1:{PORT}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
    except OSError:
        return []
    equal(found["status"], "success", query)
    return [float(row["value"][1]) for row in found["data"]["result"]]


@case
def the_page_is_scraped_without_a_complaint():
    eventually(lambda: asked('up{job="polymq"}') == [1.0], "a scrape", 60)
    if any(word in (FOLDER / "log").read_text() for word in ("level=error", "out of order")):
        raise AssertionError((FOLDER / "log").read_text())


@case
def gauges_are_what_the_broker_holds():
    asked("up")
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("watched", durable=True)
    for _ in range(5):
        channel.basic_publish("", "watched", b"x" * 150)
    channel.basic_get("watched")
    for metric, value in [
        ("rabbitmq_queue_messages_ready", 4), ("rabbitmq_queue_messages_unacked", 1),
        ("rabbitmq_queues", 1), ("rabbitmq_connections", 1), ("rabbitmq_channels", 1),
        ("rabbitmq_global_publishers", 1), ("rabbitmq_global_consumers", 0),
    ]:
        query = f"sum({metric} {IDENTITY})"
        eventually(lambda: asked(query) == [value], f"{query} = {value}, not {asked(query)}")
    connection.close()


@case
def rates_and_sizes_are_computed():
    asked("up")
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("rates", durable=True)

    def moves(query):
        channel.basic_publish("", "rates", b"x" * 150)
        channel.basic_get("rates", auto_ack=True)
        return [value for value in asked(query) if value > 0]

    for metric in [
        "received_total", "received_confirm_total", "routed_total", "confirmed_total",
        "delivered_total", "delivered_get_auto_ack_total",
    ]:
        query = f"sum(rate(rabbitmq_global_messages_{metric}[10s]) {IDENTITY}) by(rabbitmq_node)"
        eventually(lambda: moves(query), query, 40)
    small = f'sum(increase(rabbitmq_message_size_bytes_bucket{{le="100.0"}}[30s]) {IDENTITY})'
    more = f'sum(increase(rabbitmq_message_size_bytes_bucket{{le="1000.0"}}[30s]) {IDENTITY})'
    eventually(lambda: moves(f"{more} - {small}"), "messages between 100 and 1,000 bytes", 40)
    connection.close()


@case
def the_node_and_its_resources_are_told():
    versions = ("rabbitmq_erlang_uptime_seconds * on(instance, job) "
                "group_left(rabbitmq_version, erlang_version) rabbitmq_build_info " + IDENTITY)
    for query in [
        f"count(rabbitmq_identity_info{{namespace='test'}})", versions,
        f"(rabbitmq_process_max_fds - rabbitmq_process_open_fds) {IDENTITY}",
        f"(rabbitmq_disk_space_available_bytes - rabbitmq_disk_space_available_limit_bytes) "
        f"{IDENTITY}",
        f"(rabbitmq_resident_memory_limit_bytes {IDENTITY}) - "
        f"(rabbitmq_process_resident_memory_bytes {IDENTITY})",
    ]:
        equal(len(asked(query)), 1, query)


main()
