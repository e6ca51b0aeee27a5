"""Measure the collector's local door at constant rates, the broker's acknowledgment included, beside peers.

    python benchmarks/ingest.py --per-s 200 --per-s 1000 --door camel --door kafka-confluent --batch 1 --batch 20

The loop is open: each request has its moment on the clock, and its latency counts from that moment. So a slow answer does
not slow the questions, and what waits behind it is measured too. It counts, too: as many records in the topic as clicks were
acknowledged. Writes to topics of its own, which it deletes; your clicks and the ledger are left alone.

The peers (benchmarks/peers) do less than our door. Apache Camel answers when the broker has every click, as ours does: `camel`
checks nothing but the JSON, adds no field, and writes no key and no header; `camel-checks` holds each click against the
contract's schema, and writes our key and header. Its jars are fetched at the first run. Telegraf answers before it writes; it
is built from source when `go` is on this machine. `bare` is the least that a door in Python can do: the limit for ours.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import results
import typer
from clickstream_ingest import events
from produce import fresh_topics

from clicklab import Trouble, bootstrap, servers, topics, traffic

TOPIC = "bench-ingest"  # with "-" and the door's name
WARM_UP = 3000  # requests: Java compiles what it has run some thousand times
WARM_UP_CONNECTIONS = 16
CONNECTIONS = 256  # as many as the door lets wait for Kafka; a request that finds none free waits, and that counts
ANSWER_TIMEOUT_S = 30
BUILD_TIMEOUT_S = 900
LAMBDA_SRC = Path(__file__).resolve().parents[1] / "lambda_src"
PEERS = Path(__file__).resolve().parent / "peers"
TELEGRAF = "github.com/influxdata/telegraf/cmd/telegraf@v1.37.2"
TELEGRAF_PLUGINS = "custom,inputs.http_listener_v2,outputs.kafka,parsers.json_v2,serializers.json"


class LeftOut(Trouble):
    """A door cannot be measured here; the text says why. No wait for it goes on."""


@dataclass
class Measured:
    """One row of the table: what came of one rate with one door and one size of request."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)
    acknowledged: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    def percentile(self, share: float) -> float:
        ranked = sorted(self.latencies_ms)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Door:
    """The door under test, in a process of its own, and the connections to it."""

    def __init__(self, name: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if name != "LEDGER_DIR"}
        broker = servers.address("kafka")
        self.process = subprocess.Popen(
            DOORS[name](self.port),
            env=environment | {"CLICK_SINK": name, "CLICK_TOPIC": topic(name), "KAFKA_BOOTSTRAP_SERVERS": broker,
                               "PEER_PORT": str(self.port), "PEER_TOPIC": topic(name), "PEER_BROKERS": broker},
        )  # fmt: skip
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def not_usable(self) -> str:
        if self.process.poll() is not None:
            raise LeftOut(f"its process ended with status {self.process.returncode}; what it said is above")
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return ""

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    async def post(self, request: bytes) -> int:
        """Send one request over a connection that is free, and return the status of its answer."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        self.idle.append((reader, writer))
        return int(head.split(b" ", 2)[1])


def topic(door: str) -> str:
    return f"{TOPIC}-{door}"


def ours(port: int) -> list[str]:
    """Give the command that starts our door; the sink is in its environment."""
    return uvicorn(port, "dev_server:app", LAMBDA_SRC)


def bare(port: int) -> list[str]:
    return [*uvicorn(port, "bare:app", PEERS), "--lifespan", "off"]


def uvicorn(port: int, app: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--app-dir", str(folder), "--host", "127.0.0.1", "--port", str(port),
            "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "600"]  # fmt: skip


def camel(port: int, route: str = "forward") -> list[str]:
    try:
        jars = bootstrap.fetch_locked(PEERS / "camel" / "jgo.lock.toml", "camel")
    except SystemExit as error:
        raise LeftOut(str(error)) from error
    log = "-Dorg.slf4j.simpleLogger"
    return [bootstrap.java(), "-Xmx256m", f"{log}.defaultLogLevel=warn", f"{log}.log.org.apache.kafka=error",
            f"-Dcamel.main.routes-include-pattern=file:{PEERS / 'camel' / f'{route}.xml'}", "-cp", f"{jars}/*",
            "org.apache.camel.main.Main"]  # fmt: skip


def checking_camel(port: int) -> list[str]:
    schema = servers.state_folder() / "click.schema.json"
    schema.write_text(json.dumps(events.json_schema()))
    program, *arguments = camel(port, "check")
    return [program, f"-Dschema={schema}", *arguments]


def telegraf(port: int) -> list[str]:
    folder = bootstrap.share(Path(sys.prefix)) / "telegraf"
    if not (folder / "telegraf").exists():
        if not shutil.which("go"):
            raise LeftOut("it is built from source, and go is not on this machine")
        print(f"building {TELEGRAF}, which takes some minutes", file=sys.stderr)
        settings = {"GOBIN": str(folder), "GOMAXPROCS": "1", "GOFLAGS": "-p=1", "CGO_ENABLED": "0"}
        try:
            subprocess.run(["nice", "go", "install", "-trimpath", "-tags", TELEGRAF_PLUGINS, TELEGRAF], env=os.environ | settings,
                           check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LeftOut(f"its build was not done in {BUILD_TIMEOUT_S} s") from error
        except subprocess.CalledProcessError as error:
            raise LeftOut(f"go could not build it: {error.stderr.strip().splitlines()[-1]}") from error
    return [str(folder / "telegraf"), "--quiet", "--non-strict-env-handling", "--config",
            str(PEERS / "telegraf" / "telegraf.conf")]  # fmt: skip


DOORS: dict[str, Callable[[int], list[str]]] = {
    "camel": camel, "camel-checks": checking_camel, "telegraf": telegraf, "bare": bare,
    "kafka": ours, "kafka-confluent": ours, "log": ours,
}  # fmt: skip
NOT_ACKNOWLEDGED = ("telegraf", "log")


def requests(count: int, batch: int, seed: int) -> list[bytes]:
    """Make the requests beforehand, so that the clock does not measure the making."""
    clicks = traffic.readers(count * batch, seed)
    made = []
    for start in range(0, len(clicks), batch):
        body = json.dumps(clicks[start] if batch == 1 else clicks[start : start + batch]).encode()
        head = f"POST /ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {traffic.USER_AGENT}\r\nContent-Type: text/plain\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return made


async def measure(door: Door, batch: int, per_s: int, seconds: int) -> Measured:
    """Send `per_s` requests a second for `seconds`, each at its moment."""
    found, free = Measured(), asyncio.Semaphore(CONNECTIONS)
    first = iter(requests(WARM_UP, batch, seed=1))

    async def warm_up() -> None:
        for request in first:
            status = await door.post(request)  # its own line: the sum is read after the wait
            found.acknowledged += batch * (status == 200)

    await asyncio.gather(*(warm_up() for _ in range(WARM_UP_CONNECTIONS)))
    made = requests(per_s * seconds, batch, seed=2)

    async def one(request: bytes, due_at: float) -> None:
        async with free:
            try:
                status = await asyncio.wait_for(door.post(request), ANSWER_TIMEOUT_S)
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                status = 0
        found.latencies_ms.append((time.perf_counter() - due_at) * 1000)
        found.statuses[status] += 1
        found.acknowledged += batch * (status == 200)

    before_s, started = door.cpu_s(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(made):
            due_at = started + number / per_s
            if (early_s := due_at - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            group.create_task(one(request, due_at))
    found.seconds, found.cpu_s = time.perf_counter() - started, door.cpu_s() - before_s
    for _, writer in door.idle:
        writer.close()
    door.idle.clear()
    return found


def main(
    per_s: Annotated[list[int], typer.Option(help="requests a second; give it several times for several rows")] = [200, 1000],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="clicks in a request, 1 to 20")] = [1, 20],  # noqa: B006
    door: Annotated[list[str], typer.Option(help=", ".join(DOORS))] = ["camel", "camel-checks", "telegraf", "bare", "kafka", "kafka-confluent"],  # noqa: B006
    seconds: Annotated[int, typer.Option(help="how long each row takes")] = 8,
    rounds: int = 3,
) -> None:
    """Measure the collector's local door at constant rates, the broker's acknowledgment included, beside peers."""
    servers.need("kafka")
    fresh_topics(TOPIC, *map(topic, door))
    answered_200, rows, left_out = Counter(), [], {}
    try:
        # In turns, so that a busy minute does not meet one door only.
        for round_, size, rate, name in itertools.product(range(rounds), batch, per_s, door):
            if name in left_out:
                continue
            one = None
            try:
                one = Door(name)
                servers.wait_for("the door", one.not_usable, 60, quiet=True)
                found = asyncio.run(measure(one, size, rate, seconds))
            except LeftOut as why:
                left_out[name] = why
                print(f"{name} is left out: {why}.", file=sys.stderr)
                continue
            finally:
                if one:
                    one.process.terminate()
                    one.process.wait()
            answered_200[name] += found.acknowledged
            answered = found.statuses[200]
            rows.append({"clicks a request": size, "requests/s": rate, "door": name, "round": round_,
                         "answered 200": answered / found.statuses.total(), "clicks/s": answered * size / found.seconds,
                         "p50 ms": found.percentile(0.5), "p99 ms": found.percentile(0.99), "longest ms": max(found.latencies_ms),
                         "clicks per CPU-second": answered * size / found.cpu_s})  # fmt: skip
            print(rows[-1], flush=True)
            if others := {status: count for status, count in found.statuses.items() if status != 200}:
                print(f"not 200 (0: no answer): {others}", file=sys.stderr)
        told = [f"{name} is left out: {why}." for name, why in left_out.items()]
        for name, clicks in answered_200.items():
            word = "answered 200 before they were written" if name in NOT_ACKNOWLEDGED else "acknowledged"
            told.append(f"{name}: {clicks:,} clicks {word}, {sum(topics.end_offsets(topic(name)).values()):,} records in its topic.")
        results.write("ingest", rows, ["clicks a request", "requests/s", "door"],
                      {"answered 200": ".1%", "clicks/s": ",.0f", "p50 ms": ".1f", "p99 ms": ".1f", "longest ms": ".1f",
                       "clicks per CPU-second": ",.0f"}, ("clicks per CPU-second", "door", "camel"), " ".join(told))  # fmt: skip
    finally:
        topics.admin().delete_topics([*map(topic, door)])


if __name__ == "__main__":
    typer.run(main)
