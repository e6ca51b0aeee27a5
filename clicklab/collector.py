"""Post clicks to the collector as `curl` would, and enter them into the ledger. Notebooks 02, 03 and 05 call it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from clickstream_ingest import events

from clicklab import ledger, servers

RETRY_PAUSE_S = 0.5  # doubled at each try, up to
LONGEST_PAUSE_S = 5
_session = threading.local()


@dataclass
class Outcome:
    """What became of the clicks of one call of `post`.

    Attributes
    ----------
    acknowledged, unknown : int
        Clicks the broker has; clicks answered 503, or not at all, at every try.
    refused : dict
        event_id → the collector's reason.
    retried : int
        Requests that were sent again.
    seconds : float
    """

    acknowledged: int = 0
    unknown: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    retried: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.acknowledged:,} acknowledged in {self.seconds:.1f} s"
        for count, what in ((len(self.refused), "refused"), (self.unknown, "of unknown fate"), (self.retried, "requests sent again")):
            text += f" · {count:,} {what}" if count else ""
        return text


def post(clicks: Iterable[dict], run: str, *, batch: int = 20, connections: int = 4, tries: int = 5,
         timeout_s: float = 15, user_agent: str | None = None, per_s: float | None = None) -> Outcome:
    """Post clicks over HTTP, each entered into the ledger before it is sent and again when it is answered.

    Parameters
    ----------
    clicks : iterable of dict
        With the contract's client fields; `event_id` is required here, because the ledger needs it before the answer.
    run : str
        The ledger's run to enter them into.
    batch : int
        Clicks a request, 1 to 20.
    connections : int
        Requests under way at once.
    tries : int
        How often a request that is answered 503, or not at all, is sent in all: with the same ids, as the browser does.
    timeout_s : float
        Seconds to wait for one answer.
    user_agent : str
        What the requests call themselves. Default: as `requests` does, which the collector marks as a bot.
    per_s : float
        Clicks to send a second, at a steady pace. Default: as fast as they are answered.

    Returns
    -------
    Outcome
    """
    clicks = list(clicks)
    outcome, lock = Outcome(), threading.Lock()
    # The first header says that these clicks are in a ledger already, so the dev server does not enter them.
    headers = {"X-Ledger-Run": run} | ({"User-Agent": user_agent} if user_agent else {})
    started = time.monotonic()

    def send(start: int) -> None:
        part = clicks[start : start + batch]
        if per_s:
            # Each batch has its moment on the clock, so a slow answer does not slow the pace.
            time.sleep(max(0.0, started + start / per_s - time.monotonic()))
        result = _send(part, run, tries, timeout_s, headers)
        with lock:
            outcome.acknowledged += result.acknowledged
            outcome.unknown += result.unknown
            outcome.refused |= result.refused
            outcome.retried += result.retried
            if sys.stdout.isatty():
                print(f"\rposted {outcome.acknowledged + outcome.unknown + len(outcome.refused):,} of {len(clicks):,}", end="")

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send, range(0, len(clicks), batch)))
    if sys.stdout.isatty():
        print("\r", end="")
    outcome.seconds = time.monotonic() - started
    return outcome


def _send(clicks: list[dict], run: str, tries: int, timeout_s: float, headers: dict[str, str]) -> Outcome:
    if not hasattr(_session, "http"):
        _session.http = requests.Session()
    ids = [click["event_id"].lower() for click in clicks]
    prints = {one: fingerprint for one, click in zip(ids, clicks, strict=True) if (fingerprint := _fingerprint(click))}
    outcome = Outcome()
    for attempt in range(tries):
        ledger.write(run, "posted", ids, source="collector.post", prints=prints)
        try:
            answer = _session.http.post(f"{servers.url('ingest')}/ingest", json=clicks, headers=headers, timeout=timeout_s)
            status = answer.status_code
        except requests.RequestException:
            status = 0
        if status in (200, 400):
            body = answer.json()
            outcome.refused = {ids[bad["index"]]: bad["reason"] for bad in body["rejected"] if bad["index"] is not None}
            if status == 400 and not body["accepted"]:
                reasons = body["rejected"]
                outcome.refused |= {one: reasons[0]["reason"] for one in ids if one not in outcome.refused}
            good = [one for one in ids if one not in outcome.refused]
            ledger.write(run, "acknowledged", good, source="collector.post")
            ledger.write(run, "refused", outcome.refused, source="collector.post")
            outcome.acknowledged = len(good)
            return outcome
        if attempt + 1 < tries:
            outcome.retried += 1
            time.sleep(min(RETRY_PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
    ledger.write(run, "unknown", ids, source="collector.post")
    outcome.unknown = len(ids)
    return outcome


def _fingerprint(click: dict) -> str | None:
    """The fingerprint of what the contract makes of a click; None for one it refuses."""
    try:
        return events.fingerprint(events.normalize(click, datetime.now(UTC)))
    except events.ContractError:
        return None


@contextlib.contextmanager
def slow_door(delay_s: float) -> Iterator[int]:
    """Open a second door to the collector that answers each request, OPTIONS too, `delay_s` seconds late; gives its port.

    A collector far away, or a Lambda that has to be started first. What arrives is handed on although the sender has gone.
    """
    target = f"{servers.url('ingest')}/ingest"

    class Door(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(delay_s)
            given = requests.request(self.command, target, data=body, headers=dict(self.headers), timeout=15)
            with contextlib.suppress(ConnectionError):  # the page that asked may be gone
                self.hand_back(given)

        def hand_back(self, given: requests.Response) -> None:
            self.send_response(given.status_code)
            for name, value in given.headers.items():
                if name.lower() not in ("connection", "date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(given.content)

        do_POST = do_OPTIONS = answer

        def log_message(self, *words: object) -> None:
            """Say nothing: the ledger counts."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
