"""Servers to measure and to kill: kvorum, redis-server and etcd on free ports of 127.0.0.1, in temporary directories.

Everything started here is stopped, and every directory removed, when the `Yard` it was started in is left, also by a
signal. Standard library only.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
# How long a server may take to serve, and a reply to come.
PATIENCE_S = 30


class Failure(Exception):
    """A measurement that could not be made; its text says why."""


class Ended(Failure):
    """A server ended by itself; waiting for it is in vain."""


def cargo(*words):
    """Runs cargo in the repository; returns the programs it made, by name."""
    command = ["cargo", *words, "--quiet", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} failed")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    made = [message for message in messages if message.get("executable")]
    return {message["target"]["name"]: message["executable"] for message in made}


def kvorum_binary():
    """The program under test: $KVORUM_BIN, or a release build of this tree."""
    named = os.environ.get("KVORUM_BIN")
    if named is None:
        return cargo("build", "--release", "--bin", "kvorum")["kvorum"]
    if not os.access(named, os.X_OK):
        raise Failure(f"KVORUM_BIN={named} is no program")
    return named


def wait_until(what, probe, patience_s=PATIENCE_S, poll_s=0.01):
    """The first true answer of `probe`, which may fail until then."""
    deadline = time.monotonic() + patience_s
    last = "it says no"
    while time.monotonic() < deadline:
        try:
            answer = probe()
            if answer:
                return answer
        except Ended:
            raise
        except (OSError, Failure, ValueError) as error:
            last = error
        time.sleep(poll_s)
    raise Failure(f"{what} did not happen within {patience_s} s: {last}")


class Client:
    """A blocking connection that speaks RESP2, one request at a time."""

    def __init__(self, port, timeout_s=PATIENCE_S):
        self.socket = socket.create_connection((HOST, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.replies.close()
        self.socket.close()

    def call(self, *words):
        """The reply; an error reply is a Failure, a broken connection an OSError."""
        parts = [str(word).encode() for word in words]
        bulks = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n%s" % (len(parts), bulks))
        return self._reply()

    def _reply(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise Failure(rest)
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        length = int(rest)
        if kind == b"*":
            return [self._reply() for _ in range(length)]
        return self.replies.read(length + 2)[:-2].decode() if length >= 0 else None


def call(port, *words):
    """One request on a connection of its own."""
    with Client(port) as client:
        return client.call(*words)


def http(port, path, body=None, timeout_s=5):
    """The body of a response with status 200; anything else is an OSError."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", data, timeout=timeout_s) as response:
        return response.read().decode()


class Server:
    """A process with a door, its log and the words that started it."""

    def __init__(self, name, words, port, log, admin=None):
        self.name, self.words, self.port, self.log, self.admin = name, words, port, log, admin
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self):
        return self.process.pid

    def stop(self, how=signal.SIGTERM):
        """Ends the process by a signal, and by SIGKILL when that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def kill(self):
        self.stop(signal.SIGKILL)

    def await_up(self, what, probe, **limits):
        """Waits for `probe`; a process that has ended is not waited for."""

        def look():
            if self.process.poll() is not None:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise Ended(f"{self.name} ended with {self.process.returncode}:\n{tail}")
            return probe()

        return wait_until(f"{self.name}: {what}", look, **limits)

    def cpu_s(self):
        """Seconds of processor time used since the start."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise Failure(f"{self.name} shows no VmRSS")


