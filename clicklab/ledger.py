"""Compare the hops and name what is missing. Every notebook that moves clicks calls `check` after the hop.

The ledger is `.state/ledger/RUN.jsonl`, one line for each thing known about an event (`clickstream_ingest.events.LedgerLine`),
written by whoever sends clicks: `collector.post`, the dev server for what browsers send, and what produces straight to Kafka.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec
import pandas as pd
from clickstream_ingest import events
from clickstream_ingest.events import LedgerLine

from clicklab import Trouble, servers
from clicklab.topics import Sighting

BROWSER = "browser"  # the run of what browsers send to the dev server
# A click's received_at may lie before the line that says it was posted, by the two clocks' grain.
EARLIER_MS = 5000


class LedgerError(Trouble):
    """Clicks are lost, come from nowhere, are changed, or one record is there twice.

    Attributes
    ----------
    hop : str
    lost, strangers, changed : set of str
        Event ids: acknowledged but not there; there but in no ledger; there with another content.
    repeated : set of (int, int)
        (Kafka partition, offset) that are there more than once.
    remaining : set of str
        Event ids removed on purpose and there all the same.
    """

    def __init__(self, hop: str, lost: set[str], strangers: set[str], changed: set[str], repeated: set[tuple[int, int]],
                 too_often: set[str], remaining: set[str] | None = None):
        self.hop, self.lost, self.strangers, self.changed, self.repeated = hop, lost, strangers, changed, repeated
        self.too_often, self.remaining = too_often, remaining or set()
        found = [(lost, "acknowledged but not there"), (strangers, "there, but no ledger knows them"),
                 (changed, "there with another content than was posted"), (too_often, "there more often than posted"),
                 (self.remaining, "removed on purpose, but there (the same forget again finishes)"),
                 ({f"partition {p} offset {o}" for p, o in repeated}, "the same record there more than once")]
        lines = [f"{len(names)} {what}: {', '.join(sorted(names)[:10])}" for names, what in found if names]
        one = next(iter(sorted(lost or strangers or changed or too_often or self.remaining)), "EVENT_ID")
        super().__init__(f"The ledger does not hold at {hop}.", "\n      ".join(lines), f"python -m clicklab where {one}")


def folder() -> Path:
    return servers.state_folder() / "ledger"


@dataclass
class Run:
    """What one run posted and what became of it, read from its file. Make one with `open_run`."""

    name: str
    lines: list[LedgerLine] = field(repr=False)

    def _ids(self, state: str) -> set[str]:
        return {line.event_id for line in self.lines if line.state == state}

    @cached_property
    def posted(self) -> Counter[str]:
        """How often each event_id was posted."""
        return Counter(line.event_id for line in self.lines if line.state == "posted")

    @cached_property
    def acknowledged(self) -> set[str]:
        """Ids that the broker has, less those removed on purpose afterward."""
        return self._ids("acknowledged") - self._ids("removed")

    @cached_property
    def refused(self) -> set[str]:
        return self._ids("refused")

    @cached_property
    def unknown(self) -> set[str]:
        """Ids answered 503, or not at all, every time: they may be there, or not."""
        return set(self.posted) - self._ids("acknowledged") - self.refused

    @cached_property
    def removed(self) -> set[str]:
        return self._ids("removed")

    @cached_property
    def fingerprints(self) -> dict[str, set[str]]:
        prints: dict[str, set[str]] = {}
        for line in self.lines:
            if line.fingerprint:
                prints.setdefault(line.event_id, set()).add(line.fingerprint)
        return prints

    @property
    def since_ms(self) -> int:
        """No record of this run was received before (ms since 1970 UTC); 0 for an empty run."""
        return max(0, min((line.at for line in self.lines), default=0) - EARLIER_MS)


def file(run: str) -> Path:
    return folder() / f"{run}.jsonl"


def new_run(notebook: str) -> str:
    """A fresh name for what a cell is about to post, so that running the cell again starts a run of its own.

    Parameters
    ----------
    notebook : str
        Two digits, "03": the runner's table adds up the runs of each notebook by them.
    """
    return f"{notebook}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def open_run(name: str) -> Run:
    """Read a run's file; an empty run when there is none."""
    return Run(name, read(file(name)))


