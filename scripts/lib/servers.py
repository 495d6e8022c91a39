"""Servers to measure and to kill: kvorum, redis-server and etcd on 127.0.0.1.

What a `Yard` starts lies in a temporary directory and has free ports; it is stopped, and the directory removed, when
the yard is left, also by a signal. A `StandingServer` goes on when the program that started it has ended. Standard
library only.
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
import typing
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
# How long a server may take to serve or to end, and a reply to come.
PATIENCE_S = 30
# Between two looks at a process that is no child of this one.
END_POLL_S = 0.01


class Failure(Exception):
    """A measurement that could not be made; its text says why."""


class Ended(Failure):
    """A server ended by itself; waiting for it is in vain."""


def cargo(*words, **environment):
    """Runs cargo in the repository; returns the programs it made, by name."""
    command = ["cargo", *words, "--quiet", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} failed")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    made = [message for message in messages if message.get("executable")]
    return {message["target"]["name"]: message["executable"] for message in made}


def kvorum_binary(may_be_old=False):
    """The program under test: $KVORUM_BIN, or a release build of this tree; one of before if it `may_be_old`."""
    named = os.environ.get("KVORUM_BIN")
    if named is not None:
        if not os.access(named, os.X_OK):
            raise Failure(f"KVORUM_BIN={named} is no program")
        return named
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release" / "kvorum"
    if may_be_old and os.access(built, os.X_OK):
        return str(built)
    return cargo("build", "--release", "--bin", "kvorum")["kvorum"]


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
        self.socket.sendall(self._request(words))
        return self._reply()

    def pipeline(self, requests):
        """The replies to all of them, errors among them as Failure."""
        self.socket.sendall(b"".join(map(self._request, requests)))
        replies = []
        for _ in requests:
            try:
                replies.append(self._reply())
            except Failure as error:
                replies.append(error)
        return replies

    @staticmethod
    def _request(words):
        parts = [str(word).encode() for word in words]
        bulks = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        return b"*%d\r\n%s" % (len(parts), bulks)

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


class Doors(typing.NamedTuple):
    """The ports of a node; 0 for a door that stays shut."""

    plain: int
    cluster: int
    peer: int
    admin: int


def kvorum_words(binary, data, doors, *directives):
    """What starts a node on the directory `data`."""
    words = [binary, "--dir", str(data)]
    for door, port in zip(("--port", "--cluster-port", "--peer-port", "--admin-port"), doors):
        words += [door, str(port)]
    return [*words, *directives]


def member_directives(number, peers):
    """What makes a node that of `number`, from 1, in a cluster whose peer doors are `peers`."""
    members = " ".join(f"n{at}={HOST}:{port}" for at, port in enumerate(peers, 1))
    return ["--node-id", f"n{number}", "--cluster-nodes", members]


class Server:
    """A process with a door, its log and the words that start it."""

    def __init__(self, name, words, port, log, admin=None):
        self.name, self.words, self.port, self.log, self.admin = name, words, port, log, admin
        self.process = None

    def start(self):
        self.process = self._spawn()

    def _spawn(self, **more):
        with open(self.log, "ab") as log:
            return subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)

    @property
    def pid(self):
        """The number of the process while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def last_words(self, count):
        """The last lines of the log."""
        return self.log.read_text(errors="replace").splitlines()[-count:]

    def how_it_ended(self):
        """In words; None while it runs."""
        return f"ended with {self.process.returncode}" if self.pid is None else None

    def send(self, how):
        """Sends a signal; a process that has ended needs none."""
        with contextlib.suppress(ProcessLookupError):
            if (pid := self.pid) is not None:
                os.kill(pid, how)

    def has_ended_within(self, patience_s):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        return self.pid is None

    def stop(self, how=signal.SIGTERM):
        """Ends the process by a signal, and by SIGKILL when that takes too long."""
        self.send(how)
        # A paused process takes its signal only when it goes on.
        self.send(signal.SIGCONT)
        if not self.has_ended_within(PATIENCE_S):
            print(f"{self.name} does not end; killing it", file=sys.stderr)
            self.send(signal.SIGKILL)
            if not self.has_ended_within(PATIENCE_S):
                raise Failure(f"{self.name} survives SIGKILL")

    def kill(self):
        self.stop(signal.SIGKILL)

    def await_up(self, what, probe, **limits):
        """Waits for `probe`; a process that has ended is not waited for."""

        def look():
            ended = self.how_it_ended()
            if ended:
                raise Ended("\n".join([f"{self.name} {ended}:", *self.last_words(5)]))
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


