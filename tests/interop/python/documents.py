"""The README as a newcomer types it: every command of its shells, in a network of our own, so
that the ports are those that it names. What stands behind a `#` beside a script is what it must
print."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from cases import Skip, case, equal, main

POLYMQ = os.environ["POLYMQ_BIN"]
README = pathlib.Path(__file__).parents[3] / "README.md"
# Seconds that a command may run which goes on until somebody ends it.
ENDLESS = 2


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", README.read_text(), re.M | re.S)


def commands(block):
    """The commands of a block, a heredoc being part of the one that it belongs to."""
    lines = iter(block.splitlines())
    for line in lines:
        end = re.search(r"<<'(\w+)'", line)
        while end:
            more = next(lines)
            line += "\n" + more
            if more == end[1]:
                break
        if line.strip():
            yield line


class Terminal:
    """A folder, a path in which `polymq` is, and a broker that `make run` has started."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.broker = None
        tools = self.folder / "bin"
        tools.mkdir()
        (tools / "polymq").symlink_to(POLYMQ)
        (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tools / "python3").chmod(0o755)
        self.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}", "HOME": folder, "LANG": "C.UTF-8"}
        self.variables = ""

    def start(self, arguments):
        """Starts a broker, and waits until it says that it is ready."""
        self.broker = subprocess.Popen(
            [POLYMQ, *arguments], cwd=self.folder, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=self.environment, text=True)
        for line in self.broker.stdout:
            if "ready" in line:
                return
        raise AssertionError(f"{arguments}: the broker has ended")

    def end(self, how):
        if self.broker:
            self.broker.send_signal(how)
            self.broker.wait(30)
            self.broker = None

    def type(self, command):
        """Runs a command in a shell; returns what it prints."""
        endless = " -N " in command
        shell = ["timeout", str(ENDLESS)] if endless else []
        done = subprocess.run(
            [*shell, "bash", "-ec", f"{self.variables}\n{command}"], cwd=self.folder,
            env=self.environment, capture_output=True, text=True, timeout=40)
        ends = {124} if endless else {0, 1} if "polymq doctor" in command else {0}
        if done.returncode not in ends:
            raise AssertionError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
        # curl succeeds whatever the answer says.
        assert '"code":' not in done.stdout, f"{command}: {done.stdout}"
        return done.stdout

    def enter(self, command):
        """A command of the README, as far as it is not ours to do."""
        if re.match(r"\w+=", command):
            self.variables += command.split("#")[0] + "\n"
        elif command.startswith("make run"):
            self.start(["server", "--dev"])
        elif command.startswith("make "):
            pass
        elif command.startswith("pkill -KILL -x polymq"):
            self.end(signal.SIGKILL)
        elif command.startswith("polymq server "):
            self.end(signal.SIGTERM)
            self.start(command.split("#")[0].split()[1:])
            self.end(signal.SIGTERM)
        else:
            printed = self.type(command)
            told = re.search(r"receive\.py +# (\w+\..*)", command)
            if told:
                assert told[1] in printed.splitlines(), f"{command}: {printed!r}"


def in_a_network_of_our_own():
    """Begins this script again where nobody else has a port."""
    if os.environ.get("OWN_NETWORK"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    missing = [tool for tool in ("mosquitto_pub", "curl", "unshare", "ip")
               if not shutil.which(tool)]
    if missing:
        raise Skip(f"{', '.join(missing)} missing")
    ours = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*ours, "true"], capture_output=True).returncode:
        raise Skip("no network of one's own may be made here")
    os.environ["OWN_NETWORK"] = "1"
    os.execvp(ours[0], [*ours, sys.executable, *sys.argv])


@case
def every_command_of_the_readme_works():
    in_a_network_of_our_own()
    folder = tempfile.mkdtemp(prefix="polymq-readme-")
    terminal = Terminal(folder)
    etc, lib = f"{folder}/etc", f"{folder}/lib"
    try:
        terminal.type(f"polymq init {etc} --tls && mv {etc}/tls/cert.pem {etc}/fullchain.pem && "
                      f"mv {etc}/tls/key.pem {etc}/key.pem")
        there = [block.replace("/etc/polymq", etc).replace("/var/lib/polymq", lib)
                 for block in blocks("sh")]
        config, = blocks("toml")
        pathlib.Path(etc, "polymq.toml").write_text(config.replace("/etc/polymq", etc))
        begun, count = time.monotonic(), 0
        for block in there:
            for command in commands(block):
                terminal.enter(command)
                count += 1
        equal(count > 25, True, f"{count} commands in {time.monotonic() - begun:.0f} s")
    finally:
        terminal.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


main()