def runs() -> list[Run]:
    """All runs of this state, in the order of their names."""
    return [open_run(path.stem) for path in sorted(folder().glob("*.jsonl"))]


def everything() -> Run:
    """All runs as one: what the whole topic and the whole table have to hold."""
    # A line that a run adopted from the dev server's is the same line: counted twice, it would excuse a doubled record.
    lines = {msgspec.structs.astuple(line): line for run in runs() for line in run.lines}
    return Run("all runs", list(lines.values()))


def read(path: Path) -> list[LedgerLine]:
    """The lines of a ledger file, none when it is absent, without those that a kill cut off (`events.read_lines`)."""
    if not path.exists():
        return []
    try:
        return events.read_lines(path.read_bytes())
    except msgspec.DecodeError as error:
        raise Trouble(f"The ledger's file {path} has a line that is not the ledger's.", str(error),
                      "take the edit back if somebody made one; else start afresh: make clean, then make up") from None


def write(run: str, state: str, ids: Iterable[str], *, source: str, prints: dict[str, str] | None = None) -> None:
    """Add a line for each id to a run's file; `prints` gives the fingerprints that belong to `posted`."""
    at = time.time_ns() // 1_000_000
    events.append(file(run), [LedgerLine(event_id=one, source=source, state=state, at=at, fingerprint=(prints or {}).get(one))
                              for one in ids])


def adopt(run: str, ids: Iterable[str]) -> None:
    """Copy what the dev server entered for these ids (run `browser`) into a run of one's own.

    Parameters
    ----------
    ids : iterable of str
        Event ids that a browser was seen to send (`blog.Visit.event_ids`); those never entered are noted as posted only.
    """
    wanted = set(ids)
    lines = [line for line in read(file(BROWSER)) if line.event_id in wanted]
    events.append(file(run), lines)
    write(run, "posted", wanted - {line.event_id for line in lines}, source="browser")


# --- Checking ----------------------------------------------------------------------------------------------------------

def problems(hop: str, run: Run, seen: list[Sighting], known: Run | None = None) -> LedgerError | None:
    """Compare what is seen at a hop with what a run acknowledged; None when the ledger holds.

    Parameters
    ----------
    seen : list of Sighting
        Repeats kept. May hold other runs' clicks as well.
    known : Run
        All runs together: an id that it does not know comes from nowhere. Default `everything()`.
    """
    known = known or everything()
    places = Counter((s.partition, s.offset) for s in seen)
    mine = [s for s in seen if s.event_id in run.posted]
    seen_ids = {s.event_id for s in mine}
    lost = run.acknowledged - seen_ids
    strangers = {s.event_id for s in seen if s.event_id} - set(known.posted)
    changed = {s.event_id for s in mine if s.fingerprint not in run.fingerprints[s.event_id]}
    repeated = {place for place, times in places.items() if times > 1}
    # More records than posts: somebody wrote them twice. One record read twice is `repeated` above.
    too_often = {one for one, times in records_of(mine).items() if times > run.posted[one]}
    if lost or strangers or changed or repeated or too_often:
        return LedgerError(hop, lost, strangers, changed, repeated, too_often)
    return None


def records_of(seen: list[Sighting]) -> Counter[str]:
    """How many records (not readings of one record) each id has."""
    return Counter(one for one, _, _ in {(s.event_id, s.partition, s.offset) for s in seen})