class Yard:
    """A temporary directory and the servers in it; leaving it stops and removes all."""

    def __init__(self, binary):
        self.binary = binary
        self.servers = []
        self.ports = set()
        self.folder = None

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kvorum-bench-"))
        return self

    def __exit__(self, *_):
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()
        for server in self.servers:
            server.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def port(self):
        """A port that nobody listens on, below those that the kernel gives to outgoing connections."""
        for _ in range(1000):
            number = random.randrange(10_000, 32_000)
            if number in self.ports:
                continue
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind((HOST, number))
                self.ports.add(number)
                return number
        raise Failure("no free port")

    def _spawn(self, name, words, port, admin=None):
        (self.folder / name).mkdir()
        server = Server(name, words, port, self.folder / f"{name}.log", admin)
        self.servers.append(server)
        return server

    def kvorum(self, *directives, name="kvorum", before=()):
        """A node alone. `before` are the words of a program that runs it, such as valgrind."""
        return self._kvorum(name, directives, before)

    def _kvorum(self, name, directives, before=()):
        port, admin = self.port(), self.port()
        words = [*before, self.binary, "--port", str(port), "--cluster-port", str(self.port())]
        words += ["--admin-port", str(admin), "--dir", str(self.folder / name / "data")]
        if "--peer-port" not in directives:
            words += ["--peer-port", "0"]
        return self._spawn(name, [*words, *directives], port, admin)

    def kvorums(self, count, *directives, name="kvorum"):
        """A cluster of `count` nodes that are all ready."""
        peers = [self.port() for _ in range(count)]
        members = " ".join(f"n{at + 1}={HOST}:{port}" for at, port in enumerate(peers))
        nodes = []
        for at, peer in enumerate(peers):
            own = ["--node-id", f"n{at + 1}", "--cluster-nodes", members, "--peer-port", str(peer)]
            nodes.append(self._kvorum(f"{name}-n{at + 1}", [*own, *directives]))
        for node in nodes:
            await_ready(node)
        return nodes

    def redis(self, *directives, name="redis"):
        port = self.port()
        words = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--dir", str(self.folder / name)]
        server = self._spawn(name, [*words, *directives], port)
        server.await_up("an answer to PING", lambda: call(port, "PING") == "PONG")
        return server

    def redis_with_replicas(self, replicas, *directives):
        """A primary that all its replicas follow."""
        primary = self.redis(*directives, name="redis-primary")
        follow = ["--replicaof", f"{HOST} {primary.port}"]
        for at in range(replicas):
            self.redis(*directives, *follow, name=f"redis-replica-{at + 1}")
        online = f"connected_slaves:{replicas}"

        def all_follow():
            lines = call(primary.port, "INFO", "replication").splitlines()
            return online in lines and sum("state=online" in line for line in lines) == replicas

        primary.await_up(online, all_follow, patience_s=60)
        return primary

    def etcds(self, count):
        """A cluster of etcd; the leader comes first."""
        doors = [(f"etcd-{at + 1}", self.port(), self.port()) for at in range(count)]
        cluster = ",".join(f"{name}=http://{HOST}:{peer}" for name, _, peer in doors)
        nodes = []
        for name, port, peer in doors:
            client_url, peer_url = f"http://{HOST}:{port}", f"http://{HOST}:{peer}"
            words = ["etcd", "--name", name, "--data-dir", str(self.folder / name / "data")]
            words += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
            words += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
            words += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            nodes.append(self._spawn(name, words, port))
        for node in nodes:
            node.await_up("health", lambda port=node.port: '"true"' in http(port, "/health"))

        def leads(node):
            status = json.loads(http(node.port, "/v3/maintenance/status", {}))
            return status["header"]["member_id"] == status["leader"]

        return sorted(nodes, key=leads, reverse=True)


def await_ready(node, **limits):
    """Waits until the node says that every shard has a leader."""
    node.await_up("readiness", lambda: http(node.admin, "/readyz"), **limits)


def leader_of(nodes, key):
    """Which of `nodes` leads the shard of `key`, as soon as all agree."""

    def agreed():
        names = {json.loads(http(node.admin, f"/api/leader?key={key}")).get("leader") for node in nodes}
        return names.pop() if len(names) == 1 else None

    name = wait_until(f"one leader for {key}", agreed)
    return next(node for node in nodes if node.name.endswith(f"-{name}"))


def end_by_signals():
    """Lets signals end the program in order, so that everything started is stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
