"""Measure the collector's local door at constant rates, the broker's acknowledgment included.

    python benchmarks/ingest.py --per-s 200 --per-s 1000 --sink kafka --sink kafka-confluent --batch 1 --batch 20

The loop is open: each request has its moment on the clock, and its latency counts from that moment. So a slow answer does
not slow the questions, and what waits behind it is measured too. Writes a table into RESULTS.md, and counts: as many records in
the topic as clicks were acknowledged. Writes to a topic of its own, which it deletes; your clicks and the ledger are left alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import results
import typer

from clicklab import servers, topics, traffic

TOPIC = "bench-ingest"
WARM_UP = 100  # requests
CONNECTIONS = 256  # as many as the door lets wait for Kafka; a request that finds none free waits, and that counts
ANSWER_TIMEOUT_S = 30
LAMBDA_SRC = Path(__file__).resolve().parents[1] / "lambda_src"


@dataclass
class Measured:
    """One row of the table: what came of one rate with one sink and one size of request."""

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

    def __init__(self, sink: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if name != "LEDGER_DIR"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "dev_server:app", "--app-dir", LAMBDA_SRC, "--host", "127.0.0.1", "--port",
             str(self.port), "--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "600"],
            # The sink `log` says every click.
            stdout=subprocess.DEVNULL if sink == "log" else None, stderr=subprocess.DEVNULL if sink == "log" else None,
            env=environment | {"CLICK_SINK": sink, "CLICK_TOPIC": TOPIC, "KAFKA_BOOTSTRAP_SERVERS": servers.address("kafka")},
        )  # fmt: skip
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def not_usable(self) -> str:
        if self.process.poll() is not None:
            raise typer.Exit(1)  # it has said why
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


def requests(count: int, batch: int, seed: int) -> list[bytes]:
    """Make the requests beforehand, so that the clock does not measure the making."""
    clicks = traffic.readers(count * batch, seed)
    made = []
    for start in range(0, len(clicks), batch):
        body = json.dumps(clicks[start] if batch == 1 else clicks[start : start + batch]).encode()
        head = f"POST /ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {traffic.USER_AGENT}\r\nContent-Type: text/plain\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return made


async def measure(door: Door, sink: str, batch: int, per_s: int, seconds: int) -> Measured:
    """Send `per_s` requests a second for `seconds`, each at its moment."""
    found, free = Measured(), asyncio.Semaphore(CONNECTIONS)
    for request in requests(WARM_UP, batch, seed=1):
        status = await door.post(request)
        found.acknowledged += batch * (status == 200)
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
    per_s: Annotated[list[int], typer.Option(help="requests a second; give it several times for several rows")] = [200],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="clicks in a request, 1 to 20")] = [1, 20],  # noqa: B006
    sink: Annotated[list[str], typer.Option(help="kafka, kafka-confluent or log")] = ["log", "kafka", "kafka-confluent"],  # noqa: B006
    seconds: Annotated[int, typer.Option(help="how long each row takes")] = 15,
    rounds: int = 3,
) -> None:
    """Measure the collector's local door at constant rates, the broker's acknowledgment included."""
    servers.need("kafka")
    admin = topics.admin()
    if TOPIC in admin.list_topics():  # from a run that was stopped in the middle
        admin.delete_topics([TOPIC])
        servers.wait_for(f"deleting {TOPIC}", lambda: "it is still listed" if TOPIC in admin.list_topics() else "", 30)
    admin.create_topics({TOPIC: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
    acknowledged, rows = 0, []
    try:
        # In turns, so that a busy minute does not meet one sink only.
        for round_, size, rate, one_sink in itertools.product(range(rounds), batch, per_s, sink):
            door = Door(one_sink)
            try:
                servers.wait_for("the door", door.not_usable, 60, quiet=True)
                found = asyncio.run(measure(door, one_sink, size, rate, seconds))
            finally:
                door.process.terminate()
                door.process.wait()
            acknowledged += found.acknowledged if one_sink != "log" else 0
            answered = found.statuses[200]
            rows.append({"sink": one_sink, "clicks a request": size, "requests/s": rate, "round": round_,
                         "answered 200": answered / found.statuses.total(), "clicks/s": answered * size / found.seconds,
                         "p50 ms": found.percentile(0.5), "p99 ms": found.percentile(0.99), "longest ms": max(found.latencies_ms),
                         "clicks per CPU-second": answered * size / found.cpu_s})
            print(rows[-1], flush=True)
            if others := {status: count for status, count in found.statuses.items() if status != 200}:
                print(f"not 200 (0: no answer): {others}", file=sys.stderr)
        results.write("ingest", rows, ["clicks a request", "requests/s", "sink"],
                      {"answered 200": ".1%", "clicks/s": ",.0f", "p50 ms": ".1f", "p99 ms": ".1f", "longest ms": ".1f",
                       "clicks per CPU-second": ",.0f"}, ("clicks per CPU-second", "sink", "log"),
                      f"{acknowledged:,} clicks acknowledged · {sum(topics.end_offsets(TOPIC).values()):,} records in the topic.")
    finally:
        admin.delete_topics([TOPIC])
        admin.close()


if __name__ == "__main__":
    typer.run(main)
