"""Many generated requests against the handler in process: it always answers, loses no good click, and does not grow."""

import base64
import gc
import json
import os
import random
import signal
import string
import sys
import uuid
from contextlib import redirect_stdout
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_src"))

from clickstream_ingest import events
from lambda_function import lambda_handler

from clicklab import traffic

# A request takes about a tenth of a millisecond: one that holds the rest up for this long hangs.
HANGS_AFTER_S = 20
GROWTH_MB = 16
STRANGE = ["", "\0", "\ud83d", "글", "🙂", "a" * 2001, "1e999", "NaN", "null", "<script>", "'; drop table", "\u202e", "%00", "../..",
           0, -0.0, 1.5, -1, 2**31, 2**63, 10**400, 1e308, True, False, None, [], {}, [[]], {"a": {"b": []}}]  # fmt: skip


class Kept:
    """Stands for the standard output: the log sink's lines, counted as they come, so that none is kept in memory."""

    def __init__(self):
        self.clicks, self.rejected, self.other = [], [], []

    def write(self, text):
        line = json.loads(text)
        kept = {"click": self.clicks, "rejected": self.rejected}.get(line["message"], self.other)
        kept.append(line)

    def flush(self):
        """Nothing is held back."""

    def clear(self):
        for each in (self.clicks, self.rejected, self.other):
            each.clear()


class Inputs:
    """Seeded requests: whole clicks, clicks with one thing wrong, JSON of any kind, and bytes that are none."""

    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.readers = traffic.readers(500, seed)

    def request(self) -> dict:
        return self.dice.choices(
            [self.clicks, self.any_json, self.half_a_body, self.any_bytes, self.odd_event], weights=[60, 15, 10, 10, 5]
        )[0]()

    def event(self, body: bytes, changes: dict | None = None) -> dict:
        try:
            given = {"body": body.decode(), "isBase64Encoded": False}
        except UnicodeDecodeError:
            given = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        if self.dice.random() < 0.2:
            given = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        headers = {
            "user-agent": self.dice.choice(["Mozilla/5.0", "curl/8", "", "글" * 3000]),
            "origin": "http://localhost:4000",
        }
        context = {"requestId": f"{self.dice.getrandbits(64):016x}", "http": {"method": "POST"}}
        return {"headers": headers, "requestContext": context, **given, **(changes or {})}

    def click(self) -> dict:
        made = self.dice.choice(self.readers) | {"event_id": str(uuid.UUID(int=self.dice.getrandbits(128), version=4))}
        for _ in range(self.dice.choices([0, 1, 3], weights=[6, 3, 1])[0]):
            made[self.dice.choice([*events.FIELDS, "color", "__proto__"])] = self.value()
        if self.dice.random() < 0.1:
            made.pop(self.dice.choice(list(made)))
        return made

    def value(self, depth: int = 0):
        kind = self.dice.random()
        if depth < 4 and kind < 0.1:
            return [self.value(depth + 1) for _ in range(self.dice.randrange(4))]
        if depth < 4 and kind < 0.2:
            return {self.word(): self.value(depth + 1) for _ in range(self.dice.randrange(4))}
        return (
            self.dice.choice(STRANGE)
            if kind < 0.7
            else self.word()
            if kind < 0.85
            else self.dice.randrange(-(2**40), 2**40)
        )

    def word(self) -> str:
        return "".join(self.dice.choices(string.printable + "글릭🙂", k=self.dice.randrange(12)))

    def clicks(self) -> dict:
        made = (
            self.click()
            if self.dice.random() < 0.5
            else [self.click() for _ in range(self.dice.choice([0, 1, 2, 5, 20, 21]))]
        )
        return self.event(json.dumps(made).encode())

    def any_json(self) -> dict:
        return self.event(json.dumps(self.value()).encode())

    def half_a_body(self) -> dict:
        whole = json.dumps([self.click()]).encode()
        return self.event(whole[: self.dice.randrange(len(whole))])

    def any_bytes(self) -> dict:
        deep = self.dice.choice([b"[", b'{"a":']) * self.dice.choice([40, 60, 5000])
        return self.event(
            self.dice.choice([self.dice.randbytes(self.dice.randrange(300)), deep, b"9" * 5000, b" " * 70_000])
        )

    def odd_event(self) -> dict:
        changes = self.dice.choice([
            {"headers": None}, {"requestContext": None}, {"body": None}, {"body": 5}, {"isBase64Encoded": True, "body": "%%"},
            {"requestContext": {"http": {"method": self.dice.choice(["GET", "PUT", "OPTIONS", "post", ""])}}},
        ])  # fmt: skip
        return self.event(json.dumps(self.click()).encode(), changes)


def answered_and_kept(event, kept):
    """Call the handler and hold its answer against what the log keeps."""
    kept.clear()
    answer = lambda_handler(event, None)
    status, body = answer["statusCode"], json.loads(answer.get("body") or "{}")
    assert status in (200, 204, 400, 405, 413), (answer, event)
    accepted = body.get("accepted", int(status == 200))
    assert len(kept.clicks) == accepted, (answer, event)
    for line in kept.clicks:
        # What is kept keeps the contract: the sink would make zeros of what does not.
        events.msgspec.convert(line["click"], events.Click)
    told = [row["reason"] for row in body.get("rejected", [])]
    if event.get("body") and isinstance(event["body"], str):
        assert [line["rejected"]["reason"] for line in kept.rejected] == told, (answer, event)
    assert not [line for line in kept.other if line["level"] == "ERROR"]
    return status


def hangs(number, frame):
    raise AssertionError(f"a request takes longer than {HANGS_AFTER_S} s")


def run(requests: int, seed: int, monkeypatch) -> tuple[dict[int, int], float]:
    monkeypatch.setenv("CLICK_SINK", "log")
    kept, inputs, statuses = Kept(), Inputs(seed), {}
    usual = signal.signal(signal.SIGALRM, hangs)
    process, settled_mb = psutil.Process(os.getpid()), 0.0
    try:
        for number in range(requests):
            if number % 500 == 0:
                signal.alarm(HANGS_AFTER_S)
            if number == requests // 4:  # by then each kind of input has been seen, and what is cached is there
                gc.collect()
                settled_mb = process.memory_info().rss / 1e6
            event = inputs.request()
            with redirect_stdout(kept):
                status = answered_and_kept(event, kept)
            statuses[status] = statuses.get(status, 0) + 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)
    gc.collect()
    grown_mb = process.memory_info().rss / 1e6 - settled_mb
    assert grown_mb < GROWTH_MB, f"{grown_mb:.0f} MB more after {requests:,} requests"
    return statuses, grown_mb


def test_thousands_of_generated_requests_are_answered_and_lose_nothing(monkeypatch):
    statuses, _ = run(10_000, seed=5, monkeypatch=monkeypatch)
    assert statuses.keys() == {200, 204, 400, 405, 413}


@pytest.mark.drills
def test_a_hundred_thousand_generated_requests_are_answered_and_lose_nothing(monkeypatch, capsys):
    statuses, grown_mb = run(100_000, seed=6, monkeypatch=monkeypatch)
    with capsys.disabled():
        print(f"\n100,000 requests: {dict(sorted(statuses.items()))}, {grown_mb:+.1f} MB over the last 75,000")
