"""Post clicks to the collector as `curl` would and enter them into the ledger; run a handler as AWS does. For 02, 03, 05."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from clickstream_ingest import events

from clicklab import Trouble, ledger, servers

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


@dataclass
class SlowDoor:
    """Where it listens, and how often each HTTP method came through it."""

    port: int
    seen: Counter[str] = field(default_factory=Counter)


@contextlib.contextmanager
def slow_door(delay_s: float) -> Iterator[SlowDoor]:
    """Open a second door to the collector that answers each request, OPTIONS too, `delay_s` seconds late.

    A collector far away, or a Lambda that has to be started first. What arrives is handed on although the sender has gone.
    """
    target = f"{servers.url('ingest')}/ingest"

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            door.seen[self.command] += 1
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

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        door = SlowDoor(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield door
        server.shutdown()


# --- The handler as AWS runs it --------------------------------------------------------------------------------------------

INIT_TIMEOUT_S = 60  # AWS gives a function 10 s before its first request; a busy machine is no failure
# Where awslambdaric is not to be had (it is made for Linux): the same conversation with the same stand-in.
_OWN_CLIENT = """
import http.client, importlib, json, os, sys
module, name = sys.argv[1].rsplit(".", 1)
handler = getattr(importlib.import_module(module), name)
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    given = api.getresponse()
    number, event = given.headers["Lambda-Runtime-Aws-Request-Id"], json.loads(given.read())
    api.request("POST", f"/2018-06-01/runtime/invocation/{number}/response", json.dumps(handler(event, None)))
    api.getresponse().read()
"""


@functools.cache  # so it is said once
def _runtime_client() -> tuple[str, str]:
    if importlib.util.find_spec("awslambdaric"):
        return "-m", "awslambdaric"
    print("AWS's runtime client is made for Linux only, so ten lines of ours ask for the events here.")
    return "-c", _OWN_CLIENT


class Function:
    """A handler in a process of its own under AWS's runtime client, as a Lambda runs it. Made by `function`.

    Attributes
    ----------
    init_s : float
        Seconds from the start of the process until it asked for its first event: what AWS calls Init Duration.
    """

    def __init__(self, handler: str, folder: Path | None, settings: dict[str, str], is_frozen_between: bool):
        self._is_frozen_between = is_frozen_between
        self._events: queue.Queue[dict] = queue.Queue()
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), self._runtime_api())
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        paths = [str(folder)] if folder else []
        started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *_runtime_client(), handler], stdout=self._log, stderr=subprocess.STDOUT,
            process_group=0,  # when the notebook dies, the system ends what is stopped in a group that lost its parent
            env={**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                 "AWS_LAMBDA_FUNCTION_NAME": "clickstream-ingest", "AWS_REGION": "ap-northeast-2",
                 "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]), **settings})
        try:
            servers.wait_for(f"{handler} to start", self._not_started, INIT_TIMEOUT_S, quiet=True, every_s=0.005)
        except BaseException:
            self.end()
            raise
        self.init_s = time.monotonic() - started

    def _not_started(self) -> str:
        if not self._answers.empty():  # init/error
            raise Trouble("The function does not start.", self._answers.get()[1]["errorMessage"], "correct the handler or its folder")
        if self._process.poll() is not None:
            raise Trouble("The function ended before its first event.", "\n      ".join(self.log()[-4:]), "correct the handler")
        return "" if self._asked.is_set() else "it does not ask for events yet"

    def _runtime_api(self) -> type[BaseHTTPRequestHandler]:
        function = self

        class RuntimeApi(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one flush: in two, each answer waits 40 ms for the kernel
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the process was killed
                    super().handle()

            def do_GET(self) -> None:  # …/invocation/next
                with function._lock:
                    function._asked.set()
                    if function._is_frozen_between and function._events.empty():
                        function.freeze()
                event = function._events.get()
                self.answer(200, json.dumps(event).encode(), {
                    "Lambda-Runtime-Aws-Request-Id": (event.get("requestContext") or {}).get("requestId") or "1",
                    "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 30_000)})

            def do_POST(self) -> None:  # …/ID/response, …/ID/error, init/error
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(202, b"", {})
                function._answers.put((self.path.rsplit("/", 1)[1], told))

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                """Say nothing: the function's own log is read."""

        return RuntimeApi

    def invoke(self, event: dict, timeout_s: float = 30) -> dict:
        """Hand one event over and return the answer; the process is thawed for it.

        Raises
        ------
        Trouble
            The handler raised, the process is gone, or there was no answer in time.
        """
        with self._lock:
            self._events.put(event)
            self.thaw()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(queue.Empty):
                kind, told = self._answers.get(timeout=0.1)
                if kind == "response":
                    return told
                raise Trouble("The handler raised an exception.", f"{told.get('errorType')}: {told.get('errorMessage')}",
                              "read the function's log()")
        raise Trouble("The function does not answer.", f"it {'ended' if self._process.poll() is not None else 'still works'} "
                      f"after {timeout_s:.0f} s", "read the function's log()")

    def freeze(self) -> None:
        """Stop the process where it is, threads too, as AWS does after each answer."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> list[str]:
        """The lines it has printed, which on AWS are in CloudWatch."""
        file = self._log.fileno()
        # pread: the process writes at the file's position, so reading must not move it.
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace").splitlines()

    def end(self) -> None:
        """Kill it without a word, as AWS does with a copy it has no more use for."""
        self._process.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()


@contextlib.contextmanager
def function(handler: str = "lambda_function.lambda_handler", *, folder: Path | None = None, is_frozen_between: bool = True,
             **settings: str) -> Iterator[Function]:
    """Run a handler as AWS does: a process of its own under awslambdaric, frozen between requests, killed at the end.

    Only the other side is played: a stand-in for the Lambda Runtime API, which gives out events and takes answers.

    Parameters
    ----------
    handler : str
        `module.function`, as in the Lambda's settings.
    folder : path
        Where the module is, when it is not in lambda_src.
    is_frozen_between : bool
        Whether the process is stopped from one answer to the next event. AWS always does.
    settings : str
        Environment variables of the function.

    Raises
    ------
    Trouble
        The handler cannot be imported, or does not ask for events in a minute.
    """
    made = Function(handler, folder, settings, is_frozen_between)
    try:
        yield made
    finally:
        made.end()
