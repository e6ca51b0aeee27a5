"""Bring the page views of a web server's own access log into the topic: `python -m clicklab replay FILE`.

For those who have a log and no snippet yet. A log knows which page was fetched, not what was clicked: it gives `page_view` events
without the id of a page view, and of the reader nothing but the browser's name. Readers' addresses are left out.
"""

from __future__ import annotations

import gzip
import itertools
import re
import sys
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from clicklab import Trouble, replay, servers, topics
from clicklab.replay import Found, Line, Report, Unreadable

RUN = "replay-access-log"
LONGEST_LINE_BYTES = 64 << 10
# So many lines, none of them understood, are not a damaged log but another format.
LINES_TO_JUDGE = 1_000
# A line is written when its answer has ended, so those of neighboring seconds are mixed.
SECONDS_REMEMBERED = 600
# Apache's and nginx's combined format, and the common one, which ends before the two names.
# https://httpd.apache.org/docs/2.4/logs.html#combined
COMBINED = re.compile(r'''\S+ \S+ .*?\[(?P<at>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?:\d+|-)'''
                      r'''(?: "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?''')
TIME = "%d/%b/%Y:%H:%M:%S %z"


def judge(line: Line) -> Found | None:
    """The page view that a line of an access log tells of; None when it tells of something else: a picture, a form, an error.

    Raises
    ------
    Unreadable
        The line is not in the combined or the common format.
    """
    said, at = _read(line.text)
    method, _, target = said["request"].partition(" ")
    page = urlsplit(target.removesuffix(" HTTP/" + target.rpartition(" HTTP/")[2]))
    if method != "GET" or said["status"] not in ("200", "304") or PurePosixPath(page.path).suffix not in ("", ".html", ".htm"):
        return None
    view = {"event_name": "page_view", "path": page.path, "tag": "", "timestamp": at, "event_id": line.place}
    if referrer := _told(said["referrer"]):
        # As the snippet keeps it: where a reader came from, never what was searched for.
        view["referrer"] = urlsplit(referrer)._replace(query="", fragment="").geturl()
    return replay.kept(view, 0, line.place, line, user_agent=_told(said["agent"]))


@lru_cache(maxsize=1)  # the line is read for its time, and a moment later judged
def _read(text: str) -> tuple[re.Match[str], int]:
    """A line's parts, and its time, ms since 1970 UTC."""
    if len(text) >= LONGEST_LINE_BYTES:
        raise Unreadable(f"longer than {LONGEST_LINE_BYTES:,} characters")
    if not (said := COMBINED.match(text)):
        raise Unreadable("neither the combined nor the common log format")
    try:
        return said, int(datetime.strptime(said["at"], TIME).timestamp() * 1000)
    except ValueError:
        raise Unreadable("no time such as 21/May/2025:12:00:00 +0900") from None


def _told(value: str | None) -> str | None:
    return None if value in (None, "", "-") else re.sub(r"\\(.)", r"\1", value)


def lines_of(file: BinaryIO) -> Iterator[Line]:
    """The lines of a log, one that is not understood with the time of the line before.

    `place` becomes the event's id. It is made from the line without the reader's address, so the same line gives the same id in
    whichever file it stands. Equal lines of one second are several views, told apart by their order.
    """
    at, recent = 0, {}
    for number in itertools.count(1):
        raw = file.readline(LONGEST_LINE_BYTES)
        if not raw:
            return
        rest = raw
        while rest and not rest.endswith(b"\n"):  # an endless line is skipped, piece by piece
            rest = file.readline(LONGEST_LINE_BYTES)
        text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        try:
            said, told = _read(text)
        except Unreadable:
            yield Line(at, "", text, f"line {number:,}")
            continue
        at, known = told, text[said.start("at"):]
        seen = recent.setdefault(at, Counter())
        seen[known] += 1
        if len(recent) > SECONDS_REMEMBERED:
            del recent[next(iter(recent))]
        yield Line(at, str(uuid.uuid5(uuid.NAMESPACE_URL, f"access-log:{seen[known]}:{known}")), text, f"line {number:,}")


def from_file(path: Path, *, run: str = RUN) -> Report:
    """Bring the page views of an access log into the topic, day by day, and enter them into the ledger.

    Parameters
    ----------
    path : Path
        A log in the combined or the common format, plain or `.gz`.
    run : str
        The ledger's run: what it has sent is not sent again, so the same file, or the next one that overlaps it, adds only what is
        new.

    Raises
    ------
    Trouble
        The file cannot be read, or is in another format; the broker does not acknowledge; a day's page views did not land. Run it
        again: what is in the topic is not sent again.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        size = path.stat().st_size
        plain = path.open("rb")
    except OSError as error:
        raise Trouble(f"{path} cannot be read.", error.strerror or str(error), "look at the path and who may read it") from None
    if not servers.usable("kafka"):
        servers.need("kafka")
    topics.ensure()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with plain, Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress, replay.Replay(run, judge) as sending:
        bar = progress.add_task(path.name, total=size)
        lines = _watched(gzip.open(plain) if path.suffix == ".gz" else plain, path, sending.report,
                         lambda: progress.update(bar, completed=plain.tell()))
        first = list(itertools.islice(lines, LINES_TO_JUDGE))
        if first and not any(line.place for line in first):
            raise Trouble(f"{path} is no access log that can be read.", _why_none(first),
                          "give the log in the combined format, which Apache and nginx write by default")
        for day, of_day in itertools.groupby(itertools.chain(first, lines), lambda line: line.at // replay.DAY_MS):
            before = sending.report.sent
            sending.take(of_day)
            if sending.report.sent > before:
                print(f"{replay.instant_of(day * replay.DAY_MS):%Y-%m-%d}: {sending.report.sent - before:,} page views sent", flush=True)
    return sending.report


def _watched(file: BinaryIO, path: Path, report: Report, tick: Callable[[], None]) -> Iterator[Line]:
    """The file's lines, with progress; what stops the reading, and nothing that stops the sending, is the file's fault."""
    try:
        for number, line in enumerate(lines_of(file)):
            if number % 1_000 == 0:
                tick()
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise Trouble(f"{path} ends in the middle.", f"{report}\n      {type(error).__name__}: {error}",
                      "get the file whole, then the same command again: it adds what is missing") from error


def _why_none(lines: list[Line]) -> str:
    try:
        judge(lines[0])
    except Unreadable as error:
        return f"line 1: {error}: {lines[0].text[:80]!r}; nor is any of the first {len(lines):,} lines"
    return ""
