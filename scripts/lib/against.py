"""Two kvorum programs measured in turn within one run: both figures, their ratio, its spread, and what is beyond noise.

Every row is measured `rounds` times; in each round both programs are, and who goes first changes. The ratio is the
median of the rounds' ratios, so that a machine that becomes slower meanwhile slows both. A row is beyond noise when the
ratios of all rounds lie on one side of 1 and their median is further from 1 than half of their range: with five rounds
chance puts all on one side in one row of sixteen. And where the system has put the threads of a server it leaves them, which
alone makes some percent that no further round takes away. So what looks worse is measured once more, with servers started
anew, and all its rounds count.
"""

import contextlib
import dataclasses
import functools
import re
import statistics
import subprocess
import time

import failover
from servers import HOST, Client, Failure, Yard, call, leader_of

# Of one measurement; the number of requests is chosen so that it takes about this long.
SAMPLE_S = 1.0
# Requests by which that number is found.
PROBE_REQUESTS = 4_000
# A difference below this is none, whatever the rounds say.
DIFFERENCE_MIN = 0.02
# Fewer rounds than this tell no difference from noise.
ROUNDS_MIN = 3
# A figure below this is nothing.
FIGURE_MIN = 0.05
SETTLE_S = 0.05
START_KEYS = 300_000
SHARDS_IDLE = 16
IDLE_S = 5
KILLS = 3
# Under callgrind.
COUNTED_COMMANDS = 4_000
COUNTED_KEYS = 1_000
VALGRIND_PATIENCE_S = 120
# What Rust's allocator calls of mimalloc; whoever calls it from within mimalloc does not count.
ALLOCATING = re.compile(r"^_?mi_(heap_)?(m|z|c|re|rez)alloc")


@dataclasses.dataclass
class Row:
    work: str
    ours: list
    theirs: list
    less_is_better: bool = False

    @property
    def ratios(self):
        # Two figures of nothing, such as the allocations of a GET, are equal, whatever remains when timers are taken off.
        pairs = zip(self.ours, self.theirs)
        return [our / max(their, FIGURE_MIN) if max(our, their) >= FIGURE_MIN else 1.0 for our, their in pairs]

    @property
    def ratio(self):
        return statistics.median(self.ratios)

    @property
    def spread(self):
        return (max(self.ratios) - min(self.ratios)) / 2

    @property
    def is_beyond_noise(self):
        ratios, off = self.ratios, abs(self.ratio - 1)
        one_side = all(ratio > 1 for ratio in ratios) or all(ratio < 1 for ratio in ratios)
        return len(ratios) >= ROUNDS_MIN and one_side and off > max(self.spread, DIFFERENCE_MIN)

    @property
    def is_worse(self):
        return self.is_beyond_noise and (self.ratio > 1) == self.less_is_better

    @property
    def mark(self):
        if not self.is_beyond_noise:
            return "same" if len(self.ratios) >= ROUNDS_MIN else "?"
        return "WORSE" if self.is_worse else "better"


