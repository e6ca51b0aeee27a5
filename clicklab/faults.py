"""Break a server while clicks are produced, then count them. Notebook 06, `python -m clicklab drill` and the tests call it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pandas as pd
import requests
from clickstream_ingest import events
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from clicklab import Missing, Trouble, collector, connect, hdfs, landed, ledger, servers, topics, traffic

PER_S = 1500  # the fastest pace: the broker and HDFS need some of the processor too
LEAD_S = 12  # production goes on for so long without a fault, before and after it together
LANDING_TIMEOUT_S = 240  # a killed sink, an aborted transaction and a few commit intervals
RUNNING = tuple(name for name in servers.SERVERS if name != "blog")
COMMIT_KILLS = 3  # how often `connect-commit` kills, each at another moment of a commit
PAUSE_S = (1, 8)  # between two kills of `everything`


# --- One drill -----------------------------------------------------------------------------------------------------------

@dataclass
class Drill:
    """One time that clicks were produced while something broke.

    Attributes
    ----------
    run : str
        The ledger's run that holds its clicks.
    dice : random.Random
        Decides what is left to chance; made from the seed.
    hit_at, over_at, usable_at : int
        When the fault began, when it was over, when all servers did their job again and the sink's task ran; ms since 1970 UTC.
    outcome : collector.Outcome
        What became of the clicks that were posted.
    rounds : int
        How often `everything` kills each server.
    """

    run: str
    dice: random.Random
    rounds: int = 1
    hit_at: int = 0
    over_at: int = 0
    usable_at: int = 0
    outcome: collector.Outcome | None = None
    poison: dict[tuple[int, int], str] = field(default_factory=dict)  # (Kafka partition, offset) → what was put there


@contextlib.contextmanager
def under_way(clicks: int, seed: int, lasts_s: float = 0) -> Iterator[Drill]:
    """Produce clicks over HTTP; the block is the fault. It begins when a few hundred clicks are acknowledged.

    After the block it waits until every server does its job, the sink's task runs, and the last click is answered.

    Parameters
    ----------
    clicks : int
        Events to produce, at a pace that they last until after the fault.
    seed : int
        Of the readers, of the moment at which the block begins, and of `Drill.dice`.
    lasts_s : float
        Seconds that the block will take.
    """
    if servers.IN_DOCKER:
        raise Missing("Servers in containers cannot be hit from here.", "docker owns their processes",
                      "make run-all on this machine without Docker, or break one by hand: docker compose kill -s KILL connect")
    servers.need(*RUNNING)
    connect.register()
    drill = Drill(ledger.new_run("06"), random.Random(seed))
    per_s = min(PER_S, clicks / (lasts_s + LEAD_S))
    wanted = int(min(per_s * drill.dice.uniform(3, 6), clicks / 2))
    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(collector.post, traffic.readers(clicks, seed), drill.run, tries=15, per_s=per_s,
                              user_agent=traffic.USER_AGENT)
        wait_for_clicks(drill, wanted)
        drill.hit_at = _now_ms()
        yield drill
        drill.over_at = _now_ms()
        servers.wait_usable(*RUNNING)
        connect.wait_for_tasks(timeout_s=LANDING_TIMEOUT_S)
        drill.usable_at = _now_ms()
        drill.outcome = posting.result()


def drill(name: str, clicks: int, seed: int, rounds: int = 1) -> dict[str, float]:
    """Do one fault of the table, say before what has to hold, and hold the ledger against topic and table.

    Parameters
    ----------
    name : str
        One of `faults.FAULTS`.
    clicks, seed
        As for `under_way`.
    rounds : int
        For `everything`: how often each server is killed.

    Returns
    -------
    dict
        The figures of `recovery`.

    Raises
    ------
    LedgerError
        A click is lost, doubled, changed, or comes from nowhere.
    Trouble
        A server or the task does not come back by itself, or a second coordinator is left.
    """
    if name not in FAULTS:
        raise Trouble(f"There is no drill {name}.", f"there are {', '.join(FAULTS)}", "python -m clicklab drill --list")
    fault = FAULTS[name]
    print(f"drill {name}, seed {seed}, {clicks:,} clicks: {fault.how}\nexpected: {fault.expected}", flush=True)
    with under_way(clicks, seed, fault.lasts_s * rounds) as now:
        now.rounds = rounds
        fault.hit(now)
    print(now.outcome, flush=True)
    ledger.check("the topic", now.run, topics.sightings)
    ledger.check("the table", now.run, landed.sightings, timeout_s=LANDING_TIMEOUT_S)
    ledger.audit(LANDING_TIMEOUT_S)
    connect.wait_for_one_coordinator()
    fault.after(now)
    figures = recovery(now)
    took = " · ".join(f"{what} {seconds:.1f} s" for what, seconds in figures.items())
    print(f"drill {name}: the ledger holds. {took}", flush=True)
    return figures


def wait_for_commit() -> None:
    """Return at the moment when the sink's coordinator tells its tasks, over the control topic, that a commit begins."""
    control = TopicPartition(topics.CONTROL, 0)
    with KafkaConsumer(bootstrap_servers=servers.address("kafka")) as consumer:
        before = consumer.end_offsets([control])[control]
        servers.wait_for("a commit to begin", lambda: "" if consumer.end_offsets([control])[control] > before
                         else "the control topic is still", LANDING_TIMEOUT_S, quiet=True, every_s=0.01)


