"""A newcomer's first minutes: a broker without configuration, its printed password, stock clients
of two protocols, the command line, a kill, a clean stop, and a mistake in a configuration."""

import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import paho.mqtt.client as mqtt
import pika
from cases import case, equal, main, within

POLYMQ = os.environ["POLYMQ_BIN"]


class Server:
    """A broker in an empty folder, on free ports."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        started = time.monotonic()
        self.log = open(self.folder / "log", "ab")
        # The first start ends with a box that holds the password.
        last = "+---------" if not (self.folder / "data").exists() else "  data "
        self.process = subprocess.Popen(
            [POLYMQ, "server", "--port", "0"], cwd=self.folder, stdout=subprocess.PIPE,
            stderr=self.log, env={"PATH": os.environ["PATH"]}, text=True)
        self.banner = ""
        for line in self.process.stdout:
            self.banner += line
            if line.startswith(last):
                break
        self.took = time.monotonic() - started
        self.ports = dict(re.findall(r"^  (\w+) +\S*?127\.0\.0\.1:(\d+)", self.banner, re.M))

    def password(self):
        return (self.folder / "data" / "initial-admin-password").read_text().strip()

    def polymq(self, *arguments, code=0):
        """What a command of the client prints."""
        command = [POLYMQ, *arguments, "--url", f"http://127.0.0.1:{self.ports['http']}",
                   "--user", "admin", "--password-file", "data/initial-admin-password"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, timeout=60,
                              capture_output=True, text=True)
        equal(done.returncode, code, f"{arguments}: {done.stderr}")
        return done.stdout

    def begin(self, *arguments):
        """A command of the client that goes on."""
        command = [POLYMQ, *arguments, "--url", f"http://127.0.0.1:{self.ports['http']}",
                   "--user", "admin", "--password-file", "data/initial-admin-password"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True,
                                stdout=subprocess.PIPE)

    def api(self, path):
        """What the HTTP API answers, without our client."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['http']}/api/v1{path}")
        login = base64.b64encode(f"admin:{self.password()}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def within_seconds(is_so, what):
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def publish(server, topic, body):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.username_pw_set("admin", server.password())
    client.connect("127.0.0.1", int(server.ports["mqtt"]))
    client.loop_start()
    sent = client.publish(topic, body, qos=1)
    sent.wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def consume(server, queue):
    """The next message by AMQP, acknowledged."""
    parameters = pika.ConnectionParameters(
        "127.0.0.1", int(server.ports["amqp"]),
        credentials=pika.PlainCredentials("admin", server.password()))
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        method, properties, body = channel.basic_get(queue)
        channel.basic_ack(method.delivery_tag)
        return method.routing_key, body


@case
def the_first_minutes_take_less_than_two():
    folder = tempfile.mkdtemp(prefix="polymq-first-")
    started = time.monotonic()
    server = Server(folder)
    try:
        within(server.took, 0, 20, "seconds to the banner")
        assert server.password() in server.banner, "the password is printed once"
        assert '"ok"' in server.polymq("health", "-o", "json")

        server.polymq("queue", "create", "hello")
        server.polymq("binding", "create", "amq.topic", "hello", "demo.#")
        trace = server.begin("trace", "-n", "3", "--address", "topic:demo.1", "-o", "jsonl")
        within_seconds(lambda: server.api("/traces")["items"], "the trace has begun")
        publish(server, "demo/1", b"\x00first\xff")
        equal(consume(server, "hello"), ("demo.1", b"\x00first\xff"))
        steps = [json.loads(line) for line in trace.communicate(timeout=30)[0].splitlines()]
        spoken = {step.get("protocol") for step in steps}
        assert "mqtt" in spoken, f"the trace tells who has published: {steps}"
        received = server.api("/vhosts/~/queues/hello")["activity"]
        equal(received["published"], 1, f"the API has seen it: {received}")

        publish(server, "demo/2", b"second")
        peeked = json.loads(server.polymq("queue", "peek", "hello", "-o", "json"))
        equal([m["payload"] for m in peeked], ["second"], "looking takes nothing")
        listed = json.loads(server.polymq("queue", "ls", "-o", "json"))
        equal([(q["name"], q["messages"]["ready"]) for q in listed], [("hello", 1)])
        assert "queue hello" in server.polymq("route", "topic:demo.2")
        assert "queue hello" not in server.polymq("route", "topic:other.1")
        server.polymq("queue", "show", "nothing", code=4)

        server.kill()
        server = Server(folder)
        equal(consume(server, "hello"), ("demo.2", b"second"), "after a kill")
        equal(server.stop(), 0, "exit code")
        within(time.monotonic() - started, 0, 120, "seconds in all")

        (pathlib.Path(folder) / "polymq.toml").write_text("[limits]\nconections = 5\n")
        wrong = subprocess.run([POLYMQ, "check", "polymq.toml"], cwd=folder, timeout=60,
                               capture_output=True, text=True)
        equal(wrong.returncode, 1)
        assert "polymq.toml:2:1" in wrong.stderr and "connections" in wrong.stderr, wrong.stderr
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


main()
