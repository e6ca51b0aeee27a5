"""Bring clicks that a log kept into the topic: once, however often it is run. Notebook 08 calls it.

`python -m clicklab replay --log-group NAME` reads CloudWatch; `access_log` reads a web server's own log. A source is anything that
yields `Line`; a `judge` says what a line holds, `Replay` sends it.
"""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from clickstream_ingest import events
from clickstream_ingest.events import LedgerLine

from clicklab import Trouble, aws, ledger, servers, topics

COLLECTOR = "replay"
BATCH = 500  # clicks sent, and asked for, together
DELIVERY_TIMEOUT_MS = 30_000
DAY_MS = 86_400_000
# CloudWatch takes lines in up to two weeks after their time, and shows them a little late: look back, rather than miss one.
OLDEST_BEFORE_GROUP_MS = 14 * DAY_MS
LATE_MS = 15 * 60_000
EXAMPLES = 3

_ANNOUNCED = "Received click event: "
_SEED = re.compile(rf"{_ANNOUNCED}(.*)\Z", re.DOTALL)
_ID_IN_PREFIX = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


class Line(NamedTuple):
    """One line of a log: when it was written (ms since 1970 UTC), where, its text, and how to name it to a person (default: by time)."""

    at: int
    place: str
    text: str
    name: str = ""


class Unreadable(ValueError):
    """A line that announces a click and does not hold one."""


class Found(NamedTuple):
    """What a line holds."""

    good: list[events.Click] = []
    bad: list[events.Rejected] = []


# --- From a line to clicks -----------------------------------------------------------------------------------------------

def judge(line: Line) -> Found | None:
    """Read a line of the first handler, or of ours with CLICK_SINK=log; None when it is not about a click.

    Raises
    ------
    Unreadable
        The line announces a click, and what follows can not be read.
    """
    text = line.text.rstrip("\n")
    request_id, ours = None, None
    if text.startswith("{"):
        try:
            ours = json.loads(text)
        except ValueError:
            if '"message":"click"' in text[:100]:
                raise Unreadable("a click's line that is cut off") from None
    if isinstance(ours, dict):
        if ours.get("message") == "click":
            return _ours(ours, line)
        if ours.get("message") == "rejected":
            return Found(bad=[_rejected(ours, line)])
        # Lambda's JSON log format, chosen in its console, wraps what the handler logs.
        text, request_id = str(ours.get("message", "")), _text(ours.get("requestId"))
    if not (said := _SEED.search(text)):
        return None
    if request_id is None and (told := _ID_IN_PREFIX.search(text[: said.start()])):
        request_id = told.group()
    try:
        body = ast.literal_eval(said.group(1))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Unreadable(f"not a Python literal: {type(error).__name__}") from None
    return _seeds(body, request_id or line.place, line)


def _ours(said: dict, line: Line) -> Found:
    click = said.get("click")
    if not isinstance(click, dict):
        raise Unreadable("a click's line without a click")
    return kept(click, 0, _text(said.get("request_id")) or line.place, line, user_agent=_text(click.get("user_agent")))


def _text(value: Any) -> str | None:
    """A value as the contract takes it from whoever handed the click over; None when it is no text."""
    return value.encode(errors="replace").decode() or None if isinstance(value, str) else None


def _seeds(body: Any, request_id: str, line: Line) -> Found:
    """The first handler logged any body: one click, an array of them, or {"raw": …} for what was not JSON."""
    found = Found([], [])
    for index, click in enumerate(body if isinstance(body, list) else [body]):
        one = kept(click, index, request_id, line, user_agent=None)
        # It did not log who asked. No name is how a program would look, and these came from browsers.
        found.good.extend(msgspec.structs.replace(good, is_bot=good.is_webdriver is True) for good in one.good)
        found.bad.extend(one.bad)
    return found


