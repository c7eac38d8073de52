"""stomp.py over STOMP 1.0, 1.1 and 1.2."""

import queue
import time

import stomp

from cases import PASS, STOMP_HOST, STOMP_PORT, USER, case, ctl, equal, main, only_for

LIMIT = 30
VERSIONS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Inbox(stomp.ConnectionListener):
    """What the server says, by kind, to be waited for."""

    def __init__(self):
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.errors = queue.Queue()
        self.lost = queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers)

    def on_error(self, frame):
        self.errors.put(frame)

    def on_disconnected(self):
        self.lost.put(True)

    def message(self):
        return self.messages.get(timeout=LIMIT)

    def receipt(self, wanted):
        headers = self.receipts.get(timeout=LIMIT)
        equal(headers["receipt-id"], wanted, "receipt")
        return headers


class Client:
    """A connection and its inbox."""

    def __init__(self, version="1.2", password=PASS, **more):
        if version == "1.0":
            more.pop("heartbeats", None)
        self.version = version
        self.inbox = Inbox()
        self.count = 0
        self.connection = VERSIONS[version]([(STOMP_HOST, STOMP_PORT)], reconnect_attempts_max=1,
                                            **more)
        self.connection.set_listener("inbox", self.inbox)
        self.connection.connect(USER, password, wait=True)

    def subscribe(self, destination, ack="auto", **headers):
        self.count += 1
        number = str(self.count)
        own = {"receipt": f"s{number}", **headers}
        if self.version == "1.0":
            self.connection.subscribe(destination, ack=ack, headers=own)
        else:
            self.connection.subscribe(destination, id=number, ack=ack, headers=own)
        self.inbox.receipt(f"s{number}")
        return number

    def send(self, destination, body, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.send(destination, body, headers=named)

    def confirmed(self, destination, body, **headers):
        self.count += 1
        self.send(destination, body, receipt=f"r{self.count}", **headers)
        return self.inbox.receipt(f"r{self.count}")

    def ack(self, frame, **headers):
        self.settle(self.connection.ack, frame, **headers)

    def nack(self, frame, **headers):
        self.settle(self.connection.nack, frame, **headers)

    def settle(self, method, frame, **headers):
        if self.version == "1.2":
            method(frame.headers["ack"], **headers)
        elif self.version == "1.1":
            method(frame.headers["message-id"], frame.headers["subscription"], **headers)
        else:
            method(frame.headers["message-id"], **headers)

    def close(self):
        self.connection.disconnect(receipt="bye")
        self.inbox.lost.get(timeout=LIMIT)


def newer():
    return [version for version in VERSIONS if version != "1.0"]


@case
def send_and_receive():
    for version in VERSIONS:
        client = Client(version)
        client.subscribe(f"/queue/py-{version}")
        for number in range(50):
            client.send(f"/queue/py-{version}", str(number))
        equal([client.inbox.message().body for _ in range(50)], [str(n) for n in range(50)])
        client.close()


@case
def headers_return_as_they_were():
    for version in VERSIONS:
        client = Client(version)
        client.subscribe("/topic/py.headers")
        value = "plain: x" if version == "1.0" else "line\nand: \\ more"
        client.send("/topic/py.headers", "é", mine=value, correlation_id="c", priority="3")
        frame = client.inbox.message()
        equal(frame.body, "é")
        equal(frame.headers["mine"], value)
        equal((frame.headers["correlation-id"], frame.headers["priority"]), ("c", "3"))
        equal(frame.headers["destination"], "/topic/py.headers")
        client.close()


@case
def topics_have_wildcards():
    client = Client()
    client.subscribe("/topic/py.*.temp")
    client.subscribe("/topic/py.#")
    client.send("/topic/py.kitchen.temp", "1")
    equal([client.inbox.message().body for _ in range(2)], ["1", "1"])
    client.send("/topic/py.kitchen.light", "2")
    equal(client.inbox.message().headers["subscription"], "2")
    client.close()


@case
def heart_beats_keep_the_connection():
    for version in newer():
        client = Client(version, heartbeats=(1000, 1000))
        client.subscribe("/queue/py-heart")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            equal(client.inbox.lost.empty(), True, "connection kept")
            time.sleep(0.1)
        client.send("/queue/py-heart", "alive")
        equal(client.inbox.message().body, "alive")
        client.close()


@case
def client_acks_take_those_before_them():
    for version in VERSIONS:
        name = f"/queue/py-ack-{version}"
        client = Client(version)
        client.subscribe(name, ack="client")
        for number in range(5):
            client.send(name, str(number), persistent="true")
        frames = [client.inbox.message() for _ in range(5)]
        client.ack(frames[2])
        client.close()
        again = Client(version)
        again.subscribe(name, ack="client")
        left = [again.inbox.message() for _ in range(2)]
        equal([frame.body for frame in left], ["3", "4"])
        again.ack(left[1])
        again.close()


@case
def nack_gives_a_message_back_or_away():
    for version in newer():
        name = f"/queue/py-nack-{version}"
        client = Client(version)
        client.subscribe(name, ack="client-individual")
        client.send(name, "x")
        client.nack(client.inbox.message())
        frame = client.inbox.message()
        equal(frame.body, "x")
        client.nack(frame, requeue="false")
        client.send(name, "y")
        frame = client.inbox.message()
        equal(frame.body, "y")
        client.ack(frame)
        client.close()


@case
def prefetch_bounds_what_is_on_the_way():
    client = Client()
    client.subscribe("/queue/py-prefetch", ack="client-individual", **{"prefetch-count": "2"})
    for number in range(4):
        client.send("/queue/py-prefetch", str(number))
    first = [client.inbox.message() for _ in range(2)]
    client.confirmed("/queue/py-other", "x")
    equal(client.inbox.messages.empty(), True, "prefetch held")
    for frame in first:
        client.ack(frame)
    for frame in [client.inbox.message() for _ in range(2)]:
        client.ack(frame)
    client.close()


@case
def transactions_are_all_or_nothing():
    for version in VERSIONS:
        name = f"/queue/py-tx-{version}"
        client = Client(version)
        client.subscribe(name)
        first = client.connection.begin()
        client.connection.send(name, "lost", transaction=first)
        client.connection.abort(first)
        second = client.connection.begin()
        client.connection.send(name, "1", transaction=second)
        client.connection.send(name, "2", transaction=second)
        client.confirmed("/queue/py-other", "x")
        equal(client.inbox.messages.empty(), True, "nothing before the commit")
        client.connection.commit(second)
        equal([client.inbox.message().body for _ in range(2)], ["1", "2"])
        client.close()


@case
def durable_subscription_waits_for_its_client():
    durable = {"durable": "true", "auto-delete": "false"}
    client = Client()
    client.subscribe("/topic/py.durable", **durable)
    client.close()
    sender = Client()
    sender.confirmed("/topic/py.durable", "missed", persistent="true")
    ctl("restart")
    client = Client()
    number = client.subscribe("/topic/py.durable", **durable)
    equal(client.inbox.message().body, "missed")
    client.connection.unsubscribe(number, headers={"receipt": "u", **durable})
    client.inbox.receipt("u")
    client.close()


@case
def answers_reach_a_private_queue():
    worker, asker = Client(), Client()
    worker.subscribe("/queue/py-rpc")
    asker.send("/queue/py-rpc", "question", reply_to="/temp-queue/answers")
    ask = worker.inbox.message()
    worker.send(ask.headers["reply-to"], "answer")
    answer = asker.inbox.message()
    equal((answer.body, answer.headers["subscription"]), ("answer", "/temp-queue/answers"))
    worker.close()
    asker.close()


@case
def errors_name_the_receipt_and_end_the_connection():
    client = Client()
    client.send("/exchange/nowhere/x", "x", receipt="bad")
    frame = client.inbox.errors.get(timeout=LIMIT)
    # RabbitMQ tells of a missing exchange without the receipt.
    only_for("polymq")
    equal((frame.headers["message"], frame.headers["receipt-id"]), ("not found", "bad"))
    client.inbox.lost.get(timeout=LIMIT)


@case
def wrong_password_is_refused():
    for version in VERSIONS:
        try:
            Client(version, password="wrong")
            raise AssertionError("accepted")
        except stomp.exception.ConnectFailedException:
            pass


@case
def lost_connection_gives_messages_back():
    client = Client()
    client.subscribe("/queue/py-lost", ack="client-individual")
    client.send("/queue/py-lost", "x", persistent="true")
    client.inbox.message()
    ctl("cut")
    client.inbox.lost.get(timeout=LIMIT)
    again = Client()
    again.subscribe("/queue/py-lost", ack="client-individual")
    frame = again.inbox.message()
    equal(frame.body, "x")
    again.ack(frame)
    again.close()


@case
def what_a_receipt_says_survives_a_kill():
    only_for("polymq")
    client = Client()
    for number in range(20):
        headers = client.confirmed("/queue/py-kill", str(number), persistent="true")
        equal(headers["x-durability"], "sync")
    client.subscribe("/queue/py-kill", ack="client-individual")
    frame = client.inbox.message()
    client.ack(frame, receipt="gone")
    client.inbox.receipt("gone")
    ctl("kill")
    again = Client()
    again.subscribe("/queue/py-kill")
    equal([again.inbox.message().body for _ in range(19)], [str(n) for n in range(1, 20)])
    again.close()


@case
def receipt_tells_that_nobody_was_there():
    only_for("polymq")
    client = Client()
    equal(client.confirmed("/topic/py.nobody", "x")["x-routed"], "false")
    client.close()


main()
