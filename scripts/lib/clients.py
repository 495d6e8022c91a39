"""Clients that keep book while nodes fail: what was acknowledged, what is unknown, how long they waited.

A book is compared with what the cluster answers afterwards. Standard library only.
"""

import collections
import json
import random
import threading
import time
import urllib.error
import urllib.request

from servers import HOST, PATIENCE_S, Client, Failure, http, wait_until

COUNTERS = 8
# Longer than a node waits before it gives a command up.
REPLY_S_MAX = 20
# Between two commands of one client: the machine has other things to do, and the book stays small.
PACE_S = 0.002
# Keys asked for in one request when a book is compared.
KEYS_AT_ONCE = 500
# How long a client that finds no open door waits before it tries again.
RECONNECT_S = 0.02
# Errors by which the cluster says that a command was not applied.
NOT_APPLIED = ("CLUSTERDOWN", "TIMEOUT the command was not applied", "TRYAGAIN", "LOADING")
UNKNOWN = ("TIMEOUT outcome unknown",)


class Book:
    """What clients were told, all together."""

    def __init__(self):
        # Counter → what INCR answered.
        self.counted = collections.defaultdict(list)
        self.counted_unknown = collections.Counter()
        # Key, written once with itself as its value.
        self.written = []
        self.not_applied = 0
        self.unknown = 0
        self.broken = 0
        # What no client may see.
        self.wrong = []

    @property
    def acknowledged(self):
        return sum(len(values) for values in self.counted.values()) + len(self.written)

    def add(self, other):
        for key, values in other.counted.items():
            self.counted[key] += values
        self.counted_unknown += other.counted_unknown
        self.written += other.written
        self.not_applied += other.not_applied
        self.unknown += other.unknown
        self.broken += other.broken
        self.wrong += other.wrong

    def verify(self, port, written):
        """Compares with what the door at `port` answers: every counter, and the keys in `written`."""
        if self.wrong:
            raise Failure(f"clients saw {len(self.wrong)} errors that no client may see: {self.wrong[0]}")
        with Client(port) as client:
            for key, values in sorted(self.counted.items()):
                if len(set(values)) != len(values):
                    raise Failure(f"{key}: an INCR was answered twice with the same number")
                value, least = int(client.call("GET", key) or 0), len(values)
                most = least + self.counted_unknown[key]
                if not least <= value <= most:
                    raise Failure(f"LOST OR REPEATED: {key} is {value}; acknowledged {least}, with unknown {most}")
                if values and max(values) > value:
                    raise Failure(f"LOST: {key} is {value}, and INCR answered {max(values)} before")
            lost = []
            for at in range(0, len(written), KEYS_AT_ONCE):
                keys = written[at : at + KEYS_AT_ONCE]
                lost += [key for key, value in zip(keys, client.call("MGET", *keys)) if value != key]
            if lost:
                raise Failure(f"LOST: {len(lost)} of {len(written)} acknowledged keys, the first is {lost[0]}")