def kept(click: Any, index: int, request_id: str, line: Line, *, user_agent: str | None) -> Found:
    """Hold one click against the contract, as the collector does."""
    request_id, made_id = request_id[:64], _made_id(request_id, index)
    if isinstance(click, dict) and click.get("event_id") is None:
        click = click | {"event_id": made_id}
    try:
        return Found(good=[events.normalize(click, instant_of(line.at), request_id=request_id, collector=COLLECTOR,
                                            user_agent=user_agent)])
    except events.ContractError as error:
        payload = json.dumps(click, ensure_ascii=False, default=str).encode(errors="replace")[: events.KEPT_PAYLOAD_BYTES]
        return Found(bad=[events.Rejected(received_at=line.at, request_id=request_id, reason=str(error), index=index,
                                          event_id=made_id, collector=COLLECTOR, payload=payload.decode(errors="ignore"))])


def _rejected(said: dict, line: Line) -> events.Rejected:
    try:
        row = msgspec.convert(said.get("rejected"), events.Rejected)
    except msgspec.ValidationError:
        raise Unreadable("a refused row's line without the row") from None
    return msgspec.structs.replace(row, received_at=line.at, collector=COLLECTOR, payload=_text(row.payload) or "",
                                   event_id=row.event_id or _made_id(row.request_id, row.index or 0))


def _made_id(request_id: str, index: int) -> str:
    """An id for a click that came without one: the same each time the same line is read."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"clickstream-ingest:{request_id}:{index}"))


def instant(text: str | None) -> datetime | None:
    """The instant a person writes for `--since`: ISO 8601, UTC where it names no zone."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Trouble(f"{text} is no date.", "it is not ISO 8601", "write  --since 2026-11-01  or  2026-11-01T09:00+09:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def instant_of(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)


# --- Sending ---------------------------------------------------------------------------------------------------------------

@dataclass
class Report:
    """What a replay did with the lines it read.

    Attributes
    ----------
    lines, other : int
        Lines read; those of them that are not about clicks.
    sent, known, refused : int
        Clicks the broker acknowledged now; clicks and refused rows that were sent before and are left alone; rows that went
        to the rejected topic.
    unreadable : Counter
        Reason → lines that announce a click and can not be read.
    examples : list of str
        Some of what was refused or unreadable: reason, time and place.
    hours : set of int
        The table partitions that were sent to: hours since 1970.
    """

    lines: int = 0
    other: int = 0
    sent: int = 0
    known: int = 0
    refused: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    hours: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        hours = f", received in {len(self.hours)} {'hour' if len(self.hours) == 1 else 'different hours'}" if self.sent else ""
        return "\n".join([
            f"{self.lines:,} lines read: {self.sent:,} clicks sent and acknowledged{hours} · {self.known:,} sent before · "
            f"{self.refused:,} refused · {self.unreadable.total():,} unreadable · {self.other:,} not about clicks",
            *(f"  {count:,} unreadable: {reason}" for reason, count in self.unreadable.most_common()),
            *(f"  for example {example}" for example in self.examples),
        ])

    def example(self, what: str, line: Line) -> None:
        if len(self.examples) < EXAMPLES:
            said = line.text[max(0, line.text.find(_ANNOUNCED)) :].strip()  # without Lambda's prefix, which says nothing here
            self.examples.append(f"{what}: {line.name or f'{instant_of(line.at):%Y-%m-%d %H:%M:%S} UTC'}: {said[:80]}")