class Against:
    """The rows of scripts/bench for two programs."""

    def __init__(self, bench, ours, theirs):
        self.bench, self.programs, self.rounds = bench, {"this": ours, "other": theirs}, bench.rounds
        self.rows = []
        # While rows are measured once more: those, by their works.
        self.doubted = None

    # --- measuring

    def measure(self, section):
        """The rows of `section`, one of the methods below, and those that look worse once more."""
        begun = len(self.rows)
        section(self)
        self.doubted = {row.work: row for row in self.rows[begun:] if row.is_worse}
        try:
            if self.doubted:
                section(self)
        finally:
            self.doubted = None

    def is_wanted(self, work):
        return self.doubted is None or work in self.doubted

    @contextlib.contextmanager
    def yards(self, make):
        """What `make(yard)` gives for each program, in a yard of its own."""
        with contextlib.ExitStack() as stack:
            yards = {name: stack.enter_context(Yard(program)) for name, program in self.programs.items()}
            yield {name: make(yard) for name, yard in yards.items()}

    def turns(self, measure, rounds=None):
        """`measure(name)` of both, by turns."""
        found = {name: [] for name in self.programs}
        for number in range(rounds or self.rounds):
            names = list(self.programs)
            for name in names if number % 2 == 0 else reversed(names):
                time.sleep(SETTLE_S)
                found[name].append(measure(name))
        return found

    def row(self, work, measure, less_is_better=False, rounds=None):
        """Measures a row."""
        if self.is_wanted(work):
            found = self.turns(measure, rounds)
            self.show(Row(work, found["this"], found["other"], less_is_better))

    def show(self, row):
        if not self.is_wanted(row.work):
            return
        if self.doubted is None:
            self.rows.append(row)
        else:
            doubted = self.doubted[row.work]
            doubted.ours += row.ours
            doubted.theirs += row.theirs
            row = doubted
        ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
        digits = 0 if min(ours, theirs) >= 1000 else 2
        figures = f"{ours:>13,.{digits}f}{theirs:>13,.{digits}f}{row.ratio:>8.3f}"
        print(f"{row.work:<52}{figures}  ±{row.spread:.3f}  n={len(row.ours)}  {row.mark}", flush=True)

    def section(self, title):
        self.bench.table.section(title if self.doubted is None else f"{title}: what looks worse, once more")
        print(f"{'work':<52}{'this':>13}{'other':>13}{'ratio':>8}")

    def loads(self, work, doors, command, pipeline, *more, key=None):
        """A row of requests per second at `doors[name]`, with as many requests as the slower one serves in SAMPLE_S."""
        if not self.is_wanted(work):
            return
        more = [*more, *(["--key", key] if key else [])]

        def load(name, requests):
            return self.bench.load(doors[name], command, pipeline, requests, *more)["per_second"]

        # The second probe counts: the first meets cold caches.
        probes = [load(name, PROBE_REQUESTS) for _ in range(2) for name in self.programs]
        requests = int(max(min(probes[-2:]) * SAMPLE_S, PROBE_REQUESTS))
        self.row(work, lambda name: load(name, requests))

    # --- rows

    def one_node(self):
        self.section("one node, defaults (everysec), requests per second, c=50")
        self.on_one_node((), (1, 16, 64), ("set", "get"))

    def one_node_always(self):
        self.section("one node, appendfsync always, requests per second, c=50")
        self.on_one_node(("--appendfsync", "always"), (1, 16), ("set",))

    def on_one_node(self, directives, pipelines, commands):
        with self.yards(lambda yard: yard.kvorum(*directives)) as nodes:
            for node in nodes.values():
                node.await_up("an answer", lambda node=node: call(node.port, "GET", "key") is None)
                call(node.port, "SET", "key:one", "xxx")
                self.bench.load([node.port], "set", 64, self.bench.keys, "--order", "rising")
            doors = {name: [node.port] for name, node in nodes.items()}
            for key, told in (("key:one", " one key"), (None, f" of {self.bench.keys} keys")):
                for pipeline in pipelines:
                    for command in commands:
                        self.loads(f"{command.upper()} P={pipeline}{told}", doors, command, pipeline, key=key)

    def three_nodes_always(self):
        self.three_nodes("always")

    def three_nodes_everysec(self):
        self.three_nodes("everysec")

    def three_nodes(self, fsync):
        self.section(f"three nodes, appendfsync {fsync}, SET and WAIT 1, requests per second, c=50")
        with (
            self.yards(lambda yard: yard.kvorums(3, "--appendfsync", fsync)) as spread,
            self.yards(lambda yard: yard.kvorums(3, "--appendfsync", fsync, "--cluster-shards", "1")) as single,
        ):
            doors = {
                "one door": {name: [nodes[0].port] for name, nodes in spread.items()},
                "three doors": {name: [node.port for node in nodes] for name, nodes in spread.items()},
                "one shard": {name: [leader_of(nodes, "key").port] for name, nodes in single.items()},
            }
            for pipeline in (1, 16, 64):
                for where, ports in doors.items():
                    self.loads(f"SET+WAIT P={pipeline} {where}", ports, "set", pipeline, "--wait", "1")
            for where in ("one door", "one shard"):
                self.latencies(f"SET P=1 {where}", doors[where])

    def latencies(self, work, doors):
        parts = {part: f"{work}, {part[:3]} in µs" for part in ("p50_us", "p99_us")}
        if not any(self.is_wanted(part_of) for part_of in parts.values()):
            return
        requests = 20_000
        loads = self.turns(lambda name: self.bench.load(doors[name], "set", 1, requests))
        for part, part_of in parts.items():
            ours, theirs = ([load[part] for load in loads[name]] for name in self.programs)
            self.show(Row(part_of, ours, theirs, less_is_better=True))

    def forwarded_reads(self):
        self.section("GET P=16 of one key, requests per second, c=50")
        key = "key:000000000001"
        with self.yards(lambda yard: yard.kvorums(3)) as clusters:
            leaders = {name: leader_of(nodes, key) for name, nodes in clusters.items()}
            others = {
                name: next(node for node in nodes if node is not leaders[name]) for name, nodes in clusters.items()
            }
            for leader in leaders.values():
                call(leader.port, "SET", key, "xxx")
            for where, nodes in (("through another node", others), ("at the leader", leaders)):
                doors = {name: [node.port] for name, node in nodes.items()}
                self.loads(f"GET P=16 {where}", doors, "get", 16, key=key)

    def idle(self):
        self.section(f"idle: three nodes × {SHARDS_IDLE} shards")
        with self.yards(lambda yard: yard.kvorums(3, "--cluster-shards", str(SHARDS_IDLE))) as clusters:
            time.sleep(self.bench.scaled(3, 1))
            # At the same time: they are at rest, and so is the machine.
            cpu, rss = {name: [] for name in clusters}, {name: [] for name in clusters}
            for _ in range(self.rounds):
                before = {name: sum(node.cpu_s() for node in nodes) for name, nodes in clusters.items()}
                time.sleep(self.bench.scaled(IDLE_S, 1))
                for name, nodes in clusters.items():
                    used = sum(node.cpu_s() for node in nodes) - before[name]
                    cpu[name].append(used / self.bench.scaled(IDLE_S, 1) * 100)
                    rss[name].append(max(node.rss_mib() for node in nodes))
            self.show(Row("CPU, % of a core", cpu["this"], cpu["other"], less_is_better=True))
            self.show(Row("RSS of the largest, MiB", rss["this"], rss["other"], less_is_better=True))

    def start(self):
        self.section("start: milliseconds from the process to the answer to a GET")

        def empty(name):
            with Yard(self.programs[name]) as yard:
                began = time.monotonic()
                return self.bench.serving_s(yard.kvorum(), began) * 1000

        self.row("empty directory", empty, less_is_better=True)
        keys = self.bench.scaled(START_KEYS)
        with self.yards(lambda yard: yard.kvorum()) as nodes:
            for node in nodes.values():
                self.bench.serving_s(node, time.monotonic())
                self.bench.load([node.port], "set", 64, keys, "--order", "rising")

            def again(name):
                nodes[name].kill()
                began = time.monotonic()
                nodes[name].start()
                return self.bench.serving_s(nodes[name], began) * 1000

            self.row(f"directory of {keys} keys, after kill -9", again, less_is_better=True)

    def failover(self):
        kills = self.bench.scaled(KILLS, 1)
        self.section(f"kill -9 of the leader under INCR, {kills} times a round: the longest wait of a client, ms")

        def pause_ms(name):
            outcome = failover.measure(self.programs[name], kills)
            if not outcome.is_exact:
                raise Failure(f"{name}: the counter is not exact, or requests failed: {outcome.errors[:1]}")
            return outcome.median_ms

        self.row(f"median of {kills} kills", pause_ms, less_is_better=True, rounds=min(self.rounds, 3))

    def instructions(self):
        """Instructions and allocations per command, both from one run of callgrind for each program and round."""
        self.section(f"per command, callgrind, {COUNTED_COMMANDS} commands of one client, one node; timers taken off")
        self.bench.need("valgrind", "valgrind")
        runs = self.turns(self.counted, rounds=min(self.rounds, 3))
        for at, what in enumerate(("instructions", "allocations")):
            for work in runs["this"][0]:
                ours, theirs = ([run[work][at] for run in runs[name]] for name in self.programs)
                self.show(Row(f"{what} of {work}", ours, theirs, less_is_better=True))

    def counted(self, name):
        """Work → instructions and allocations per command."""
        with Yard(self.programs[name]) as yard:
            out = yard.folder / "callgrind.out"
            before = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
            node = yard.kvorum(before=before)

            def answers():
                with Client(node.port, VALGRIND_PATIENCE_S) as client:
                    client.call("GET", "key")
                    return True

            node.await_up("an answer", answers, patience_s=VALGRIND_PATIENCE_S)
            works = [(command, pipeline) for command in ("set", "get") for pipeline in (1, 16)]
            # Tables and buffers grow to their size first.
            for command, pipeline in works:
                self.ask(node, command, pipeline, COUNTED_COMMANDS // 4)
            dumps = Dumps(node, out)
            dumps.take()
            idle_s = self.bench.scaled(IDLE_S, 1)
            time.sleep(idle_s)
            idle = [count / idle_s for count in dumps.take()]
            found = {}
            for command, pipeline in works:
                commands = self.bench.scaled(COUNTED_COMMANDS)
                began = time.monotonic()
                self.ask(node, command, pipeline, commands)
                counts = dumps.take()
                up_s = time.monotonic() - began
                each = [(count - rest * up_s) / commands for count, rest in zip(counts, idle)]
                found[f"{command.upper()} P={pipeline}"] = each
            return found

    def ask(self, node, command, pipeline, requests):
        words = [self.bench.load_program, "--json", "--addr", f"{HOST}:{node.port}", "--clients", "1"]
        words += ["--keys", str(COUNTED_KEYS), "--command", command, "--pipeline", str(pipeline)]
        done = subprocess.run([*words, "--requests", str(requests)], capture_output=True, timeout=300)
        if done.returncode != 0:
            raise Failure(done.stderr.decode().strip())

    def summary(self):
        beyond = [row for row in self.rows if row.is_beyond_noise]
        worse = [row for row in beyond if row.is_worse]
        print(f"\n{len(self.rows)} rows: {len(worse)} worse, {len(beyond) - len(worse)} better beyond noise.")
        for row in beyond:
            print(f"  {row.mark}: {row.work}: {row.ratio:.3f} ±{row.spread:.3f}")
        return worse


class Dumps:
    """What callgrind counted since it was last asked."""

    def __init__(self, node, out):
        self.node, self.out, self.taken = node, out, 0

    def take(self):
        """Instructions and allocations since the last call."""
        words = ["callgrind_control", "--dump", str(self.node.pid)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=VALGRIND_PATIENCE_S)
        self.taken += 1
        path = self.out.with_name(f"{self.out.name}.{self.taken}")
        deadline = time.monotonic() + VALGRIND_PATIENCE_S
        while time.monotonic() < deadline:
            text = path.read_text(errors="replace") if path.exists() else ""
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            if total and text.endswith("\n") and "totals:" in text:
                return int(total[1]), allocations(text)
            time.sleep(0.05)
        raise Failure(f"callgrind wrote no {path.name}: {done.stderr.strip() or done.stdout.strip()}")


def allocations(text):
    """Calls of the allocator in a profile of callgrind. Source: the Callgrind format specification, valgrind's manual."""
    names, caller, callee, calls = {}, "", "", 0

    def resolve(word):
        number, _, name = word.partition(" ")
        if name:
            names[number] = name
        return names.get(number, "") if number.startswith("(") else word

    for line in text.splitlines():
        if line.startswith("fn="):
            caller = resolve(line[3:])
        elif line.startswith("cfn="):
            callee = resolve(line[4:])
        elif line.startswith("calls="):
            is_inner = caller.lstrip("_").startswith("mi_")
            if not is_inner and ALLOCATING.match(callee):
                calls += int(line[6:].split()[0])
    return calls


SECTIONS = {
    "one": Against.one_node,
    "one-always": Against.one_node_always,
    "three-always": Against.three_nodes_always,
    "three-everysec": Against.three_nodes_everysec,
    "forward": Against.forwarded_reads,
    "idle": Against.idle,
    "start": Against.start,
    "failover": Against.failover,
    "instructions": Against.instructions,
}
ROWS = {name: functools.partial(Against.measure, section=section) for name, section in SECTIONS.items()}