class StandingServer(Server):
    """A server that other programs find again: the file `pid_file` has its number, `data` stands in its words."""

    def __init__(self, name, words, port, log, admin, data, pid_file):
        super().__init__(name, words, port, log, admin)
        self.data, self.pid_file = data, pid_file

    def start(self):
        # A session of its own: neither the end of the terminal nor Ctrl-C in it is meant for the server.
        self.process = self._spawn(start_new_session=True)
        self.pid_file.write_text(f"{self.process.pid}\n")

    @property
    def pid(self):
        """The number of the process while it runs, whoever started it."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            # The number may have gone to another program since. One that has ended, and nobody asked how, has no words.
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return pid if os.fsencode(self.data) in words else None
        return None

    def how_it_ended(self):
        return "ended" if self.pid is None else None

    def has_ended_within(self, patience_s):
        deadline = time.monotonic() + patience_s
        while self.pid is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(END_POLL_S)
        self.pid_file.unlink(missing_ok=True)
        return True

    def state(self):
        """up, paused or down."""
        with contextlib.suppress(OSError):
            if (pid := self.pid) is not None:
                stopped = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "Tt"
                return "paused" if stopped else "up"
        return "down"


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
            server.send(signal.SIGKILL)
        for server in self.servers:
            server.has_ended_within(PATIENCE_S)
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

    def add(self, server):
        """Starts `server`, which ends with the yard."""
        self.servers.append(server)
        server.start()
        return server

    def _begin(self, name, words, port, admin=None):
        (self.folder / name).mkdir()
        return self.add(Server(name, words, port, self.folder / f"{name}.log", admin))

    def kvorum(self, *directives, name="kvorum", before=()):
        """A node alone. `before` are the words of a program that runs it, such as valgrind."""
        return self._kvorum(name, 0, directives, before)

    def _kvorum(self, name, peer, directives, before=()):
        doors = Doors(plain=self.port(), cluster=self.port(), peer=peer, admin=self.port())
        words = kvorum_words(self.binary, self.folder / name / "data", doors, *directives)
        return self._begin(name, [*before, *words], doors.plain, doors.admin)

    def kvorums(self, count, *directives, name="kvorum"):
        """A cluster of `count` nodes that are all ready."""
        peers = [self.port() for _ in range(count)]
        nodes = []
        for number, peer in enumerate(peers, 1):
            own = member_directives(number, peers)
            nodes.append(self._kvorum(f"{name}-n{number}", peer, [*own, *directives]))
        for node in nodes:
            await_ready(node)
        return nodes

    def redis(self, *directives, name="redis"):
        port = self.port()
        words = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--dir", str(self.folder / name)]
        server = self._begin(name, [*words, *directives], port)
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
            nodes.append(self._begin(name, words, port))
        for node in nodes:
            node.await_up("health", lambda port=node.port: '"true"' in http(port, "/health"))

        def leads(node):
            status = json.loads(http(node.port, "/v3/maintenance/status", {}))
            return status["header"]["member_id"] == status["leader"]

        return sorted(nodes, key=leads, reverse=True)


def await_ready(node, **limits):
    """Waits until the node says that every shard has a leader."""
    node.await_up("readiness", lambda: http(node.admin, "/readyz"), **limits)


def leader_name(node, key):
    """The name of the node that leads the shard of `key`, as `node` knows it; None if it knows none."""
    asked = urllib.parse.quote_from_bytes(os.fsencode(key), safe="")
    return json.loads(http(node.admin, f"/api/leader?key={asked}"))["leader"]


def leader_of(nodes, key):
    """Which of `nodes` leads the shard of `key`, as soon as all agree."""

    def agreed():
        names = {leader_name(node, key) for node in nodes}
        return names.pop() if len(names) == 1 else None

    name = wait_until(f"one leader for {key}", agreed)
    return next(node for node in nodes if node.name.endswith(f"-{name}"))


def end_by_signals():
    """Lets signals end the program in order, so that everything started is stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
