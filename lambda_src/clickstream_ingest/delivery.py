"""Hands clicks on and returns only when they are kept: the broker has acknowledged each, or the log shows it.

CLICK_SINK=log (the default) prints validated clicks. CLICK_SINK=kafka sends them to KAFKA_BOOTSTRAP_SERVERS with
kafka-python, CLICK_SINK=kafka-confluent with confluent-kafka; neither logs what they hold. How they reach the brokers,
`Security` says.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from clickstream_ingest import events

CLICK_TOPIC = os.environ.get("CLICK_TOPIC", "clickstream")
REJECTED_TOPIC = os.environ.get("REJECTED_TOPIC", "clickstream-rejected")
BOOTSTRAP_SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092").split(",")
# The longest `send` takes. Below the function's time-out: a function that is stopped can not say 503.
DELIVERY_TIMEOUT_MS = int(os.environ.get("DELIVERY_TIMEOUT_MS", "8000"))

# The module of each client, imported only when it is chosen.
CLIENTS = {"kafka": "with_kafka_python", "kafka-confluent": "with_confluent"}
SINKS = ("log", *CLIENTS)
AWAITED = ("kafka-confluent",)  # whose answers an event loop can await; the others wait in a thread
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM")


class NotAcknowledged(Exception):
    """Some record may not be in its topic: the broker did not acknowledge it in time."""


class Record(NamedTuple):
    """What goes into a topic; `timestamp_ms` since 1970 UTC."""

    topic: str
    value: bytes
    timestamp_ms: int
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = []


@dataclass(frozen=True)
class Security:
    """How to reach the brokers; the password is never shown."""

    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None  # PEM; None trusts the authorities of the system, which have signed MSK's

    @classmethod
    def of_environment(cls) -> "Security":
        """Read KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, _USERNAME, _PASSWORD and KAFKA_SSL_CAFILE.

        Raises
        ------
        ValueError
            They do not go together. Names the variable, never the password.
        """
        told = {name: os.environ.get(f"KAFKA_{name}") or None for name in (
            "SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CAFILE")}  # fmt: skip
        protocol, mechanism, username, password, ca_file = told.values()
        protocol = protocol or "PLAINTEXT"
        if protocol not in PROTOCOLS:
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL is {protocol!r}. Choose one of {', '.join(PROTOCOLS)}.")
        if protocol.startswith("SASL"):
            if mechanism not in MECHANISMS:
                raise ValueError(
                    f"KAFKA_SASL_MECHANISM is {mechanism!r}. With {protocol}, choose one of {', '.join(MECHANISMS)}."
                )
            if mechanism == "AWS_MSK_IAM" and protocol != "SASL_SSL":
                raise ValueError("KAFKA_SASL_MECHANISM=AWS_MSK_IAM needs KAFKA_SECURITY_PROTOCOL=SASL_SSL.")
            if mechanism != "AWS_MSK_IAM" and not (username and password):
                raise ValueError(f"{mechanism} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD.")
        elif mechanism or username or password:
            # Silently unencrypted and unknown is the worst of the possible readings.
            raise ValueError(f"KAFKA_SASL_… is set, and KAFKA_SECURITY_PROTOCOL is {protocol}. Choose SASL_SSL.")
        return cls(protocol, mechanism, username, password, ca_file)


class Client(Protocol):
    """A producer of one of the libraries, made once and used by all requests at once.

    Those of `AWAITED` have `sent` besides, a `send` to be awaited.
    """

    is_spent: bool  # whether it has to be replaced: it will send nothing any more

    def __init__(self, servers: list[str], timeout_ms: int, connect_ms: int, security: Security) -> None: ...

    def send(self, records: list[Record], deadline: float) -> None:
        """Return when the broker has each record; else raise NotAcknowledged, at `deadline` (monotonic, s) at the latest."""

    def close(self) -> None: ...


def sink() -> str:
    """Return where clicks go: one of `SINKS`."""
    chosen = os.environ.get("CLICK_SINK", "log")
    if chosen not in SINKS:
        raise ValueError(f"CLICK_SINK is {chosen!r}. Choose one of {', '.join(SINKS)}.")
    return chosen


def prepare() -> None:
    """Import the chosen client and read its settings, before the first request waits for it.

    Raises
    ------
    ValueError, ImportError
        A setting is mistyped; the library is not installed.
    """
    if (chosen := sink()) != "log":
        client_class(chosen)
        Security.of_environment()


def client_class(chosen: str) -> type[Client]:
    return importlib.import_module(f"clickstream_ingest.{CLIENTS[chosen]}").Client


def send(good: list[events.Click], bad: list[events.Rejected]) -> None:
    """Deliver the clicks, and what was refused with its reason.

    Raises
    ------
    NotAcknowledged
        After DELIVERY_TIMEOUT_MS at the latest. Any of the records may be in its topic all the same.
    """
    if (chosen := sink()) == "log":
        for click in good:
            log("INFO", "click", click.request_id, click=click)
        for row in _kept(bad):
            log("WARNING", "rejected", row.request_id, rejected=row)
    elif records := _records(good, bad):
        with _producer(chosen) as (client, deadline):
            client.send(records, deadline)


async def sent(good: list[events.Click], bad: list[events.Rejected]) -> None:
    """Do what `send` does without stopping the event loop, with one of the clients of `AWAITED`.

    Raises
    ------
    NotAcknowledged
        As `send`.
    """
    if records := _records(good, bad):
        with _producer(sink()) as (client, deadline):
            await client.sent(records, deadline)


def log(level: str, message: str, request_id: str | None, **details: Any) -> None:
    """Print one JSON line, as CloudWatch keeps it. Details may hold the structs of `events`."""
    line = {"level": level, "message": message, "request_id": request_id, **details}
    # One write: the lines of two threads do not mix.
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _records(good: list[events.Click], bad: list[events.Rejected]) -> list[Record]:
    return [*map(_click_record, good), *map(_rejected_record, _kept(bad))]


def _kept(bad: list[events.Rejected]) -> list[events.Rejected]:
    return [row for row in bad if row.payload]


def _click_record(click: events.Click) -> Record:
    return Record(CLICK_TOPIC, events.encode(click), click.received_at, events.key(click), events.headers(click))


def _rejected_record(row: events.Rejected) -> Record:
    return Record(REJECTED_TOPIC, msgspec.json.encode(row), row.received_at)


_client: Client | None = None
_changing = threading.Lock()


def close() -> None:
    """Close the producer, for a server that stops. The next `send` makes a new one."""
    if (client := _client) is not None:
        _discard(client)


@contextmanager
def _producer(chosen: str) -> Iterator[tuple[Client, float]]:
    """Give the one producer and the deadline (monotonic clock, s), and replace the producer when it is spent."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000
    client = _connected(chosen, deadline)
    try:
        yield client, deadline
    except NotAcknowledged:
        if client.is_spent:
            _discard(client)
        raise


def _connected(chosen: str, deadline: float) -> Client:
    """Return the one producer, connecting it first when needed, until `deadline` (monotonic clock, s).

    It outlives the request, because connecting takes longer than all else together.
    """
    global _client
    if (client := _client) is not None:  # read once: another request may discard it in between
        return client
    if not _changing.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise NotAcknowledged("another request is still trying to connect to Kafka")
    try:
        if _client is None:
            connect_ms = max(1, int((deadline - time.monotonic()) * 1000))
            security = Security.of_environment()
            _client = client_class(chosen)(BOOTSTRAP_SERVERS, DELIVERY_TIMEOUT_MS, connect_ms, security)
        return _client
    finally:
        _changing.release()


def _discard(client: Client) -> None:
    """Stop a producer, so that the next `send` makes a new one. What it still holds fails in all waiting requests."""
    global _client
    if not _changing.acquire(blocking=False):
        return  # another request is replacing it, and waiting for that would make this answer late
    try:
        if _client is not client:
            return
        _client = None
    finally:
        _changing.release()
    client.close()
