"""Hands clicks on and returns only when they are kept: the broker has acknowledged each, or the log shows it.

CLICK_SINK=log (the default) prints validated clicks; CLICK_SINK=kafka sends them to KAFKA_BOOTSTRAP_SERVERS and never
logs what they hold.
"""

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from clickstream_ingest import events

CLICK_TOPIC = os.environ.get("CLICK_TOPIC", "clickstream")
REJECTED_TOPIC = os.environ.get("REJECTED_TOPIC", "clickstream-rejected")
BOOTSTRAP_SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092").split(",")
# The longest `send` takes. Below the function's time-out: a function that is stopped can not say 503.
DELIVERY_TIMEOUT_MS = int(os.environ.get("DELIVERY_TIMEOUT_MS", "8000"))

# At level DEBUG kafka-python logs each record with its value, and these are about people.
logging.getLogger("kafka").setLevel(logging.WARNING)


class NotAcknowledged(Exception):
    """Some record may not be in its topic: the broker did not acknowledge it in time."""


def sink() -> str:
    """Return where clicks go: "log" or "kafka"."""
    chosen = os.environ.get("CLICK_SINK", "log")
    if chosen not in ("log", "kafka"):
        raise ValueError(f'CLICK_SINK is {chosen!r}. Choose "log" or "kafka".')
    return chosen


def send(good: list[events.Click], bad: list[events.Rejected]) -> None:
    """Deliver the clicks, and what was refused with its reason.

    Raises
    ------
    NotAcknowledged
        After DELIVERY_TIMEOUT_MS at the latest. Any of the records may be in its topic all the same.
    """
    kept = [row for row in bad if row.payload]
    if sink() == "log":
        for click in good:
            log("INFO", "click", click.request_id, click=click)
        for row in kept:
            log("WARNING", "rejected", row.request_id, rejected=row)
    elif good or kept:
        _produce(good, kept)


def log(level: str, message: str, request_id: str | None, **details: Any) -> None:
    """Print one JSON line, as CloudWatch keeps it. Details may hold the structs of `events`."""
    line = {"level": level, "message": message, "request_id": request_id, **details}
    # One write: the lines of two threads do not mix.
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


_producer: KafkaProducer | None = None
_changing = threading.Lock()


def close() -> None:
    """Close the producer, for a server that stops. The next `send` makes a new one."""
    if (producer := _producer) is not None:
        _discard(producer)


def _produce(good: list[events.Click], bad: list[events.Rejected]) -> None:
    deadline = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000
    try:
        producer = _connected(deadline)
        futures = [
            producer.send(
                CLICK_TOPIC,
                events.encode(click),
                key=events.key(click),
                headers=events.headers(click),
                timestamp_ms=click.received_at,
            )
            for click in good
        ]
        futures += [
            producer.send(REJECTED_TOPIC, msgspec.json.encode(row), timestamp_ms=row.received_at) for row in bad
        ]
    except KafkaError as error:
        raise NotAcknowledged(str(error)) from error
    try:
        # Each is asked: flush() returns quietly when a record has failed.
        for future in futures:
            future.get(timeout=max(0.0, deadline - time.monotonic()))
    except KafkaError as error:
        # A record that times out between two attempts leaves kafka-python 3.0.12 without a producer id for good: it
        # sends nothing any more, even when the broker is back.
        _discard(producer)
        raise NotAcknowledged(str(error)) from error


def _connected(deadline: float) -> KafkaProducer:
    """Return the one producer, connecting it first when needed, until `deadline` (monotonic clock, s).

    It outlives the request, because connecting takes longer than all else together.
    """
    global _producer
    if (producer := _producer) is not None:  # read once: another request may discard it in between
        return producer
    if not _changing.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise NotAcknowledged("another request is still trying to connect to Kafka")
    try:
        if _producer is None:
            _producer = KafkaProducer(
                bootstrap_servers=BOOTSTRAP_SERVERS,
                bootstrap_timeout_ms=max(1, int((deadline - time.monotonic()) * 1000)),
                acks="all",
                enable_idempotence=True,  # said, so that a setting against it is an error and not a silent no
                metrics_enabled=False,  # nobody reads them, and they cost a sixth of a send
                linger_ms=0,  # on Lambda, threads stop when the handler returns: nothing may wait for company
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                request_timeout_ms=DELIVERY_TIMEOUT_MS // 2,
                max_block_ms=DELIVERY_TIMEOUT_MS // 2,
                reconnect_backoff_ms=50,
                reconnect_backoff_max_ms=1000,  # the default, 30 s, is how long clicks are refused after an outage
            )
        return _producer
    finally:
        _changing.release()


def _discard(producer: KafkaProducer) -> None:
    """Stop a producer, so that the next `send` makes a new one. What it still holds fails in all waiting requests."""
    global _producer
    if not _changing.acquire(blocking=False):
        return  # another request is replacing it, and waiting for that would make this answer late
    try:
        if _producer is not producer:
            return
        _producer = None
    finally:
        _changing.release()
    # close() would flush first, and give up without closing when it can not. There is no public way around that.
    producer._sender.force_close()
    producer._sender.join(timeout=1)
    with suppress(KafkaError):
        producer.close(timeout=0)