def wait_for_clicks(drill: Drill, more: int) -> None:
    """Return when so many more clicks of a drill are acknowledged than when it is called."""
    wanted = len(ledger.open_run(drill.run).acknowledged) + more

    def still_missing() -> str:
        there = len(ledger.open_run(drill.run).acknowledged)
        return "" if there >= wanted else f"{there:,} of {wanted:,} acknowledged"

    servers.wait_for("clicks under way", still_missing, 120, quiet=True)


def timeline(drill: Drill) -> pd.DataFrame:
    """When each click of a drill was `produced`, `acknowledged` and `landed`, in seconds from the fault's beginning.

    Returns
    -------
    DataFrame, a row an event_id
        NaN where a click did not get so far.
    """
    lines = ledger.open_run(drill.run).lines
    first: dict[str, dict[str, int]] = {"produced": {}, "acknowledged": {}}
    for line in lines:
        hop = "produced" if line.state == "posted" else line.state
        if hop in first:
            first[hop].setdefault(line.event_id, line.at)
    arrived = landed.arrivals(min(line.at for line in lines))
    at_ms = pd.DataFrame(first)
    at_ms["landed"] = arrived.drop_duplicates("event_id").set_index("event_id")["committed_ms"].reindex(at_ms.index)
    return (at_ms - drill.hit_at) / 1000


