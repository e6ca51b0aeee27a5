"""Time the sink that lands a topic full of clicks, against Kafka's own consumer tool on the same topic.

    .venv/bin/python benchmarks/land.py [--clicks 1000000] [--rounds 3] [--interval-ms 5000]

Needs the servers. The sink's configuration is the course's, with a topic, a table and a name of its own, which are removed again: your
clicks, your table and the ledger are left alone.
"""

from __future__ import annotations

import re
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated

import requests
import results
import typer
from clickstream_ingest import events
from confluent_kafka import Producer
from msgspec.structs import replace
from produce import fresh_topics, kafka_tool

from clicklab import connect, hdfs, landed, servers, topics, traffic

NAME, TOPIC, CONTROL = "bench-sink", "bench-land", "bench-land-control"
TABLE = f"{hdfs.WAREHOUSE}/web/bench"
TOOL = "Kafka's tool"
PLACES = "without offset columns"
# How the course's configuration is changed: not at all but for the names, and without the places that prove "each once".
SINKS = {"as configured": False, PLACES: True}


def fill(clicks: int) -> int:
    """Put clicks of this hour into the topic, with ids of their own; returns their bytes."""
    now_ms = time.time_ns() // 1_000_000
    sent = [traffic.click_of(one, "bench") for one in traffic.simulate(7, 2000, seed=1)[0]]
    producer = Producer({"bootstrap.servers": servers.address("kafka"), "acks": "all", "linger.ms": "20"})
    size = 0
    for number in range(clicks):
        click = replace(sent[number % len(sent)], event_id=str(uuid.uuid4()), page_view_id=str(uuid.uuid4()), received_at=now_ms)
        value = events.encode(click)
        size += len(value)
        while producer.poll(0) or len(producer) > 50_000:
            producer.poll(0.01)
        producer.produce(TOPIC, value, key=events.key(click))
    if producer.flush(120) or sum(topics.end_offsets(TOPIC).values()) != clicks:
        sys.exit("not all clicks are in the topic")
    return size


def remove() -> None:
    """Take away the sinks of this benchmark, one that was stopped in the middle too, and their table."""
    place = f"{servers.url('connect')}/connectors"
    for name in requests.get(place, timeout=30).json():
        if name.startswith(NAME):
            requests.delete(f"{place}/{name}", timeout=30)
            servers.wait_for(f"the end of {name}", lambda name=name: "it is still there" if connect.tasks(name) else "", 60, quiet=True)
    hdfs.client().delete(TABLE, True)


def is_assigned(sink: str) -> bool:
    """Whether the sink's task has its share of the topic."""
    admin, group = topics.admin(), f"connect-{sink}"
    try:
        members = admin.describe_groups([group])[group]["members"]
        return any(TOPIC in str(member) for member in members)
    finally:
        admin.close()


def land(clicks: int, interval_ms: int, is_bare: bool) -> dict[str, float]:
    """Register the sink and wait until all have landed: clicks a second, and the worker's peak memory."""
    remove()
    fresh_topics(CONTROL)
    sink = f"{NAME}-{time.time_ns()}"  # one of the same name would go on where the last one stopped
    chosen = connect.config(interval_ms) | {"topics": TOPIC, "iceberg.control.topic": CONTROL, "iceberg.tables": "web.bench"}
    chosen = {key: value for key, value in chosen.items() if not (is_bare and key.startswith("transforms"))}
    status = Path(f"/proc/{servers.pid('connect')}")
    if status.exists():  # on Linux
        (status / "clear_refs").write_text("5")  # the peak begins anew
    requests.put(f"{servers.url('connect')}/connectors/{sink}/config", json=chosen, timeout=30).raise_for_status()
    servers.wait_for("the sink's share", lambda: "" if is_assigned(sink) else "it has none yet", 60, quiet=True)
    started_ms = time.time() * 1000

    def rows() -> dict[int, int]:
        found = landed.table(TABLE)
        return {snapshot.timestamp_ms: int(snapshot.summary["total-records"]) for snapshot in found.snapshots()} if found else {}

    servers.wait_for("landing", lambda: "" if (there := max(rows().values(), default=0)) >= clicks else f"{there:,} clicks", 600)
    done = rows()
    if max(done.values()) != clicks:
        sys.exit(f"{clicks:,} clicks in the topic, {max(done.values()):,} rows in the table")
    took_s = (min(at for at, there in done.items() if there == clicks) - started_ms) / 1000
    found = {"clicks/s": clicks / took_s, "commits": len(done)}
    if status.exists():
        found["worker's peak MB"] = int(re.search(r"VmHWM:\s+(\d+)", (status / "status").read_text())[1]) / 1024
    return found


def main(clicks: Annotated[int, typer.Option(help="how many wait in the topic")] = 1_000_000, rounds: int = 3,
         interval_ms: Annotated[int, typer.Option(help="ms between two commits")] = 5000) -> None:
    servers.need("kafka", "namenode", "datanode", "connect")
    fresh_topics(TOPIC)
    size, rows = fill(clicks), []
    try:
        for round_ in range(rounds):
            said, _ = kafka_tool("ConsumerPerformance", "--topic", TOPIC, "--num-records", str(clicks), "--hide-header", "--group", f"{TOPIC}-{round_}")
            read_per_s = float(said.strip().splitlines()[-1].split(", ")[-1])
            rows.append({"what": TOOL, "round": round_, "clicks/s": read_per_s})
            for name, is_bare in SINKS.items():
                rows.append({"what": name, "round": round_, **land(clicks, interval_ms, is_bare)})
                print(rows[-1], flush=True)
    finally:
        remove()
        topics.admin().delete_topics([TOPIC, CONTROL])
    results.write("land", rows, ["what"], {"clicks/s": ",.0f", "commits": ".0f", "worker's peak MB": ",.0f"}, ("clicks/s", "what", TOOL),
                  f"{clicks:,} clicks of {size / clicks:.0f} B, a commit every {interval_ms / 1000:.0f} s; so up to that much too long; each time as many rows as records.")


if __name__ == "__main__":
    typer.run(main)