def check(hop: str, run: Run | str, seen_at: Callable[[int], list[Sighting]], *, timeout_s: float | None = None) -> None:
    """Wait until a hop holds every acknowledged click of a run, each once and unchanged; say so, or raise.

    Parameters
    ----------
    hop : str
        For the message: "topic", "the table".
    run : Run or str
        What was posted, how often, and what was acknowledged.
    seen_at : callable (since_ms) -> list of Sighting
        `topics.sightings` or `landed.sightings`.
    timeout_s : float
        Seconds. The default is two commit intervals and a minute.

    Raises
    ------
    LedgerError
        Clicks are lost, come from nowhere, are changed, or one record is there twice. Names `hop` and up to ten ids.
    """
    run = open_run(run) if isinstance(run, str) else run
    if not run.acknowledged:
        raise Trouble(f"The run {run.name} has no acknowledged click.", f"{file(run.name)} is empty or absent",
                      "post some clicks first: run the cells above this one")
    if timeout_s is None:
        timeout_s = default_timeout_s()
    seen = wait_until_seen(hop, run, seen_at, timeout_s)
    # Other runs go on writing, so the list of known ids is read after the hop was.
    if error := problems(hop, run, seen):
        raise error
    mine = [s for s in seen if s.event_id in run.posted]
    print(f"{len(run.acknowledged):,} acknowledged · {len({s.event_id for s in mine} & run.acknowledged):,} in {hop}, "
          f"no record twice, contents as posted" + duplicates_note(mine) + unknown_note(run, mine))


def wait_until_seen(hop: str, run: Run, seen_at: Callable[[int], list[Sighting]], timeout_s: float) -> list[Sighting]:
    """Poll a hop until it holds all acknowledged ids or the time is over; returns the last reading, with progress shown."""
    started = told = time.monotonic()
    while True:
        seen = seen_at(run.since_ms)
        missing = run.acknowledged - {s.event_id for s in seen}
        now = time.monotonic()
        if not missing or now - started > timeout_s:
            return seen
        if now - told >= 5:
            print(f"waiting for {hop}: {len(missing):,} of {len(run.acknowledged):,} missing, "
                  f"{now - started:.0f} s of at most {timeout_s:.0f} s", flush=True)
            told = now
        time.sleep(0.5)


def duplicates_note(seen: list[Sighting]) -> str:
    """Words for ids that are in the topic more than once: sent again because the first answer was not a yes."""
    often = [one for one, times in records_of(seen).items() if times > 1]
    return f" · {len(often):,} clicks sent again have two records, one id" if often else ""


def unknown_note(run: Run, seen: list[Sighting]) -> str:
    if not run.unknown:
        return ""
    there = len(run.unknown & {s.event_id for s in seen})
    return f" · {len(run.unknown):,} of unknown fate, {there:,} of them there"


def audit(timeout_s: float | None = None) -> None:
    """Compare the whole topic with the whole table, record by record; raise `LedgerError` where they differ.

    Landed rows = topic records less dead letters, tombstones and removed ids: each (Kafka partition, offset) once,
    contents as posted. Safe while clicks go on arriving: what arrives after the topic was read is left out. A dead letter
    that no ledger knows was put there by a stranger and is only counted; one of an acknowledged click is a lost click.

    Parameters
    ----------
    timeout_s : float
        Seconds to wait for the sink's next commits. The default is two commit intervals and a minute.
    """
    from clicklab import connect, landed, topics

    before = everything()
    topic = topics.sightings()
    ends = Counter()
    for s in topic:
        ends[s.partition] = max(ends[s.partition], s.offset + 1)
    dead = connect.dead_letters()
    expected = {(s.partition, s.offset): s.event_id for s in topic
                if s.event_id and s.event_id not in before.removed and (s.partition, s.offset) not in dead}
    rows: list[Sighting] = []

    def problem() -> str:
        nonlocal rows
        rows = landed.sightings()
        missing = len(expected.keys() - {(s.partition, s.offset) for s in rows})
        return f"{missing:,} of {len(expected):,} records are not in the table" if missing else ""

    with contextlib.suppress(Trouble):
        # Not there in time is for the comparison below to say, with the ids.
        servers.wait_for("the table", problem, default_timeout_s() if timeout_s is None else timeout_s, every_s=0.5)
    known = everything()
    table = [s for s in rows if s.offset < ends[s.partition]]
    ours = [s for s in topic if s.event_id in known.posted or (s.partition, s.offset) not in dead]
    for hop, seen in (("the topic", ours), ("the table", table)):
        if error := problems(hop, before, seen, known):
            raise error
    there = {(s.partition, s.offset): s.event_id for s in table}
    missing = {expected[place] for place in expected.keys() - there.keys()}
    extra = {there[place] for place in there.keys() - expected.keys()}
    if missing or extra:
        raise LedgerError("the table", missing, extra - known.removed, set(), set(), set(), extra & known.removed)
    print(f"{len(topic):,} records in the topic = {len(table):,} rows in the table"
          + (f" + {len(topic) - len(table):,} dead letters, tombstones or removed" if len(topic) > len(table) else "")
          + ", offset by offset")