def recovery(drill: Drill) -> dict[str, float]:
    """How long it took, in seconds: until all worked again, from then to the first snapshot, and to the last old click.

    Returns
    -------
    dict
        `usable after` (from the fault's end), `first snapshot after` (from then; the clicks' own, so 0 when all had landed
        before), `clicks from before the fault landed after` (from then).
    """
    times = timeline(drill)
    usable_s = (drill.usable_at - drill.hit_at) / 1000
    later = times.loc[times["landed"] > usable_s, "landed"]
    before = times.loc[times["acknowledged"] < 0, "landed"]
    return {
        "usable after": (drill.usable_at - drill.over_at) / 1000,
        "first snapshot after": float(later.min() - usable_s) if len(later) else 0.0,
        "clicks from before the fault landed after": max(0.0, float(before.max() - usable_s)) if len(before) else 0.0,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- What can be done to a server --------------------------------------------------------------------------------------------

def _send(name: str, number: signal.Signals) -> Callable[[Drill], None]:
    return lambda drill: servers.send_signal(name, number)


def _hold(outage: Callable[[], contextlib.AbstractContextManager], seconds: float) -> Callable[[Drill], None]:
    """An outage of a given length: here the time is the fault, so nothing else could be waited for."""
    def hit(drill: Drill) -> None:
        with outage():
            time.sleep(seconds)
    return hit


@contextlib.contextmanager
def _safe_mode() -> Iterator[None]:
    servers.hdfs_admin("-safemode", "enter")
    try:
        yield
    finally:
        servers.hdfs_admin("-safemode", "leave")


@contextlib.contextmanager
def _full() -> Iterator[None]:
    # One byte is less than is there already, so no new block fits.
    hdfs.client().mkdirs(hdfs.WAREHOUSE)
    servers.hdfs_admin("-setSpaceQuota", "1", hdfs.WAREHOUSE)
    try:
        yield
    finally:
        servers.hdfs_admin("-clrSpaceQuota", hdfs.WAREHOUSE)


def _kill_around_commits(drill: Drill) -> None:
    """Kill Connect at seeded moments of a commit: from the coordinator's word that it begins to well after its usual end."""
    for _ in range(COMMIT_KILLS):
        wait_for_commit()
        pause_s = drill.dice.uniform(0, 0.6)
        time.sleep(pause_s)
        servers.send_signal("connect", signal.SIGKILL)
        print(f"killed {pause_s * 1000:.0f} ms after a commit began", flush=True)
        servers.wait_usable("connect")


# A producer that is gone in the middle of a transaction: no commit, no abort, no goodbye.
_LEAVES_IT_OPEN = """
import os, sys
from kafka import KafkaProducer
broker, topic, timeout_ms, name = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=broker, transactional_id=name, transaction_timeout_ms=int(timeout_ms))
producer.init_transactions()
producer.begin_transaction()
producer.send(topic, b"never committed").get(timeout=10)
os._exit(0)
"""


def _leave_a_transaction_open(drill: Drill) -> None:
    """Do what a killed sink does now and then: leave a transaction open on the control topic, with the sink's time-out."""
    timeout_ms = connect.config()["iceberg.kafka.transaction.timeout.ms"]
    subprocess.run([sys.executable, "-c", _LEAVES_IT_OPEN, servers.address("kafka"), topics.CONTROL, timeout_ms, drill.run],
                   check=True, timeout=60)


def _put_poison(drill: Drill) -> None:
    """Put records on the topic that no collector would: each kind on each Kafka partition, between good clicks."""
    click = events.normalize(traffic.readers(1, 0)[0], datetime.now(UTC), user_agent="a stranger")
    without = {name: value for name, value in msgspec.to_builtins(click).items() if name != "received_at"}
    kinds = {"bytes that are not JSON": b"\xff{not json", "a tombstone": None,
             "a required field missing": msgspec.json.encode(without)}
    with KafkaProducer(bootstrap_servers=servers.address("kafka")) as stranger:
        for kind, value in kinds.items():
            for partition in range(topics.PARTITIONS[topics.CLICKS]):
                place = stranger.send(topics.CLICKS, value, key=b"stranger", partition=partition).get(timeout=10)
                drill.poison[place.partition, place.offset] = kind


def _say_where_poison_went(drill: Drill) -> None:
    """Each record but the tombstones is a dead letter with its reason, and good clicks behind it have landed."""
    dead = connect.dead_letters(drill.hit_at)
    rows = landed.sightings(drill.hit_at)
    for (partition, offset), kind in drill.poison.items():
        reason = dead.get((partition, offset), "")
        if not reason and kind != "a tombstone":
            raise Trouble(f"Partition {partition} offset {offset}, {kind}, is not among the dead letters.",
                          "the sink skipped it without a sign", "look into .state/logs/connect.log")
        behind = sum(s.partition == partition and s.offset > offset for s in rows)
        print(f"partition {partition} offset {offset}, {kind}: {'dead letter, ' + reason[:80] if reason else 'skipped'}; "
              f"{behind:,} clicks behind it landed", flush=True)


def _kill_one_of_two_workers(drill: Drill) -> None:
    """Start a second worker, kill the one that has the task, then end the second worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with open(servers.log_file("connect-second"), "ab") as log:
        second = subprocess.Popen([servers.ROOT / "compose" / "serve", "connect"], stdout=log, stderr=log,
                                  env=servers._environment() | {"CONNECT_PORT": port})
    try:
        servers.wait_for("a second worker", lambda: "" if requests.get(f"http://127.0.0.1:{port}/connectors", timeout=5).ok
                         else "it joins its group", servers.START_TIMEOUT_S)
        connect.wait_for_tasks(timeout_s=LANDING_TIMEOUT_S)
        is_on_second = connect.worker_of_task().endswith(f":{port}")
        print(f"the task is on the {'second' if is_on_second else 'first'} worker: that one is killed", flush=True)
        if is_on_second:
            os.kill(second.pid, signal.SIGKILL)
        else:
            servers.send_signal("connect", signal.SIGKILL)
        servers.wait_usable("connect")
        connect.wait_for_tasks(timeout_s=LANDING_TIMEOUT_S)
    finally:
        second.terminate()
        second.wait(timeout=servers.STOP_TIMEOUT_S)


def _kill_everything(drill: Drill) -> None:
    """Kill every server in an order and at moments from the seed, also one that has not come back from the time before."""
    for number in range(drill.rounds):
        order = list(RUNNING)
        drill.dice.shuffle(order)
        print(f"round {number + 1} of {drill.rounds}: kill -9 of {', '.join(order)}", flush=True)
        for name in order:
            with contextlib.suppress(Trouble):  # between two lives: dead already
                servers.send_signal(name, signal.SIGKILL)
            time.sleep(drill.dice.uniform(*PAUSE_S))


# --- The table of faults -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Fault:
    """One row: `hit` does it and returns when it is over; `expected` is said before; `after` looks at what is its own."""

    how: str
    expected: str
    hit: Callable[[Drill], None]
    lasts_s: float = 0
    after: Callable[[Drill], None] = lambda drill: None


_ONCE = "every click lands once"
_AGAIN = "clicks without a yes are sent again; a retry may write one twice, one click each"
_RETRIES = f"the sink retries, or fails and the guard restarts it; {_ONCE}"
_GUARDED = f"the sink fails, the guard restarts it when HDFS takes writes again; {_ONCE}"
FAULTS = {
    "connect-kill": Fault(
        "kill -9 of Connect while it writes files",
        f"the sink reads again what it had not handed in; {_ONCE}",
        _send("connect", signal.SIGKILL)),
    "connect-commit": Fault(
        f"kill -9 of Connect around the commit instant, {COMMIT_KILLS} times",
        f"a commit is there whole or not at all; an open transaction holds up landing for 12 s at most; {_ONCE}",
        _kill_around_commits, lasts_s=60),
    "open-transaction": Fault(
        "a producer dies in the middle of a transaction on the control topic, as a killed sink may",
        f"the sink waits until the broker aborts it, 12 s at most; {_ONCE}",
        _leave_a_transaction_open),
    "connect-term": Fault(
        "SIGTERM to Connect",
        f"the sink leaves its group and starts again; {_ONCE}",
        _send("connect", signal.SIGTERM)),
    "connect-pause": Fault(
        "SIGSTOP of Connect for 90 s, then SIGCONT",
        f"its transaction is aborted meanwhile, so what it writes after waking up does not count: no zombie commit; {_ONCE}",
        _hold(lambda: servers.paused("connect"), 90), lasts_s=90),
    "kafka-kill": Fault(
        "kill -9 of the broker",
        f"the collector answers 503 while the broker is away; {_AGAIN}",
        _send("kafka", signal.SIGKILL)),
    "kafka-pause-10s": Fault(
        "SIGSTOP of the broker for 10 s",
        f"requests wait or get a 503; {_AGAIN}",
        _hold(lambda: servers.paused("kafka"), 10), lasts_s=10),
    "kafka-pause-60s": Fault(
        "SIGSTOP of the broker for 60 s",
        f"the collector answers 503, no 200 without a record; {_AGAIN}",
        _hold(lambda: servers.paused("kafka"), 60), lasts_s=60),
    "namenode-down-3s": Fault(
        "kill -9 of the NameNode, down for 3 s", _RETRIES,
        _hold(lambda: servers.held_down("namenode"), 3), lasts_s=3),
    "namenode-down-30s": Fault(
        "kill -9 of the NameNode, down for 30 s", _RETRIES,
        _hold(lambda: servers.held_down("namenode"), 30), lasts_s=30),
    "safe-mode": Fault(
        "HDFS in safe mode, read only, for 60 s", _RETRIES,
        _hold(_safe_mode, 60), lasts_s=60),
    "datanode-down-3s": Fault(
        "kill -9 of the DataNode, down for 3 s", _RETRIES,
        _hold(lambda: servers.held_down("datanode"), 3), lasts_s=3),
    "datanode-down-30s": Fault(
        "kill -9 of the DataNode, down for 30 s", _GUARDED,
        _hold(lambda: servers.held_down("datanode"), 30), lasts_s=30),
    "hdfs-full": Fault(
        "HDFS full for 15 s (a space quota on the warehouse), then lifted", _GUARDED,
        _hold(_full, 15), lasts_s=20),
    "ingest-kill": Fault(
        "kill -9 of the collector during posts",
        f"acknowledged means in the topic; {_AGAIN}",
        _send("ingest", signal.SIGKILL)),
    "ingest-pause": Fault(
        "SIGSTOP of the collector for 30 s during posts",
        f"requests time out; {_AGAIN}",
        _hold(lambda: servers.paused("ingest"), 30), lasts_s=30),
    "poison": Fault(
        "a stranger puts bytes that are not JSON, tombstones and records without a required field on the topic",
        "dead letters with their reason, tombstones skipped; the partitions move on",
        _put_poison, after=_say_where_poison_went),
    "two-workers": Fault(
        "a second Connect worker; the one that has the task is killed",
        f"the task moves; {_ONCE}",
        _kill_one_of_two_workers, lasts_s=60),
    "everything": Fault(
        "kill -9 of every server, in a random order and at random moments",
        "every acknowledged click lands once",
        _kill_everything, lasts_s=len(RUNNING) * sum(PAUSE_S) / 2),
}

# What this design cannot hold, the reason, and the most that can be lost.
LIMITS = {
    "the machine loses power": "Kafka acknowledges from the page cache, and there is one copy. Lost: what Linux has not "
                               "written yet, about the last 35 s of clicks, and files that HDFS closed in that time. "
                               "Three brokers on three machines hold it.",
    "a disk dies": "topics and table have one copy each. Lost: what was on it. While the topic is whole, the table can "
                   "be made from it again.",
    "a browser never hears a yes and goes away": "its click may be there or not: the ledger calls it unknown.",
}
