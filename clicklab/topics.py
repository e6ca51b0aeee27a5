"""Create the four topics and read what is in them. Notebooks 03 and 04 call it; so does the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
from clickstream_ingest import events
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from clicklab import Trouble, servers

CLICKS = "clickstream"
REJECTED = "clickstream-rejected"
DEAD_LETTERS = "clickstream-dlq"
CONTROL = "clickstream-control"
# Partitions of each. Three for the clicks, so that readers can share them; the others are small or need one order.
PARTITIONS = {CLICKS: 3, REJECTED: 1, DEAD_LETTERS: 1, CONTROL: 1}
# The table is rebuilt from the topic when it has to be, and history carries old timestamps: keep all clicks. On the control
# topic the sink announces files before it commits them: what retention takes meanwhile is lost without a sign.
KEPT_FOREVER = {"retention.ms": "-1"}
READ_TIMEOUT_S = 60
REQUIRED = tuple(field["field"] for field in events.connect_schema()["fields"] if not field["optional"])


class Sighting(NamedTuple):
    """One record seen at a hop. `event_id` is empty when the record is no click: a tombstone, not JSON, a required field missing."""

    event_id: str
    partition: int
    offset: int
    fingerprint: str


class Record(NamedTuple):
    """One record of a topic: where it is, when it was received (ms since 1970 UTC), and its bytes."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def admin() -> KafkaAdminClient:
    return KafkaAdminClient(bootstrap_servers=servers.address("kafka"), request_timeout_ms=10_000)


def ensure() -> None:
    """Create those of the four topics that do not exist; leave the others as they are."""
    client = admin()
    try:
        missing = set(PARTITIONS).difference(client.list_topics())
        if missing:
            client.create_topics(
                [NewTopic(name, num_partitions=PARTITIONS[name], replication_factor=1,
                          topic_configs=KEPT_FOREVER if name in (CLICKS, CONTROL) else {}) for name in missing],
                wait_for_metadata=True)
    finally:
        client.close()


def ids() -> dict[str, str]:
    """The Kafka cluster's id and the ids of the two topics that belong to the table; "" for a topic that is not there."""
    client = admin()
    try:
        found = {topic["name"]: topic["topic_id"] or "" for topic in client.describe_topics([CLICKS, CONTROL])}
        return {"cluster": client.describe_cluster()["cluster_id"], CLICKS: found[CLICKS], CONTROL: found[CONTROL]}
    finally:
        client.close()


def end_offsets(topic: str) -> dict[int, int]:
    """The next offset of each Kafka partition; {} for a topic that is not there."""
    return _offsets(topic, KafkaConsumer.end_offsets)


def start_offsets(topic: str) -> dict[int, int]:
    """The first offset that each Kafka partition still holds; {} for a topic that is not there."""
    return _offsets(topic, KafkaConsumer.beginning_offsets)


def _offsets(topic: str, ask: Callable) -> dict[int, int]:
    consumer = KafkaConsumer(bootstrap_servers=servers.address("kafka"))
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        return {tp.partition: offset for tp, offset in ask(consumer, partitions).items()} if partitions else {}
    finally:
        consumer.close()


def group_offsets(group: str) -> dict[int, int]:
    """How far a consumer group has read each Kafka partition of `clickstream`; {} for one that has not begun."""
    client = admin()
    try:
        found = client.list_group_offsets({group: None})[group]
        return {tp.partition: at.offset for tp, at in found.items() if tp.topic == CLICKS and at.offset >= 0}
    finally:
        client.close()


def records(topic: str, since_ms: int = 0) -> Iterator[Record]:
    """Read a topic from the first record received at or after `since_ms` to its present end.

    Parameters
    ----------
    since_ms : int
        Kafka timestamp, ms since 1970 UTC; 0 reads everything.

    Raises
    ------
    Trouble
        The topic is not there, or the broker gave nothing of what is left for 60 s.
    """
    consumer = KafkaConsumer(bootstrap_servers=servers.address("kafka"), enable_auto_commit=False,
                             max_poll_records=5000, fetch_max_bytes=16 << 20, max_partition_fetch_bytes=4 << 20)
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise Trouble(f"There is no topic {topic}.", "nothing has created it yet", "make up")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        starts = consumer.offsets_for_times({tp: since_ms for tp in partitions}) if since_ms else {}
        for tp in partitions:
            if not since_ms:
                consumer.seek_to_beginning(tp)
            else:
                consumer.seek(tp, starts[tp].offset if starts.get(tp) else ends[tp])
        deadline = time.monotonic() + READ_TIMEOUT_S
        left = {tp for tp in partitions if consumer.position(tp) < ends[tp]}
        while left:
            if time.monotonic() > deadline:
                raise Trouble(f"{topic} could not be read to its end: for {READ_TIMEOUT_S} s nothing came.",
                              ", ".join(f"partition {tp.partition} is at {consumer.position(tp)} of {ends[tp]}" for tp in left),
                              "make status")
            for tp, batch in consumer.poll(timeout_ms=500).items():
                deadline = time.monotonic() + READ_TIMEOUT_S
                for record in batch:
                    if record.offset < ends[tp]:
                        yield Record(record.partition, record.offset, record.timestamp, record.key, record.value,
                                     tuple(record.headers))
            # The position, not the last record: transaction markers take offsets too.
            left = {tp for tp in left if consumer.position(tp) < ends[tp]}
    finally:
        consumer.close()


_decoder = msgspec.json.Decoder()


def decoded(value: bytes | None) -> dict:
    """A record's value as a dict; {} when it is a tombstone or not a JSON object."""
    try:
        click = _decoder.decode(value) if value else {}
    except msgspec.DecodeError:
        return {}
    return click if isinstance(click, dict) else {}


def _click(record: Record) -> dict:
    """A record's click; {} when it is none: a tombstone, not JSON, a required field missing."""
    click = decoded(record.value)
    return {} if any(click.get(name) is None for name in REQUIRED) else click


def clicks(since_ms: int = 0) -> list[dict]:
    """The clicks in the topic as dicts, in the order of their Kafka partitions and offsets; what is no click is left out."""
    return [click for record in records(CLICKS, since_ms) if (click := _click(record))]


def sightings(since_ms: int = 0) -> list[Sighting]:
    """What the ledger compares: id, place and fingerprint of each record of `clickstream`."""
    found = []
    for record in records(CLICKS, since_ms):
        click = _click(record)
        found.append(Sighting(str(click.get("event_id", "")), record.partition, record.offset,
                              events.fingerprint(click) if click else ""))
    return found