def default_timeout_s() -> float:
    """How long a click may take to land: two commit intervals and a minute, in seconds."""
    return 2 * int(servers.setting("COMMIT_INTERVAL_MS")) / 1000 + 60


def table(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Clicks at each hop, a row a run: posted, acknowledged, refused, unknown, in the topic, landed."""
    from clicklab import landed, topics

    chosen = [open_run(name) for name in names] if names else runs()
    in_topic = {s.event_id for s in topics.sightings()}
    in_table = landed.event_ids() if servers.usable("datanode") else set()
    return pd.DataFrame([{
        "run": run.name, "posted": len(run.posted), "acknowledged": len(run.acknowledged), "refused": len(run.refused),
        "unknown": len(run.unknown), "in topic": len(in_topic & set(run.posted)), "landed": len(in_table & set(run.posted)),
    } for run in chosen if run.posted]).set_index("run")


def where(event_id: str) -> list[str]:
    """Say how far one click got, hop by hop, and why not farther.

    Returns
    -------
    list of str
        One line a hop, the last one the reason when it stopped on the way.
    """
    from clicklab import connect, landed, topics

    lines = [line for line in everything().lines if line.event_id == event_id]
    if not lines:
        return ["ledger     nobody posted this id: look for a typing error, or it came from outside the course"]
    said = [f"ledger     {line.state} by {line.source} at {pd.Timestamp(line.at, unit='ms', tz='UTC'):%Y-%m-%d %H:%M:%S} UTC"
            for line in lines]
    since_ms = max(0, min(line.at for line in lines) - EARLIER_MS)
    if not servers.usable("kafka"):
        return [*said, "topic      not known: the broker is down. Next: make up"]
    found = [s for s in topics.sightings(since_ms) if s.event_id == event_id]
    if not found:
        refused = [topics.decoded(r.value) for r in topics.records(topics.REJECTED, since_ms)]
        reason = next((r["reason"] for r in refused if r.get("event_id") == event_id), "")
        return [*said, f"topic      not there{': refused, ' + reason if reason else ': never acknowledged'}"]
    said += [f"topic      Kafka partition {s.partition}, offset {s.offset}" for s in found]
    dead = connect.dead_letters(since_ms)
    for s in found:
        if (s.partition, s.offset) in dead:
            return [*said, f"dead       {dead[s.partition, s.offset]}"]
    if not servers.usable("datanode"):
        return [*said, "table      not known: HDFS is down. Next: make up"]
    rows = [s for s in landed.sightings(since_ms) if s.event_id == event_id]
    if rows:
        return [*said, *(f"table      landed from partition {s.partition}, offset {s.offset}" for s in rows)]
    if any(line.state == "removed" for line in lines):
        return [*said, "table      removed on purpose"]
    return [*said, f"table      not yet: {connect.why_not_landed()}"]
