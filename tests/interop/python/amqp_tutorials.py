"""The six patterns of `tutorials/`, each with its roles as processes of their own."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from cases import case, equal, main

HERE = Path(__file__).parent / "tutorials"
LIMIT = 30


class Role:
    """A running script whose lines can be awaited."""

    def __init__(self, script, *arguments):
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, f"{script}.py", *arguments], cwd=HERE, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"))
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self):
        return self.lines.get(timeout=LIMIT)

    def take(self, count):
        return [self.line() for _ in range(count)]

    def end(self):
        """Ends the script; returns what it still said."""
        self.process.stdin.close()
        rest = list(iter(self.line, None))
        equal(self.process.wait(timeout=LIMIT), 0, "exit status")
        return rest


def listener(script, *arguments):
    role = Role(script, *arguments)
    equal(role.line(), "ready")
    return role


def run(script, *arguments):
    """Runs a script that ends by itself, and returns what it said."""
    role = Role(script, *arguments)
    said = list(iter(role.line, None))
    equal(role.process.wait(timeout=LIMIT), 0, "exit status")
    return said


@case
def one_hello():
    run("one_hello", "send", "sent before anybody listened")
    receiver = listener("one_hello", "receive")
    run("one_hello", "send", "hello", "world")
    equal(receiver.take(3), ["sent before anybody listened", "hello", "world"])
    equal(receiver.end(), [])


@case
def two_work():
    dies = listener("two_work", "work", "dies")
    run("two_work", "give", "first")
    equal(dies.take(2), ["first", None], "it dies amid its task")
    worker = listener("two_work", "work")
    equal(worker.line(), "first again")
    other = listener("two_work", "work")
    tasks = [f"task {number}" for number in range(10)]
    run("two_work", "give", *tasks)
    mine, others = [], []
    while len(mine) + len(others) < len(tasks):
        for role, seen in ((worker, mine), (other, others)):
            try:
                seen.append(role.lines.get(timeout=0.05))
            except queue.Empty:
                pass
    equal(sorted(mine + others), tasks)
    assert mine and others, "both workers have something to do"
    equal((worker.end(), other.end()), ([], []))


@case
def three_logs():
    run("three_logs", "log", "nobody listens")
    listeners = [listener("three_logs", "listen") for _ in range(2)]
    run("three_logs", "log", "one", "two")
    for role in listeners:
        equal(role.take(2), ["one", "two"])
        equal(role.end(), [])


@case
def four_levels():
    errors = listener("four_levels", "listen", "error")
    everything = listener("four_levels", "listen", "error", "warning", "info")
    for level in ("info", "error", "debug", "warning"):
        run("four_levels", "log", level, f"of {level}")
    equal(errors.line(), "error: of error")
    equal(everything.take(3), ["info: of info", "error: of error", "warning: of warning"])
    equal((errors.end(), everything.end()), ([], []))


@case
def five_topics():
    wishes = {"orange": ["*.orange.*"], "rabbits": ["*.*.rabbit", "lazy.#"], "all": ["#"]}
    roles = {name: listener("five_topics", "listen", *wish) for name, wish in wishes.items()}
    keys = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox",
            "lazy.pink.rabbit", "lazy.orange.new.rabbit", "orange", "lazy"]
    run("five_topics", "tell", *keys)
    wanted = {
        "orange": keys[:2],
        "rabbits": [keys[0], keys[1], keys[3], keys[4], keys[6]],
        "all": keys,
    }
    for name, role in roles.items():
        equal(role.take(len(wanted[name])), wanted[name], name)
        equal(role.end(), [], name)


@case
def six_calls():
    server = listener("six_calls", "answer")
    equal(run("six_calls", "ask", "queue", "30", "1"), ["832040", "1"])
    equal(run("six_calls", "ask", "direct", "10", "90"), ["55", "2880067194370816120"])
    equal(server.end(), [])


main()
