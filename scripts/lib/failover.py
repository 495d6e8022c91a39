"""How long clients wait when the leader is killed, and whether the counter they increment stays exact."""

import dataclasses
import random
import statistics
import threading
import time

from servers import Client, Failure, Yard, await_ready, call, leader_of

KEY = "counter"
CLIENTS_PER_NODE = 2
# Load before the kill, so that it falls anywhere between two heartbeats.
BEFORE_S = (0.5, 1.0)
# Load after every client has been answered again, to see that it stays so.
AFTER_S = 0.5
PAUSE_S_MAX = 20


@dataclasses.dataclass
class Outcome:
    pauses_ms: list
    errors: list
    acknowledged: int
    counter: int
    repeated: int

    @property
    def is_exact(self):
        return self.counter == self.acknowledged and self.repeated == 0 and not self.errors

    @property
    def median_ms(self):
        return statistics.median(self.pauses_ms)

    @property
    def max_ms(self):
        return max(self.pauses_ms)


class Load(threading.Thread):
    """One client that increments the counter, one request at a time, until told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.stopping = threading.Event()
        self.values = []
        self.errors = []
        # When each reply came, and how long after its request.
        self.replies = []

    def run(self):
        try:
            with Client(self.port, PAUSE_S_MAX) as client:
                while not self.stopping.is_set():
                    sent = time.monotonic()
                    try:
                        self.values.append(client.call("INCR", KEY))
                    except Failure as error:
                        self.errors.append(str(error))
                    now = time.monotonic()
                    self.replies.append((now, now - sent))
        except OSError as error:
            self.errors.append(f"the connection broke: {error}")

    def has_replied_since(self, then):
        return bool(self.replies) and self.replies[-1][0] - self.replies[-1][1] >= then

    def longest_s(self, since):
        return max((latency for at, latency in self.replies if at >= since), default=float("inf"))


def kill_once(nodes, moments):
    """Kills the leader of the counter under load on the other nodes: the clients, and their pause in ms."""
    leader = leader_of(nodes, KEY)
    others = [node for node in nodes if node is not leader]
    clients = [Load(node.port) for node in others for _ in range(CLIENTS_PER_NODE)]
    for client in clients:
        client.start()
    try:
        time.sleep(moments.uniform(*BEFORE_S))
        killed = time.monotonic()
        leader.kill()
        # Answered again: a request sent after the kill and after the pause has its reply.
        while not all(client.has_replied_since(killed) or not client.is_alive() for client in clients):
            if time.monotonic() > killed + PAUSE_S_MAX:
                break
            time.sleep(0.01)
        time.sleep(AFTER_S)
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(PAUSE_S_MAX)
    pause_ms = round(max(client.longest_s(killed) for client in clients) * 1000)
    leader.start()
    for node in nodes:
        await_ready(node)
    return clients, pause_ms


def measure(binary, kills, directives=(), tell=lambda _line: None, seed=None):
    """Kills the counter's leader `kills` times, restarting it each time. `seed` chooses the moments."""
    seed = random.randrange(1 << 32) if seed is None else seed
    tell(f"seed {seed}")
    moments = random.Random(seed)
    with Yard(binary) as yard:
        nodes = yard.kvorums(3, *directives)
        values, errors, pauses_ms = [], [], []
        for number in range(kills):
            clients, pause_ms = kill_once(nodes, moments)
            pauses_ms.append(pause_ms)
            values += [value for client in clients for value in client.values]
            errors += [error for client in clients for error in client.errors]
            tell(f"kill {number + 1} of {kills}: {pause_ms} ms, {len(errors)} errors so far")
        counter = int(call(nodes[0].port, "GET", KEY) or 0)
    return Outcome(pauses_ms, errors, len(values), counter, len(values) - len(set(values)))
