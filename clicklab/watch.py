"""Show the pipeline live in a terminal, once a second. `python -m clicklab watch` calls it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from clickstream_ingest import events
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clicklab import connect, landed, ledger, servers, topics

GUARD_LINES = 4


@dataclass
class Ledgers:
    """Knows the acknowledged clicks, each once in whichever files it stands, reading only what was added since the last look."""

    acknowledged: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    read_to: dict[Path, int] = field(default_factory=dict)

    def look(self) -> int:
        for path in ledger.folder().glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self.read_to.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            self.read_to[path] = self.read_to.get(path, 0) + len(whole) + len(end)
            for line in events.read_lines(whole):
                if line.state in ("acknowledged", "removed"):
                    getattr(self, line.state).add(line.event_id)
        return len(self.acknowledged - self.removed)


def watch(seconds: float | None = None, every_s: float = 1.0) -> None:
    """Show clicks at each hop, the newest snapshot's age, dead letters, servers, tasks, and what the guard did.

    Parameters
    ----------
    seconds : float
        Stop after so long. Default: at Ctrl-C.
    """
    seen, before, started = Ledgers(), {}, time.monotonic()
    with ThreadPoolExecutor(len(servers.SERVERS) + 4) as pool, Live(console=Console(), auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            # Side by side: one server that does not answer must not hold up what the others tell.
            reasons = {name: pool.submit(servers.reason_not_usable, name) for name in servers.SERVERS}
            asked = {"tasks": pool.submit(connect.tasks), "topic": pool.submit(_end, topics.CLICKS),
                     "dead": pool.submit(_end, topics.DEAD_LETTERS), "table": pool.submit(_newest)}
            told = {what: _answer(question) for what, question in asked.items()}
            acknowledged = seen.look()
            rows, committed_ms = told["table"] or (None, None)
            hops = {"acknowledged": acknowledged, "in the topic": told["topic"], "landed": rows,
                    "dead letters": told["dead"]}
            states = {name: _answer(question) for name, question in reasons.items()}
            live.update(Group(_hops(hops, before, committed_ms), _servers(states, told["tasks"]), _guard()), refresh=True)
            before = hops
            if seconds is not None and time.monotonic() - started > seconds:
                return
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))


def _answer(question):
    """What a question was answered, None when it could not be: its server is then shown as not usable."""
    try:
        return question.result()
    except Exception:
        return None


def _end(topic: str) -> int:
    return sum(topics.end_offsets(topic).values())


def _newest() -> tuple[int, int]:
    """Rows of the newest snapshot, and when it was committed (ms since 1970 UTC); from its metadata, no file is opened."""
    found = landed.table()
    if found is None:
        return 0, 0
    return int(found.current_snapshot().summary["total-records"]), found.current_snapshot().timestamp_ms


def _hops(hops: dict[str, int | None], before: dict[str, int | None], committed_ms: int | None) -> Table:
    age = f"newest snapshot {time.time() - committed_ms / 1000:,.0f} s old" if committed_ms else "no snapshot yet, or not known"
    table = Table(title=f"{time.strftime('%H:%M:%S')} · {age}", title_justify="left")
    for hop in hops:
        table.add_column(hop, justify="right", min_width=14)
    table.add_row(*("not known" if count is None else f"{count:,}" for count in hops.values()))
    table.add_row(*("" if count is None or before.get(hop) is None else f"+{count - before[hop]:,}"
                    for hop, count in hops.items()))
    return table


def _servers(reasons: dict[str, str | None], tasks: list[tuple[str, str, str]] | None) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, reason in reasons.items():
        table.add_row(name, "usable" if reason == "" else "not usable", (reason or "")[:90])
    for what, state, cause in tasks if tasks is not None else [("tasks", "not known", "Connect does not answer")]:
        table.add_row(f"sink, {what}", state, cause[:90])
    return table


def _guard() -> Text:
    log = servers.log_file("guard")
    lines = log.read_text(errors="replace").splitlines()[-GUARD_LINES:] if log.exists() else ["the guard wrote nothing"]
    return Text("\n".join(line[:120] for line in lines))