class Replay:
    """Sends what lines hold to the topic and enters it into the ledger, each click once for all calls of one `run`.

    Each hour of the past is a partition of the table, and the sink holds every partition open that one commit writes to: weeks
    at once exhaust it. So before a day begins, what was sent of the days before has to have landed.

    Parameters
    ----------
    judge : callable
        What a line holds: `Found`, or None when it is about something else; raises `Unreadable`.
    """

    def __init__(self, run: str, judge: Callable[[Line], Found | None] = judge):
        from kafka import KafkaProducer

        self.run, self.report, self._judge = run, Report(), judge
        # Names this call: a click posted by two calls is posted twice, and both lines carry the log's time.
        self._source = f"{COLLECTOR} of {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
        earlier = ledger.open_run(run)
        self._known = earlier.acknowledged | earlier.refused | earlier.removed
        # A call that stopped because a day had not landed is followed by one that waits for the same day.
        self._day = next((line.at // DAY_MS for line in reversed(earlier.lines) if line.state == "posted"), None)
        self._good: list[events.Click] = []
        self._bad: list[events.Rejected] = []
        # Unlike the collector's: nobody waits for one click here, so a few may travel together.
        self._producer = KafkaProducer(bootstrap_servers=servers.address("kafka"), acks="all", enable_idempotence=True,
                                       linger_ms=5, delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                                       request_timeout_ms=DELIVERY_TIMEOUT_MS // 2, max_block_ms=DELIVERY_TIMEOUT_MS // 2)

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=5)

    def take(self, lines: Iterable[Line]) -> None:
        """Send what these lines hold; returns when the broker has acknowledged all of it.

        Raises
        ------
        Trouble
            The broker did not acknowledge something in time, or a day's clicks did not land. Running it again sends what is
            missing.
        """
        for line in lines:
            self.report.lines += 1
            try:
                found = self._judge(line)
            except Unreadable as error:
                self.report.unreadable[str(error)] += 1
                self.report.example(f"unreadable, {error}", line)
                continue
            if found is None:
                self.report.other += 1
                continue
            for click in self._new(found.good):
                self._begin(click.received_at // DAY_MS)
                self._good.append(click)
            for row in self._new(found.bad):
                self._bad.append(row)
                self.report.example(f"refused, {row.reason}", line)
            if len(self._good) + len(self._bad) >= BATCH:
                self._send()
        self._send()

    def _new(self, rows: list) -> Iterator[Any]:
        """Those that no call of this run has sent yet."""
        for row in rows:
            if row.event_id in self._known:
                self.report.known += 1
            else:
                self._known.add(row.event_id)
                yield row

    def _begin(self, day: int) -> None:
        if day != self._day:
            self._send()
            wait_until_landed(self.run, self.report)
            self._day = day

    def _send(self) -> None:
        from kafka.errors import KafkaError

        good, bad = self._good, self._bad
        if not good and not bad:
            return
        # A click was posted when its line was written. The ledger has to know it before the topic can hold it.
        self._enter("posted", [(click.event_id, click.received_at, events.fingerprint(click)) for click in good])
        try:
            futures = [self._producer.send(topics.CLICKS, events.encode(click), key=events.key(click),
                                           headers=events.headers(click), timestamp_ms=click.received_at) for click in good]
            futures += [self._producer.send(topics.REJECTED, msgspec.json.encode(row), timestamp_ms=row.received_at)
                        for row in bad]
            for future in futures:
                future.get(timeout=DELIVERY_TIMEOUT_MS / 1000)
        except KafkaError as error:
            raise Trouble("The broker did not acknowledge all clicks.", f"{type(error).__name__}: {error}",
                          "make status, then the same command again: it sends what is missing") from error
        self._enter("acknowledged", [(click.event_id, None, None) for click in good])
        self._enter("refused", [(row.event_id, None, None) for row in bad])
        self.report.sent += len(good)
        self.report.refused += len(bad)
        self.report.hours |= {click.received_at // 3_600_000 for click in good}
        self._good, self._bad = [], []

    def _enter(self, state: str, rows: list[tuple[str, int | None, str | None]]) -> None:
        if rows:
            now = int(datetime.now(UTC).timestamp() * 1000)
            events.append(ledger.file(self.run), [LedgerLine(event_id, self._source, state, at or now, fingerprint)
                                                  for event_id, at, fingerprint in rows])


# --- CloudWatch --------------------------------------------------------------------------------------------------------------

class Checkpoint(msgspec.Struct):
    """The span of a log group that has been read to its end, ms since 1970 UTC."""

    from_ms: int
    to_ms: int


def from_log_group(name: str, *, since: datetime | None = None, endpoint: str | None = None, region: str = aws.REGION,
                   run: str | None = None, page: int = 10_000) -> Report:
    """Bring the clicks of a CloudWatch log group into the topic, day by day, from where the last call stopped.

    Parameters
    ----------
    name : str
        "/aws/lambda/clickstream-ingest"
    since : datetime
        Aware; leave out what was written before. Default: the checkpoint, else everything the group holds.
    endpoint : str
        Address of a stand-in for AWS.
    region : str
        Where the log group is.
    run : str
        The ledger's run, and the name of the checkpoint. Default: one for each region and group, because what it has sent
        is not sent again. Two accounts with a group of the same name need one each.
    page : int
        Lines to ask for at once.

    Raises
    ------
    Trouble
        There is no such group, AWS refuses, the broker does not acknowledge, or a day's clicks did not land. Run it again:
        what is in the topic is not sent again.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    logs = aws.client("logs", endpoint=endpoint, region=region)
    run = run or "replay-" + re.sub(r"[^A-Za-z0-9.]+", "-", f"{region}{name}").strip("-")
    file = servers.state_folder() / "replay" / f"{run}.json"
    if not servers.usable("kafka"):
        servers.need("kafka")
    topics.ensure()
    try:
        start_ms, from_ms = _start(name, since, logs, file)
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        with Replay(run) as replay:
            while start_ms <= now_ms:
                end_ms = min(start_ms - start_ms % DAY_MS + DAY_MS, now_ms + 1)
                before = replay.report.sent
                replay.take(lines_of(logs, name, start_ms, end_ms, page))
                if replay.report.sent > before:
                    print(f"{instant_of(start_ms):%Y-%m-%d}: {replay.report.sent - before:,} clicks sent", flush=True)
                start_ms = end_ms
                _note(file, Checkpoint(from_ms, min(end_ms, now_ms - LATE_MS)))
    except (ClientError, BotoCoreError) as error:
        raise Trouble(f"AWS does not give the log group {name}.", str(error),
                      "look at the name, the region and your credentials:  aws logs describe-log-groups") from error
    return replay.report


def lines_of(logs: Any, name: str, start_ms: int, end_ms: int, page: int) -> Iterator[Line]:
    """The lines of a log group written from `start_ms` to before `end_ms`, page by page."""
    for answer in logs.get_paginator("filter_log_events").paginate(
            logGroupName=name, startTime=start_ms, endTime=end_ms - 1, PaginationConfig={"PageSize": page}):
        for event in answer["events"]:
            yield Line(event["timestamp"], f"{event['logStreamName']}/{event['eventId']}", event["message"])


def _start(name: str, since: datetime | None, logs: Any, file: Path) -> tuple[int, int]:
    """(Where to read on, where the span that is then read to its end begins), ms since 1970 UTC."""
    groups = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    created_ms = next((group["creationTime"] for group in groups if group["logGroupName"] == name), None)
    if created_ms is None:
        raise Trouble(f"There is no log group {name}.", f"there are {', '.join(g['logGroupName'] for g in groups) or 'none like it'}",
                      "look at the name and the region (--region)")
    wanted_ms = int(since.timestamp() * 1000) if since else None
    if file.exists():
        done = msgspec.json.decode(file.read_bytes(), type=Checkpoint)
        if wanted_ms is None or done.from_ms <= wanted_ms <= done.to_ms:
            return done.to_ms, done.from_ms
    begin_ms = created_ms - OLDEST_BEFORE_GROUP_MS if wanted_ms is None else wanted_ms
    return begin_ms, begin_ms


def _note(file: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in one step: a kill leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(checkpoint))
    written.replace(file)


def wait_until_landed(run: str, report: Report) -> None:
    """Wait until what was sent has landed, so that the sink need not hold open every hour of the past at once.

    Raises
    ------
    Trouble
        The sink does not run, or does not land it in two commit intervals and a minute.
    """
    posted = ledger.open_run(run)
    if not posted.acknowledged:
        return
    from clicklab import connect, landed  # here: they take seconds to load, and most calls do not wait

    if not servers.usable("connect") or not connect.tasks():
        raise Trouble("The next day's clicks have to wait until those of the days before have landed.",
                      f"{report}\n      the sink does not run, and it could not hold open every hour of the past at once",
                      "run notebook 04, or  make run , which registers the sink; then the same command again")
    missing = posted.acknowledged - {s.event_id for s in ledger.wait_until_seen("the table", posted, landed.sightings,
                                                                                ledger.default_timeout_s())}
    if missing:
        raise Trouble(f"{len(missing):,} clicks of the replay have not landed.", connect.why_not_landed(),
                      "make status, then the same command again")
