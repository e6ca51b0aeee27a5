"""Time clients that put clicks into a topic, each acknowledged by all replicas: kafka-python, confluent-kafka, Kafka's own tool.

    .venv/bin/python benchmarks/produce.py [--clicks 200000] [--rounds 3]

Needs the broker. Writes to a topic of its own, which it deletes, and counts: as many records in it as clicks were acknowledged.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import results
import typer
from clickstream_ingest import events

from clicklab import bootstrap, questions, servers, topics, traffic

TOPIC = "bench-produce"
TOOL = "Kafka's tool"
CLIENTS = ("kafka-python", "confluent-kafka", TOOL)
LINGER_MS, BATCH_BYTES = 5, 65536
CHOSEN = {"acks": "all", "enable.idempotence": "true", "linger.ms": str(LINGER_MS), "batch.size": str(BATCH_BYTES)}


def kafka_tool(name: str, *words: str) -> tuple[str, float]:
    """Run a class of Kafka's tools against the broker: what it printed, and the CPU seconds that it took."""
    java = [bootstrap.java(), "-XX:+UseSerialGC", "-cp", f"{bootstrap.jars_folder()}/kafka/*", f"org.apache.kafka.tools.{name}"]
    process = subprocess.Popen([*map(str, java), "--bootstrap-server", servers.address("kafka"), *words], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed:\n{said[-2000:]}")
    return said, used.ru_utime + used.ru_stime


def fresh_topics(start: str, *names: str) -> None:
    """Make these topics (default: `start` itself) anew, with three partitions; all that begin with `start` go, those of a stopped run too."""
    admin = topics.admin()
    try:
        if left := {name for name in admin.list_topics() if name.startswith(start)}:
            admin.delete_topics([*left])
            servers.wait_for("deleting topics", lambda: "still listed" if left & {*admin.list_topics()} else "", 30, quiet=True)
        admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1} for name in names or [start]}, wait_for_metadata=True)
    finally:
        admin.close()


def clicks_file(clicks: int, path: Path) -> None:
    """Write clicks as they stand in the topic, one a line."""
    sent, _ = traffic.simulate(28, 9000, seed=1)
    lines = [events.encode(traffic.click_of(one, "bench")) for one in sent[:clicks]]
    path.write_bytes(b"\n".join(lines[number % len(lines)] for number in range(clicks)))


def produce(client: str, values: list[bytes]) -> None:
    """Send all and wait until each is acknowledged."""
    if client == "kafka-python":
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=servers.address("kafka"), acks="all", enable_idempotence=True, linger_ms=LINGER_MS,
                                 batch_size=BATCH_BYTES)
        for sending in [producer.send(TOPIC, value) for value in values]:
            sending.get(timeout=120)
        return
    from confluent_kafka import Producer

    failed: list = []
    producer = Producer({"bootstrap.servers": servers.address("kafka"), "queue.buffering.max.messages": 10_000_000, **CHOSEN})
    for value in values:
        producer.produce(TOPIC, value, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    if producer.flush(120) or failed:
        sys.exit(f"not acknowledged: {failed[:1]}")


def measure(client: str, file: Path, clicks: int) -> dict[str, float]:
    """One client, once: clicks a second, and CPU seconds for a million."""
    if client == TOOL:
        said, cpu_s = kafka_tool("ProducerPerformance", "--topic", TOPIC, "--num-records", str(clicks), "--throughput", "-1", "--payload-file",
                                 str(file), "--command-property", *(f"{key}={value}" for key, value in CHOSEN.items()))
        per_s = float(re.findall(r"([\d.]+) records/sec", said)[-1])
    else:
        ran = subprocess.run([sys.executable, __file__, "--one", client, "--file", file], capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{client} failed:\n{ran.stderr[-2000:]}")
        per_s, cpu_s = map(float, ran.stdout.split())
    return {"clicks/s": per_s, "CPU s a million": cpu_s / clicks * 1e6}


def main(clicks: Annotated[int, typer.Option(help="how many each client sends")] = 200_000, rounds: int = 3,
         one: Annotated[str, typer.Option(help="measure one client and print it (used by itself)")] = "", file: str = "") -> None:
    if one:
        values = Path(file).read_bytes().split(b"\n")
        started, used_s = time.monotonic(), questions.cpu_s()
        produce(one, values)
        print(len(values) / (time.monotonic() - started), questions.cpu_s() - used_s)
        return
    servers.need("kafka")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "clicks"
        clicks_file(clicks, lines)
        for round_ in range(rounds):
            for client in CLIENTS:
                fresh_topics(TOPIC)
                rows.append({"client": client, "round": round_, **measure(client, lines, clicks)})
                print(rows[-1], flush=True)
                if (there := sum(topics.end_offsets(TOPIC).values())) != clicks:
                    sys.exit(f"{client}: {clicks:,} clicks sent, {there:,} records in the topic")
        size = lines.stat().st_size / clicks
    topics.admin().delete_topics([TOPIC])
    results.write("produce", rows, ["client"], {"clicks/s": ",.0f", "CPU s a million": ".1f"}, ("clicks/s", "client", TOOL),
                  f"{clicks:,} clicks of {size:.0f} B each time; all of them in the topic afterward.")


if __name__ == "__main__":
    typer.run(main)