class Clients:
    """Threads that count and write at `ports` until the block is left; each wanders on when its door breaks.

    With `may_wander=False` each stays at its own door, and a broken connection counts as a failure there.
    """

    # So that keys are unique among all the clients of a run.
    made = 0

    def __init__(self, ports, count, seed, may_wander=True, pace_s=PACE_S):
        self.ports, self.may_wander, self.pace_s = list(ports), may_wander, pace_s
        self.stopping = threading.Event()
        self.book = Book()
        self.books = [Book() for _ in range(count)]
        # When each reply came, and after how many seconds; of each client.
        self.replies = [[] for _ in range(count)]
        self.threads = []
        for at in range(count):
            Clients.made += 1
            prng = random.Random(seed * 1_000_003 + Clients.made)
            words = (at, f"key:{Clients.made}", prng)
            self.threads.append(threading.Thread(target=self._run, args=words, daemon=True))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(REPLY_S_MAX + 5)
        for book in self.books:
            self.book.add(book)

    def answered(self):
        return sum(len(replies) for replies in self.replies)

    def await_progress(self, count, patience_s=PATIENCE_S):
        """Waits until `count` more commands were answered."""
        goal = self.answered() + count
        wait_until(f"{count} more answers", lambda: self.answered() >= goal, patience_s)

    def longest_s(self, since, until=float("inf")):
        """The longest wait for a reply among those that came between the two moments of time.monotonic()."""
        now = min(until, time.monotonic())
        longest = 0
        for replies in self.replies:
            waits = [wait for at, wait in list(replies) if since <= at <= until]
            # A client that waits still has waited since its last reply.
            last = replies[-1][0] if replies else since
            open_s = now - max(last, since) - self.pace_s if until == float("inf") else 0
            longest = max([longest, open_s, *waits])
        return longest

    def _run(self, at, prefix, prng):
        book, replies = self.books[at], self.replies[at]
        door, client, number = at % len(self.ports), None, 0
        while not self.stopping.wait(self.pace_s):
            if client is None:
                try:
                    client = Client(self.ports[door], REPLY_S_MAX)
                except OSError:
                    book.broken += 1
                    door = (door + 1) % len(self.ports) if self.may_wander else door
                    self.stopping.wait(RECONNECT_S)
                    continue
            number += 1
            counter = f"counter:{prng.randrange(COUNTERS)}" if at % 2 == 0 else None
            key = counter or f"{prefix}:{number}"
            sent = time.monotonic()
            try:
                if counter:
                    book.counted[key].append(client.call("INCR", key))
                else:
                    client.call("SET", key, key)
                    book.written.append(key)
            except Failure as error:
                self._file(book, counter, str(error))
                if str(error).startswith("LOADING") and self.may_wander:
                    client.__exit__()
                    client, door = None, (door + 1) % len(self.ports)
            except OSError:
                book.broken += 1
                book.unknown += 1
                if counter:
                    book.counted_unknown[counter] += 1
                client.__exit__()
                client, door = None, (door + 1) % len(self.ports) if self.may_wander else door
            now = time.monotonic()
            replies.append((now, now - sent))
        if client is not None:
            client.__exit__()

    @staticmethod
    def _file(book, counter, text):
        if text.startswith(NOT_APPLIED):
            book.not_applied += 1
        elif text.startswith(UNKNOWN):
            book.unknown += 1
            if counter:
                book.counted_unknown[counter] += 1
        else:
            book.wrong.append(text)


# --- what nodes say of themselves


def shards_of(node, hashes=False):
    """The replicas on a node, by shard, as its admin door shows them."""
    replicas = json.loads(http(node.admin, "/api/shards" + ("?hash=1" if hashes else ""), timeout_s=30))
    return {replica["shard"]: replica for replica in replicas}


def full_redundancy(nodes):
    """True once every node is ready and holds a voting replica of every shard that has all of its leader's log.

    Today's sign of a voter is a role other than learner. A Failure says what is missing.
    """
    for node in nodes:
        try:
            http(node.admin, "/readyz")
        except OSError as error:
            raise Failure(f"{node.name} is not ready: {reason(node) or error}") from None
    views = [shards_of(node) for node in nodes]
    if not views[0] or any(view.keys() != views[0].keys() for view in views):
        raise Failure("not every node has a replica of every shard")
    for shard in views[0]:
        replicas = [view[shard] for view in views]
        roles = sorted(replica["role"] for replica in replicas)
        if roles != ["follower"] * (len(nodes) - 1) + ["leader"]:
            raise Failure(f"shard {shard}: the roles are {', '.join(roles)}")
        leaders = {replica.get("leader") for replica in replicas}
        if len(leaders) != 1 or None in leaders:
            raise Failure(f"shard {shard}: the leaders named are {leaders}")
    return True


def equal_replicas(nodes):
    """True once all replicas of each shard stand at one index with one state; different states there are a Failure."""
    views = [shards_of(node, hashes=True) for node in nodes]
    for shard in views[0]:
        replicas = [view[shard] for view in views]
        if len({replica["index"] for replica in replicas}) != 1:
            return False
        if len({(replica["history"], replica["keyspace"]) for replica in replicas}) != 1:
            raise Failure(f"REPLICAS DIFFER: shard {shard} at index {replicas[0]['index']}")
    return True


def reason(node):
    """What a node that is not ready says it waits for; empty when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{node.admin}/readyz", timeout=5) as response:
            return response.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace").strip()
    except OSError:
        return ""


def process_state(node):
    """None while a node's process runs, else how it ended and its last words."""
    ended = node.how_it_ended()
    return ended and f"{node.name} {ended}: {' / '.join(node.last_words(3))}"
