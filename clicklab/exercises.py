"""Judge the exercises of the notebooks in words: what is right, what is not yet, and where to look again.

A checker takes what the learner made, and what it needs to know from the notebook. It prints, and never raises: a notebook whose
exercises are untouched runs to its end. What it says goes through `words`, which has its Korean in notebooks/ko/exercises.toml.
"""

from __future__ import annotations

import contextlib
import functools
import json
import numbers
import re
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from clickstream_ingest.events import Click, normalize
from kafka import KafkaProducer

from clicklab import blog, collector, connect, landed, ledger, servers, topics
from clicklab.korean import words

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PATIENCE_S = 30  # for a learner's function that reads from Kafka, where nothing ends by itself


def _say(answer: Any, hint: str, reason: str | None, right: str) -> None:
    """Print the judgment: the hint for an untouched exercise, the reason of a wrong answer, or what the right one shows."""
    if answer is ...:
        print(words("Not answered yet. {}", hint))
    elif reason:
        print(words("Not yet: {}", reason))
    else:
        print(words("Right. {}", right))


def _tried(function: Callable[..., Any], *given: Any) -> tuple[Any, str | None]:
    """What a learner's function returns; or `...` when it is untouched; or the reason in words when it fails."""
    try:
        made = function(*given)
    except Exception as error:
        return None, words("your function stops with {}: {}", type(error).__name__, error)
    return (..., None) if made is None else (made, None)


def _checker(judge: Callable[..., None]) -> Callable[..., None]:
    """Keep a checker's promise not to raise: an answer of a kind that it did not think of, or a server that is down, is said."""
    @functools.wraps(judge)
    def judged(*given: Any) -> None:
        try:
            judge(*given)
        except Exception as error:
            _say(None, "", words("this could not be judged. {}: {}", type(error).__name__, error), "")

    return judged


def _short(value: Any) -> str:
    """An answer as a message can hold it: on one line, and not a page of it."""
    return words("nothing") if value is ... else " ".join(repr(value).split())[:80]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


# --- 00 ------------------------------------------------------------------------------------------------------------------

@_checker
def http_at_the_broker(expected: Any) -> None:
    """Right: "no answer", which is what an HTTP request to the broker's port finds."""
    found: int | str = "no answer"
    with contextlib.suppress(requests.RequestException):
        found = requests.get(f"http://{servers.address('kafka')}", timeout=5).status_code
    reason = None
    if type(expected) is not int and expected != "no answer":
        reason = words("expected is {!r}; write a status as a number, or the words \"no answer\".", expected)
    elif expected != found:
        reason = words("an HTTP server would say that. In which language did the notebook ask the broker for its registered brokers, "
                       "and does the broker know any other?")
    _say(expected, words("Put a number or \"no answer\" in place of the dots. How did the notebook ask the broker, and how HDFS?"), reason,
         words("It finds: {}. The port is open and the server is usable, but it speaks Kafka's protocol and no HTTP.", found))


@_checker
def question_to_connect(is_usable: Any) -> None:
    """Right: True for the worker if it is usable, False where the answer is 404, nobody listens, or no answer comes."""
    with _answers_404() as starting, socket.create_server(("127.0.0.1", 0)) as hanging:  # nobody takes its connections
        worker = servers.url("connect")
        cases = ((worker, servers.usable("connect"), words("the worker of this pipeline")),
                 (starting, False, words("an address that answers 404, as a worker does that is still joining its group")),
                 (_nobody(), False, words("an address where nobody listens")),
                 (f"http://127.0.0.1:{hanging.getsockname()[1]}", False, words("a server that takes the connection and never answers")))
        for address, truth, what in cases:
            made, reason = _tried(_in_time(is_usable, words("requests waits for ever, unless it is given a timeout")), address)
            if made is ... and address == worker:
                break
            if reason:
                reason = words("{} at {}. It has to say True or False there too.", reason.split(":")[0], what)
            elif not isinstance(made, bool):
                reason = words("it returns {} for {}; return True or False.", _short(made), what)
            elif made != truth:
                reason = words("it says {} of {}. Compare the status with 200.", made, what)
            if reason:
                made = None
                break
    _say(made, words("Begin with requests.get(…, timeout=5).status_code, and think of the exception."), reason,
         words("Your function tells the usable worker from one that still starts, from one that hangs, and from none at all."))


@contextlib.contextmanager
def _answers_404() -> Iterator[str]:
    """Address of a stand-in that answers each GET with 404, as a worker does while it joins its group."""
    class Starting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


# --- 01 ------------------------------------------------------------------------------------------------------------------

@_checker
def seq_of_leaving(expected: Any, address: str) -> None:
    """Right: the `seq` that the engagement of a page view with three clicks has in the topic, after a browser made it."""
    hint, reason, found = words("A whole number goes in place of the dots. Count the events of that page view, from 0."), None, 0
    if expected is not ... and type(expected) is not int:
        reason = words("expected is {!r}; write a whole number.", expected)
    elif expected is not ...:
        found = _seq_of_a_visit(address)
        if expected != found:
            reason = words("the engagement that arrived has another number. Which event comes before the first click, and which number "
                           "does the very first event have?")
    _say(expected, hint, reason, words("page_view 0, three clicks, and engagement {}: this is what arrived of a browser's visit just now.", found))


def _seq_of_a_visit(address: str) -> int:
    """Let a browser open the elements, click the heart three times and leave; the engagement's `seq`, as the topic has it."""
    started_ms = time.time_ns() // 1_000_000
    with blog.browser() as chromium:
        page = chromium.new_page()
        page.goto(f"{address}/elements/")
        for _ in range(3):
            page.click("#heart")
        page.goto(address)
        page.wait_for_load_state("networkidle")
        session = page.evaluate("sessionStorage.clickstream")
    arrived: list[dict] = []

    def not_yet() -> str:
        arrived[:] = [event for event in topics.clicks(started_ms) if event.get("session_id") == session
                      and event["path"] == "/elements/" and event["event_name"] == "engagement"]
        return "" if arrived else "its engagement has not arrived"

    servers.wait_for("the visit", not_yet, 20, quiet=True)
    return arrived[0]["seq"]


@_checker
def gaps(lost: Any, arrived: list[dict]) -> None:
    """Right: 0 for all events of a visit, and what was taken out for a list with gaps, repeats, and another order."""
    views: dict[str, dict[int, dict]] = defaultdict(dict)
    for event in arrived:
        views[event["page_view_id"]][event["seq"]] = event
    missing = sum(max(view) + 1 - len(view) for view in views.values())
    longer = [view for view in views.values() if len(view) > 1]
    # The last event of a page view stays: a loss behind it leaves no gap.
    gone = {event["event_id"] for view in longer[::2] for seq, event in view.items() if seq < max(view)}
    with_gaps = [event for event in reversed(arrived) if event["event_id"] not in gone]
    cases = ((arrived, missing, words("the whole visit, as it arrived")),
             (with_gaps, missing + len(gone), words("the visit less {:,} events, in the opposite order", len(gone))),
             (with_gaps + with_gaps[:20], missing + len(gone), words("the same with {} events sent again", len(with_gaps[:20]))))
    for given, truth, what in cases:
        made, reason = _tried(lost, [dict(event) for event in given])
        if made is ... and given is arrived:
            break
        if not reason and type(made) is not int:
            reason = words("it returns {} for {}; return a whole number.", _short(made), what)
        elif not reason and made != truth:
            reason = words("it returns {:,} for {}. Look at one page view at a time, and at each of its numbers once.", made, what)
        if reason:
            made = None
            break
    _say(made, words("Collect the numbers of each page_view_id, then compare how many there are with the highest."), reason,
         words("It says {} for the visit as it arrived, and finds all {:,} events that were taken out.", missing, len(gone)))


@_checker
def script_on_one_line(hook: Any) -> None:
    """Right: a hook with two comments whose script sets pages and waiting on a page as it is published."""
    hint = words("Copy the script of the task below the include, between the three quotes. What does // do on one line, and what "
                 "separates two statements?")
    reason = None if hook is ... else _not_repaired(hook)
    _say(hook, hint, reason, words("Published on one line, it still sets both values, and the comments are there for who reads the source."))


def _not_repaired(hook: Any) -> str | None:
    if not isinstance(hook, str):
        return words("hook is {!r}; write the text of the file, in quotes.", hook)
    if "{% include clickstream.html %}" not in hook:
        return words("the line that includes our snippet is gone. Begin with {% include clickstream.html %}.")
    if "pages the reader has seen" not in hook or "clicks that wait" not in hook:
        return words("a comment is gone. Keep both: write them in a way that survives one line.")
    with tempfile.TemporaryDirectory() as folder, blog.browser() as chromium:
        site = blog.build(folder, production=True, files={"_includes/metadata-hook.html": hook})
        text = (site / "elements" / "index.html").read_text(encoding="utf-8")
        after = text.rpartition("<script data-endpoint")[2].partition("</script>")[2]
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", after.partition("</head>")[0], re.DOTALL)
        page = chromium.new_page()
        try:
            found = page.evaluate("codes => { codes.forEach((code) => new Function(code)()); return [window.pages, window.waiting]; }", scripts)
        except Exception as error:
            told = re.search(r"[A-Z]\w*Error: [^\n]*", str(error))
            return words("on one line the browser refuses it: {}. What separates two statements there?", told[0] if told else error)
    if found != [1, 0]:
        return words("on the published page, pages is {} and waiting is {}. What becomes of the text behind // there?", found[0], found[1])
    return None


# --- 02 ------------------------------------------------------------------------------------------------------------------

@_checker
def half_a_pixel(expected: Any, address: str) -> None:
    """Right: the status and the field's name with which the collector answers a click whose x is 1.5."""
    hint, reason, found = words("Put a status and a name in place of the dots. Look at the table of answers, and at the reasons below it."), None, ()
    if isinstance(expected, tuple) and ... in expected:
        expected = ...
    elif not (isinstance(expected, tuple) and len(expected) == 2 and type(expected[0]) is int and isinstance(expected[1], str)):
        reason = words("expected is {!r}; write a status and a name, such as 200, \"path\".", expected)
    if expected is not ... and not reason:
        answer = requests.post(address, json=_click(x=1.5), timeout=15)
        told = [one["reason"] for one in answer.json().get("rejected", [])]
        found = answer.status_code, re.search(r"\$\.(\w+)", told[0])[1] if told else ""
        if expected[0] != found[0]:
            reason = words("the status is another one. Does the contract, from which the table's column comes, know half a pixel?")
        elif expected[1] != found[1]:
            reason = words("the status is right, the field is not. The reason names the field that is at fault.")
    _say(expected, hint, reason, words("Sent just now: {}. Pixels are whole numbers, from the door to the table.",
                                       " ".join(map(str, found))))


@_checker
def sent_again(event_id: Any, since_ms: int) -> None:
    """Right: the id of a click that is in the topic more than once, received since an instant."""
    reason, records = None, Counter()
    if event_id is not ...:
        records = Counter(click["event_id"] for click in topics.clicks(since_ms))
        if not isinstance(event_id, str):
            reason = words("event_id is {!r}; it has to be the id, a text, that you sent.", event_id)
        elif not records[event_id.lower()]:
            reason = words("no click with this id has reached the topic since this notebook asked for each answer. What did the collector say?")
        elif records[event_id.lower()] == 1:
            reason = words("one record has this id, so the topic cannot tell the second click from another reader's. Who makes the "
                           "event_id of a click that comes without one, and when?")
    _say(event_id, words("Post one and the same click two times, then set event_id to its id."), reason,
         words("{} records, one event_id: whoever counts ids counts one click.",
               records[event_id.lower()] if isinstance(event_id, str) else 0))


@_checker
def who_has_it(acknowledged: Any, address: str) -> None:
    """Right: of each request, the clicks that are in the topic afterward, told from status and answer alone."""
    good, mixed = [_click()], [_click(), _click(x="left"), _click()]
    many, away = [_click() for _ in range(21)], [_click()]
    since_ms = time.time_ns() // 1_000_000 - 1000
    made, reason, right = None, None, []
    for what, sent in ((words("one good click"), good), (words("good, bad, good"), mixed), (words("21 clicks"), many),
                       (words("a good click while the broker is away"), away)):
        status, told = _unheard(sent) if sent is away else _posted(sent, address)
        made, reason = _tried(acknowledged, status, told, [dict(one) for one in sent])
        if made is ... and sent is good:
            break
        there = {click["event_id"] for click in topics.clicks(since_ms)} & {one["event_id"] for one in sent}
        if not reason and not isinstance(made, list):
            reason = words("for {} it returns {}; return a list of clicks.", what, _short(made))
        elif not reason:
            named = [one.get("event_id") if isinstance(one, dict) else None for one in made]
            if None in named:
                reason = words("for {} the list holds something that is no click with an event_id. Return those of sent.", what)
            elif set(named) != there or len(named) != len(there):
                which = words("others than") if len(named) == len(there) else words("{} instead of", len(named))
                reason = words("{}, answered {}: you name {} the {} that the topic has. Which answers promise something, and what does "
                               "an entry without an index refuse?", what, status, which, len(there))
        if reason:
            made = None
            break
        right.append(words("{} of {} at {}", len(there), len(sent), status))
    _say(made, words("The sentence below the table of answers has the rule: 200, or 400 and not listed in rejected."), reason,
         words("The topic agrees: {}.", ", ".join(right)))


def _click(**fields: Any) -> dict:
    return {"path": "/exercise/", "tag": "A", "timestamp": time.time_ns() // 1_000_000, "event_id": str(uuid.uuid4())} | fields


def _posted(clicks: list[dict], address: str) -> tuple[int, dict]:
    answer = requests.post(address, json=clicks, timeout=15)
    return answer.status_code, answer.json()


def _unheard(clicks: list[dict]) -> tuple[int, dict]:
    """What our handler answers when nobody listens at the broker's address."""
    with collector.function(CLICK_SINK="kafka", KAFKA_BOOTSTRAP_SERVERS=_nobody().removeprefix("http://"), DELIVERY_TIMEOUT_MS="500") as function:
        answer = function.invoke({"body": json.dumps(clicks), "requestContext": {"http": {"method": "POST"}}})
    return answer["statusCode"], json.loads(answer["body"])


# --- 03 ------------------------------------------------------------------------------------------------------------------

@_checker
def key_of_a_session(key_of: Any, clicks: list[Click], topic: str) -> None:
    """Right: a key that puts each session's clicks into one Kafka partition, and those without a session into more than one."""
    now_ms = time.time_ns() // 1_000_000
    first = [normalize({"path": "/test", "tag": "A", "timestamp": now_ms}, datetime.now(UTC)) for _ in range(50)]
    keys, made, reason, load, without = [], None, None, Counter(), Counter()
    for click in (*clicks, *first):
        made, reason = _tried(key_of, click)
        if made is ... and not keys:
            break
        what = words("a click without a session") if click.session_id is None else words("a click")
        if reason:
            reason = words("{}, for {}.", reason, what) + (words(" Every click has an event_id.") if click.session_id is None else "")
        elif not isinstance(made, bytes):
            reason = words("for {} it returns {}; a key is bytes, such as click.path.encode().", what, _short(made))
        if reason:
            made = None
            break
        keys.append(made)
    if keys and not reason:
        places: dict[str, set[int]] = defaultdict(set)
        for click, partition in zip((*clicks, *first), _partitions_of(keys, f"{topic}-exercise"), strict=True):
            load[partition] += 1
            without[partition] += click.session_id is None
            places[click.session_id or click.event_id].add(partition)
        spread = sum(len(each) > 1 for each in places.values())
        if spread:
            reason = words("{:,} of {:,} sessions lie in several Kafka partitions. Which field do all clicks of a session share?", spread,
                           len(places))
        elif len(load) == 1:
            reason = words("every session is in order, because all clicks lie in one Kafka partition, and the others idle. Use a field "
                           "with many values.")
        elif sum(count > 0 for count in without.values()) == 1:
            reason = words("all {} clicks without a session lie in one Kafka partition. On a blog with the first script these are all "
                           "there are: take a field that differs from click to click.", without.total())
    _say(made, words("Return bytes: some field of the click, with .encode(). Equal keys, equal partition."), reason,
         words("Each session lies in one Kafka partition, and the clicks are shared out, partition by partition: {}.", dict(sorted(load.items()))))


def _partitions_of(keys: list[bytes], topic: str) -> list[int]:
    """Where records with these keys go in a topic with three Kafka partitions, which is made for it and removed again."""
    admin = topics.admin()
    try:
        if topic not in admin.list_topics():
            admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
        with KafkaProducer(bootstrap_servers=servers.address("kafka")) as producer:
            sent = [producer.send(topic, b"an exercise", key=key) for key in keys]
            return [future.get(timeout=10).partition for future in sent]
    finally:
        admin.delete_topics([topic])
        servers.wait_for(f"deleting {topic}", lambda: "it is still listed" if topic in admin.list_topics() else "", 30, quiet=True)
        admin.close()


@_checker
def received_since(count: Any, since_ms: int) -> None:
    """Right: how many records clickstream has from an instant on, for one in the past and one after the last record."""
    made, reason, right = None, None, []
    # Between two records, and after the last one: there the broker names no offset.
    for instant, what in ((since_ms, words("since this notebook's clicks")),
                          (time.time_ns() // 1_000_000 + 60_000, words("since a moment that is still to come"))):
        fewest = sum(1 for _ in topics.records(topics.CLICKS, instant))
        made, reason = _tried(_in_time(count), instant)
        if made is ... and instant == since_ms:
            break
        most = sum(1 for _ in topics.records(topics.CLICKS, instant))  # readers may be clicking meanwhile
        if not reason and type(made) is not int:
            reason = words("{} it returns {}; return a whole number.", what, _short(made))
        elif reason:
            reason += f" ({what})." + ("" if instant == since_ms else words(" Where no record is that young, offsets_for_times gives None."))
        elif not fewest <= made <= most:
            reason = words("{} it returns {:,}, but reading gives {:,}. Add up, over the Kafka partitions, the end less the offset of "
                           "the instant.", what, made, fewest)
        if reason:
            made = None
            break
        right.append(f"{made:,} {what}")
    _say(made, words("Ask for end_offsets and for offsets_for_times; the difference, added up, is the count."), reason,
         words("{}: the same as by reading, and no record had to travel.", ", ".join(right)))


@_checker
def one_page_view(read: Any, clicks: list[Click], places: dict[str, Any]) -> None:
    """Right: the event ids of a page view as they lie in clickstream from its first record on, and the same when asked again."""
    view, _ = Counter(click.page_view_id for click in clicks if click.event_id in places).most_common(1)[0]
    known = [places[click.event_id] for click in clicks if click.page_view_id == view and click.event_id in places]
    first = min(known, key=lambda place: place.offset)
    reason, truth = None, []
    for attempt in ("", words("asked a second time ")):
        made, reason = _tried(_in_time(read), view, first.partition, first.offset)
        if made is ... and not attempt:
            break
        if not attempt:
            truth = [dict(record.headers)["event_id"].decode() for record in topics.records(topics.CLICKS, clicks[0].received_at)
                     if record.partition == first.partition and record.offset >= first.offset and record.key == view.encode()]
        if not reason and not isinstance(made, list):
            reason = words("{}it returns {}; return a list of event ids.", attempt, _short(made))
        elif not reason and made != truth:
            reason = attempt + _difference(made, truth)
        if reason:
            made = None
            break
    _say(made, words("Take the cell that read the rejected topic as a model: assign, end_offsets, seek, and read to the end."), reason,
         words("{} events of one page view, in their order, from Kafka partition {}, offset {:,} on.", len(truth), first.partition,
               first.offset))


def _difference(made: list, truth: list[str]) -> str:
    if not all(isinstance(one, str) for one in made):
        return words("the list holds something that is no text. An event_id is in the record's headers, as bytes: decode it.")
    if not made:
        return words("the list is empty. A record's key is bytes, so compare it with page_view_id.encode().")
    if others := set(made) - set(truth):
        return words("{:,} of the ids belong to other page views. What do the records of one page view share, besides the partition?",
                     len(others))
    if missing := set(truth) - set(made):
        return words("{} of {} events are missing. Begin at the offset itself, and read to the end of the partition.", len(missing),
                     len(truth))
    return words("the ids are right, but not in their order, or not each once. Leave them as the partition has them.")


def _in_time(function: Any, advice: str | None = None) -> Callable[..., Any]:
    """The function, ended in words when it has not ended after half a minute: a consumer waits for records for ever."""
    def ended(*given: Any) -> Any:
        told: list[tuple[Any, Exception | None]] = []

        def run() -> None:
            try:
                told.append((function(*given), None))
            except Exception as error:
                told.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        if not told:
            raise TimeoutError(words("it has not ended after {} s. {}", PATIENCE_S, advice or words(
                "Does it wait for records that never come? Read up to end_offsets, or set consumer_timeout_ms")))
        made, error = told[0]
        if error:
            raise error
        return made

    return ended


# --- 04 ------------------------------------------------------------------------------------------------------------------

CHANGES = {"A": {"iceberg.control.commit.interval-ms": "five minutes"}, "B": {"topics": "clickstrem"},
           "C": {"iceberg.control.comit.interval-ms": "1000"}, "D": {"tasks.max": "2"}}


@_checker
def what_connect_refuses(refused: Any, config: dict[str, str]) -> None:
    """Right: the letters of those changes for which Connect's validation finds an error; nothing is registered."""
    hint, reason, found = words("Put the letters into the set. What can Connect know about a value that it has never used?"), None, set()
    if refused is not ...:
        refused = {refused} if isinstance(refused, str) else refused
        if not isinstance(refused, (set, list, tuple)) or not all(isinstance(one, str) and one in CHANGES for one in refused):
            reason = words("refused is {!r}; write a set of the letters A to D.", refused)
        else:
            place = f"{servers.url('connect')}/connector-plugins/{config['connector.class']}/config/validate"
            for letter, change in CHANGES.items():
                answer = requests.put(place, json={"name": connect.SINK, **config, **change}, timeout=30)
                answer.raise_for_status()
                if answer.json()["error_count"]:
                    found.add(letter)
            if wrong := len(found ^ set(refused)):
                reason = words("Connect says otherwise about {} of the four. It knows of which type the values of its own keys are. "
                               "Does it know what you mean?", wrong)
    _say(refused, hint, reason, words("Asked just now, Connect refuses {} and takes the others without a word.", ", ".join(sorted(found))))


@_checker
def while_paused(said: Any, run: Any) -> None:
    """Right: what `ledger.where` says of a click posted while the sink is paused. The sink runs again afterward, in any case."""
    reason = None
    if said is not ...:
        lines = said if isinstance(said, list) and all(isinstance(line, str) for line in said) else []
        acknowledged = ledger.open_run(run).acknowledged if isinstance(run, str) else set()
        if not lines:
            reason = words("said is {!r}; it has to be the list of lines that ledger.where returns.", said)
        elif not acknowledged:
            reason = words("the run has no acknowledged click. Post into it with collector.post.")
        elif not any(line.startswith("topic") and "partition" in line for line in lines):
            reason = words("these lines say nothing of a click in the topic. Ask for an id that was acknowledged.")
        elif not any(line.startswith("table") and "PAUSED" in line for line in lines):
            reason = words("it says \"{}\", and nothing of PAUSED. Wait until connect.tasks() shows the pause, then post, then ask.",
                           lines[-1])
    # In any case, and without asking first: an order to pause that is still under way does not show in the states.
    requests.put(f"{servers.url('connect')}/connectors/{connect.SINK}/resume", timeout=10).raise_for_status()
    connect.wait_for_tasks()
    if said is not ... and not reason:
        present = requests.get(f"{servers.url('connect')}/connectors/{connect.SINK}/config", timeout=10).json()
        ledger.check("the table", run, landed.sightings, timeout_s=2 * int(present["iceberg.control.commit.interval-ms"]) / 1000 + 60)
    _say(said, words("Replace the dots by what ledger.where returns between the pause and the resume."), reason,
         words("A paused sink loses nothing: it went on at its last committed offset, and the clicks have landed."))


@_checker
def file_of_a_click(file_of: Any, *ids: str) -> None:
    """Right: for each id, the path of a data file that the newest snapshot names and that holds the click."""
    made, reason, rows = None, None, 0
    for number, event_id in enumerate(ids):
        made, reason = _tried(file_of, event_id)
        if made is ... and not number:
            break
        named = landed.table().inspect.files()["file_path"].to_pylist()
        if not reason and not isinstance(made, str):
            reason = words("it returns {}; return a path, as the column file_path has it.", _short(made))
        elif not reason and made not in named:
            reason = words("the newest snapshot names no data file {!r}. Take the paths from landed.table().inspect.files().", made[-60:])
        elif not reason:
            inside = pq.read_table(made, columns=["event_id"], filesystem=landed.filesystem())["event_id"].to_pylist()
            rows += len(inside)
            if event_id not in inside:
                reason = words("the snapshot names that file, but it holds {:,} other rows, and not the click. Look into each file.",
                               len(inside))
        if reason:
            made = None
            break
    _say(made, words("pq.read_table(path, columns=[…], filesystem=landed.filesystem()) reads one column of one file."), reason,
         words("{} clicks, each found in a file that counts; together these hold {:,} rows.", len(ids), rows))


# --- 05 ------------------------------------------------------------------------------------------------------------------

@_checker
def what_a_loss_moves(falls: Any, people: pd.DataFrame) -> None:
    """Right: the names of the answers that fall by about a fifth when the checker takes away one event in five."""
    def answers(events: pd.DataFrame) -> dict[str, float]:
        links = events["link_url"].notna() & ~events["outbound"].fillna(True).astype(bool) & (events["button"] == 0)
        return {"visits": _count_visits(events, 30), "page views": int((events["event_name"] == "page_view").sum()),
                "steps": int(links.sum()), "visible time": float((events["engaged_ms"] / 1000).median())}

    hint = words("Put a set of names in place of the dots. Which answers count events, and which would a visit give by any one of its events?")
    if falls is ...:
        return _say(falls, hint, None, "")
    whole, thin = answers(people), answers(people.sample(frac=0.8, random_state=0))
    kept = {name: thin[name] / whole[name] for name in whole}
    truth = {name for name, share in kept.items() if share < 0.9}
    reason = None
    if not isinstance(falls, (set, list, tuple)) or not all(isinstance(name, str) for name in falls) or set(falls) - set(kept):
        reason = words("falls is {}; write a set of some of these names: {}.", _short(falls), ", ".join(kept))
    elif more := set(falls) - truth:
        reason = words("you name one that hardly falls: {}. Does it take every event to know it?", " and ".join(sorted(more)))
    elif set(falls) != truth:
        reason = words("something falls that you do not name. What is a count of single events?")
    left = " · of ".join(f"{name} {share:.0%}" for name, share in kept.items())
    _say(falls, hint, reason, words("With one event in five taken away is left, of {}. A loss biases counts of events; it hardly "
                                    "touches what several events tell.", left))


def _count_visits(events: pd.DataFrame, timeout_min: float) -> int:
    visits, last = 0, {}
    for tab, at in events[["session_id", "corrected_at"]].dropna().sort_values("corrected_at").itertuples(index=False):
        if tab not in last or (at - last[tab]).total_seconds() > timeout_min * 60:
            visits += 1
        last[tab] = at
    return visits


@_checker
def visits(count_visits: Any, people: pd.DataFrame) -> None:
    """Right: as many visits as the checker counts tab by tab, for three time-outs, in whatever order the events come."""
    hint = words("Return a number. The cell that tried all time-outs counts them: sort, take the gaps within a session, count the "
                 "beginnings.")
    tabs, told = people["session_id"].nunique(), []
    for timeout_min, events in ((30, people), (5, people), (720, people.sample(frac=1, random_state=0))):
        truth = _count_visits(people, timeout_min)
        made, reason = _tried(count_visits, events[["session_id", "corrected_at", "event_name", "path"]].copy(), timeout_min)
        if made is ... and timeout_min == 30:
            return _say(made, hint, None, "")
        if not reason and not _is_number(made):
            reason = words("your function returns {}; return how many visits, one number.", _short(made))
        elif not reason and made == truth - tabs:
            reason = words("for {} min you are {:,} short, and there are {:,} sessions. What is the gap before the first event of each?",
                           timeout_min, tabs, tabs)
        elif not reason and made != truth:
            reason = words("for {} min you count {:,}, which is {} than there are. ", timeout_min, made,
                           words("more") if made > truth else words("fewer"))
            reason += (words("A gap counts within one session, and when it is longer than the time-out.") if events is people else
                       words("These events come in no order: sort them first."))
        if reason:
            return _say(None, hint, reason, "")
        told.append(words("{:,} by {} min", truth, timeout_min))
    _say(made, hint, None, words("{}, also when the events come in no order.", " · ".join(told)))


@_checker
def loss(share_lost: Any, mine: pd.DataFrame) -> None:
    """Right: the share of gaps before the last number, of rows some of which are there twice, before and after more are taken away."""
    hint = words("Return a share. The section on losses has the sum; a row that is there twice must not fill another one's gap.")
    told = []
    for what, events in ((words("as they arrived"), mine), (words("with one in five taken away"), mine.sample(frac=0.8, random_state=1))):
        twice = pd.concat([events, events.iloc[::10]]).sort_values("event_id", kind="stable")
        truth, naive, doubled = _lost(events, events), _lost(events, events, of_all=True), _lost(events, twice)
        made, reason = _tried(share_lost, twice[["event_id", "page_view_id", "seq", "event_name", "is_bot"]].copy())
        if made is ... and not told:
            return _say(made, hint, None, "")
        if not reason and not _is_number(made):
            reason = words("your function returns {}; return one number, 0.5 for a half.", _short(made))
        elif not reason and abs(made - truth) > 1e-6:
            reason = words("of the events {}, you find {:.2%} lost. ", what, made)
            if abs(made - doubled) < 1e-6 or made < 0:
                reason += words("Each tenth of the rows is there twice: count an event_id once.")
            elif abs(made - naive) < 1e-6:
                reason += words("Divide by the numbers before the last of each page view: of these alone it is known how many there were.")
            elif abs(made - truth * 100) < 1e-4:
                reason += words("Write a share, not percent.")
            else:
                reason += words("For each page view, the largest seq says how many came before the last. How many of these are there?")
        if reason:
            return _say(None, hint, reason, "")
        told.append(f"{truth:.1%} {what}")
    _say(made, hint, None, words("{}: the numbering tells the loss, however large, and a row that is there twice does not hide it.",
                                 " · ".join(told)))


def _lost(known: pd.DataFrame, rows: pd.DataFrame, *, of_all: bool = False) -> float:
    """Share of gaps before the last number; `known` says how many numbers there were, `rows` is counted."""
    last: dict[str, int] = defaultdict(int)
    for view, seq in known[["page_view_id", "seq"]].dropna().itertuples(index=False):
        last[view] = max(last[view], int(seq))
    arrived = Counter(rows["page_view_id"].dropna())
    lost = sum(number + 1 - arrived[view] for view, number in last.items())
    return lost / (len(rows) if of_all else sum(last.values()))


# --- 06 ------------------------------------------------------------------------------------------------------------------

@_checker
def damage(damaged: Any, run: ledger.Run, rows: list[topics.Sighting]) -> None:
    """Right: rows with the very same ids, each as often, in which the ledger finds a fault all the same."""
    hint = words("Put a list of rows in place of the dots. rows[0] shows what a row holds; rows[0]._replace(name=value) is a changed "
                 "copy of it.")
    reason, error = None, None
    if damaged is ...:
        pass
    elif not isinstance(damaged, list) or not all(isinstance(row, topics.Sighting) for row in damaged):
        reason = words("damaged is {}; it has to be a list of rows like those in rows.", _short(damaged))
    elif Counter(row.event_id for row in damaged) != Counter(row.event_id for row in rows):
        reason = words("who compares the ids sees a difference: one is missing, new, or there more often than in rows. Leave the ids alone.")
    elif not (error := ledger.problems(words("your rows"), run, damaged)):
        reason = words("the ledger finds nothing wrong in these rows: contents as posted, and no place in Kafka there twice. Which of "
                       "the two can you spoil?")
    found = words("another content in {} rows, and {} places in Kafka twice", len(error.changed), len(error.repeated)) if error else ""
    _say(damaged, hint, reason, words("{} ids, the same as before. The ledger finds {}.", len(rows), found))


@_checker
def may_be_twice(twice: Any, name: str) -> None:
    """Right: the ids that the run posted more than once, and no others; also when the outage had been longer."""
    hint = words("Return a set of ids. A click is posted again when there was no yes: how often does its id come with the state posted?")
    lines = ledger.open_run(name).lines
    # A short outage is over before anybody posts again: no id would be the answer. So each seventh click is given a second post.
    again = {line.event_id for line in [line for line in lines if line.state == "posted"][::7]}
    longer = [each for line in lines for each in ([line, line] if line.state == "posted" and line.event_id in again else [line])]
    told = []
    for what, given in ((words("in your drill"), lines), (words("in one with a longer outage"), longer)):
        run = ledger.Run(name, given)
        truth = {one for one, times in run.posted.items() if times > 1}
        made, reason = _tried(twice, list(given))
        if made is ... and not told:
            return _say(made, hint, None, "")
        if not reason and (not isinstance(made, (set, frozenset, list, tuple)) or not all(isinstance(one, str) for one in made)):
            reason = words("your function returns {}; return a set of event ids, an empty one when there are none.", _short(made))
        elif not reason and (more := set(made) - truth):
            reason = words("{}, {:,} of your ids were posted once, and one post makes one record. What makes a second one?", what,
                           len(more))
        elif not reason and (fewer := truth - set(made)):
            reason = words("{}, {:,} more may be: a post without a yes may have been written all the same, and then another post was.",
                           what, len(fewer))
        if reason:
            return _say(None, hint, reason, "")
        told.append(words("{:,} of {:,} {}", len(truth), len(run.posted), what))
    records = ledger.records_of([one for one in topics.sightings(ledger.open_run(name).since_ms) if one.event_id in run.posted])
    doubled = sum(times > 1 for times in records.values())
    _say(made, hint, None, words("{}. In the topic of your drill {:,} are there more than once. Nobody outside can know which before "
                                 "they look: so readers count ids.", " · ".join(told), doubled))


@_checker
def kills_needed(needed: Any) -> None:
    """Right: for three shares the smallest number of good kills that bounds the share below it, with 95 % confidence."""
    hint = words("Return a whole number. So many good kills in a row have probability (1 - share) ** kills: when is it 0.05 or less?")
    told = []
    for share in (0.01, 0.2, 0.001):
        kills, reason = _tried(needed, share)
        if kills is ... and not told:
            return _say(kills, hint, None, "")
        if not reason and not (_is_number(kills) and 0 < kills < 10**9 and kills == int(kills)):
            reason = words("for a share of {} your function returns {}; return a whole number of kills.", share, _short(kills))
        elif not reason and (1 - share) ** int(kills) > 0.05:
            reason = words("for a share of {} you say {:,}, and so many good kills in a row still happen {:.1%} of the time. It has to "
                           "be 5 % or less.", share, int(kills), (1 - share) ** int(kills))
        elif not reason and (1 - share) ** int(kills - 1) <= 0.05:
            reason = words("for a share of {}, {:,} are enough, but so are {:,}. Find the smallest number.", share, int(kills),
                           int(kills) - 1)
        if reason:
            return _say(None, hint, reason, "")
        told.append(words("{:,} for {:.1%}", int(kills), share))
    _say(kills, hint, None, words("{}: about 3 divided by the share, and never an end.", " · ".join(told)))


# --- 07 ------------------------------------------------------------------------------------------------------------------

@_checker
def views_and_clicks(sql: Any, rows: pa.Table, session: SparkSession) -> None:
    """Right: DuckDB and Spark answer the query with the numbers that pandas has, on rows of which some are there twice."""
    hint = words("Put the query's text in place of the dots, with {} where the table's name goes. Two counts of one column, each with "
                 "its own condition.")
    if sql is ...:
        return _say(sql, hint, None, "")
    if not isinstance(sql, str) or sql.count("{}") != 1:
        return _say(sql, hint, words("sql is {}; write one text, with {{}} once, where the table's name goes.", _short(sql)), "")
    import duckdb  # further packages: notebooks 00 to 06 do without them

    some = rows.slice(0, 5000)
    clicks = some.to_pandas().drop_duplicates("event_id")
    people = clicks[~clicks["is_bot"] & clicks["event_name"].isin(["page_view", "click"])]
    counted = people.groupby(["path", "event_name"]).size().unstack(fill_value=0).reindex(columns=["page_view", "click"], fill_value=0)
    truth = {path: (int(views), int(clicked)) for path, views, clicked in counted.itertuples()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        pq.write_table(pa.concat_tables([some, some.slice(0, 1000)]), file)
        for engine, ask in (("DuckDB", lambda: duckdb.connect().sql(sql.format(f"read_parquet('{file}')")).df()),
                            ("Spark", lambda: session.sql(sql.format(f"parquet.`{file}`")).toPandas())):
            try:
                answer = ask()
            except Exception as error:
                return _say(sql, hint, words("{} does not take it: {}", engine, str(error).splitlines()[0][:200]), "")
            if reason := _why_not_the_views_and_clicks(answer, truth):
                return _say(sql, hint, words("asked of {}, {}", engine, reason), "")
    _say(sql, hint, None, words("{} pages, {:,} views and {:,} clicks: the same in DuckDB, Spark and pandas, though some "
                                "rows were there twice.", len(truth), counted["page_view"].sum(), counted["click"].sum()))


def _why_not_the_views_and_clicks(answer: pd.DataFrame | None, truth: dict[str, tuple[int, int]]) -> str | None:
    if answer is None or set(answer.columns) != {"path", "views", "clicks"}:
        return words("the columns are {}; name them path, views and clicks.",
                     ", ".join(answer.columns) if answer is not None else words("none"))
    found = {path: (views, clicks) for path, views, clicks in answer[["path", "views", "clicks"]].itertuples(index=False)}
    if len(found) < len(answer):
        return words("a page has several rows; group by path alone, and count both in one row.")
    if missing := truth.keys() - found.keys():
        return words("{} pages are not there. Does a page that nobody clicks drop out?", len(missing))
    wrong = {path: each for path, each in found.items() if tuple(each) != truth.get(path, (0, 0))}
    if not wrong:
        return None
    path, (views, clicks) = next(iter(wrong.items()))
    wanted = truth.get(path, (0, 0))
    return words("{} has {:g} views and {:g} clicks; it has to be {} and {}. Are bots left out, and is a click "
                 "counted once that was sent twice?", path, views, clicks, wanted[0], wanted[1])


@_checker
def files_opened(condition: Any, since_ms: int, session: SparkSession) -> None:
    """Right: the rows received since an instant, and Spark opens no more files than the table's own index needs."""
    hint = words("Put the SQL that follows \"where\" in place of the dots, as a text. Compare the column as it is with timestamp "
                 "'2026-01-31 09:00:00'.")
    if condition is ...:
        return _say(condition, hint, None, "")
    if not isinstance(condition, str) or not condition.strip():
        return _say(condition, hint, words("condition is {}; write a text, the SQL that follows \"where\".", _short(condition)), "")
    from clicklab import spark  # a further package

    table = landed.table()
    scan = table.scan(f"received_at >= '{pd.Timestamp(since_ms, unit='ms').isoformat()}+00:00'", selected_fields=("event_id",))
    needed, there, rows = len(list(scan.plan_files())), len(list(table.scan().plan_files())), scan.to_arrow().num_rows
    try:
        # The snapshot is named, because the sink goes on landing clicks.
        asked = session.sql(f"select event_id from {spark.TABLE} version as of {table.current_snapshot().snapshot_id} where {condition}")
        found = len(asked.collect())
    except Exception as error:
        return _say(condition, hint, words("Spark does not take it: {}", str(error).splitlines()[0][:200]), "")
    if found != rows:
        return _say(condition, hint, words("it finds {:,} rows, and {:,} were received since then. From the full hour on, in UTC.", found,
                                           rows), "")
    opened = asked._jdf.queryExecution().executedPlan().collectLeaves().head().metrics().get("resultDataFiles").get().value()
    reason = None
    if opened > needed:
        reason = words("the rows are right, but Spark opens {:,} of {:,} files, where {:,} would do. Look at filters= in the plan: it "
                       "is empty for what is computed from the column.", opened, there, needed)
    _say(condition, hint, reason, words("{:,} rows, and {:,} of {:,} files opened.", rows, opened, there))


@_checker
def note_of_the_sink(newest_of_sink: Any) -> None:
    """Right: the id of the newest snapshot that holds the sink's note, also when a compaction's snapshot is newer."""
    hint = words("Return a snapshot_id. The sink's note is a key of summary.additional_properties that begins with kafka.connect.")
    every = landed.table().snapshots()
    replaced = [number for number, one in enumerate(every) if one.summary.operation.value == "replace"]
    cases = [(words("all snapshots"), every)] + [(words("the snapshots up to the compaction"), every[:number + 1]) for number in replaced[-1:]]
    for what, snapshots in cases:
        noted = [one.snapshot_id for one in snapshots if any(key.startswith("kafka.connect") for key in one.summary.additional_properties)]
        if not noted:
            continue
        made, reason = _tried(newest_of_sink, list(snapshots))
        if made is ... and snapshots is every:
            return _say(made, hint, None, "")
        if reason or made == noted[-1]:
            pass
        elif made == snapshots[-1].snapshot_id:
            reason = words("of {} you return the compaction's, which says nothing of how far the sink has read.", what)
        elif made in noted:
            reason = words("of {} you return one of the sink's, but an older one.", what)
        else:
            reason = words("of {} you return {}; return the snapshot_id of one that holds the note.", what, _short(made))
        if reason:
            return _say(None, hint, reason, "")
    _say(made, hint, None, words("Snapshot {} says how far the sink had read, and compaction's own does not: with that one alone a "
                                 "sink killed right after a commit can commit its last files again.", made))


# --- 08 ------------------------------------------------------------------------------------------------------------------

@_checker
def cors(configuration: Any, origin: str, apis: Any) -> None:
    """Right: AWS's client takes it for `create_api`; by the browser's rule it lets both blogs send, and nobody else."""
    from botocore.validate import ParamValidator  # a further package

    hint = words("Put a dict in place of the dots. The cell that makes the API has one for a single blog.")
    both = origin, "https://blog.example.com"
    reason = None
    if configuration is ...:
        pass
    elif not isinstance(configuration, dict):
        reason = words("configuration is {}; it has to be a dict, as for CorsConfiguration.", _short(configuration))
    elif (faults := ParamValidator().validate(configuration, apis.meta.service_model.shape_for("Cors"))).has_errors():
        reason = words("AWS's client does not take it: {}", faults.generate_report().splitlines()[0])
    else:
        def is_let_in(page: str) -> bool:
            return bool({page, "*"} & set(configuration.get("AllowOrigins", [])))

        methods, headers = configuration.get("AllowMethods", []), [name.lower() for name in configuration.get("AllowHeaders", [])]
        if is_let_in("https://stranger.example"):
            reason = words("any page may send, a stranger's too: that is what the star means.")
        elif shut := [page for page in both if not is_let_in(page)]:
            reason = words("a page of {} is not let in. Browsers compare the whole string: scheme and host, no slash at the end.", shut[0])
        elif more := set(configuration["AllowOrigins"]) - set(both):
            reason = words("{} is not one of the two blogs.", ", ".join(sorted(more)))
        elif not {"POST", "*"} & set(methods) or not {"content-type", "*"} & set(headers):
            reason = words("the two blogs are let in, but not with POST and the header content-type, which the series' snippet sends.")
    _say(configuration, hint, reason, words("Both addresses may send, and a stranger's page may not. A stranger's program asks no "
                                            "preflight: against it there are the throttle and the contract."))


@_checker
def bill_in_batches(batch_bill: Any, bill: Callable[[float], dict[str, float]], own_bytes: int, usd: pd.Series) -> None:
    """Right: requests and Lambda's own lines cost by the request, the handler's lines by the click; for three sizes of a batch."""
    hint = words("Return US dollars, one number. Which items are paid by the request, and which by what is written?")
    told = []
    for clicks, size in ((1_000_000, 10), (1_000_000, 1), (50_000, 20)):
        requests_ = clicks / size
        fewer, log = bill(requests_), bill(clicks)["log"]
        spared = (clicks - requests_) * own_bytes / 1e9 * (usd["written"] + usd["kept"])
        truth = fewer["API"] + fewer["Lambda"] + log - spared
        made, reason = _tried(batch_bill, clicks, size)
        if made is ... and not told:
            return _say(made, hint, None, "")
        if not reason and not _is_number(made):
            reason = words("your function returns {}; return US dollars a month, one number.", _short(made))
        elif not reason and not abs(made - truth) < 0.005 * truth:
            reason = words("{:,} clicks, {} in a request: {:,.2f} USD is {} than it costs. ", clicks, size, made,
                           words("more") if made > truth else words("less"))
            if abs(made - sum(fewer.values())) < 0.001 * truth:
                reason += words("In however few requests they come, the handler logs each click.")
            elif abs(made - truth - spared) < 0.001 * truth:
                reason += words("Lambda's own lines come once a request, not once a click.")
            else:
                reason += words("The API and Lambda are paid by the request; the handler logs each click, Lambda its own lines once a request.")
        if reason:
            return _say(None, hint, reason, "")
        told.append(words("{:,} clicks by {}: {:,.2f} USD", clicks, size, truth))
    _say(made, hint, None, f"{' · '.join(told)}.")


@_checker
def place_of(place: Any, event_id: str) -> None:
    """Right: (Kafka partition, offset) of a record of this click in the topic; the row in the table names the same."""
    reason, hint = None, words("Put a pair of numbers in place of the dots. ledger.where tells it; or look through topics.sightings().")
    rows = [(one.partition, one.offset) for one in landed.sightings() if one.event_id == event_id] if place is not ... else []
    if place is not ... and not (isinstance(place, (tuple, list)) and len(place) == 2 and all(_is_number(number) for number in place)):
        reason = words("place is {}; write two numbers: the Kafka partition and the offset.", _short(place))
    elif place is not ...:
        records = {(one.partition, one.offset): one.event_id for one in topics.sightings()}
        if records.get(tuple(place)) != event_id:
            reason = (words("there is another click at that place.") if tuple(place) in records else
                      words("the topic has no record at that place.")) \
                     + words(" Each Kafka partition counts its offsets alone, so it takes both numbers, partition first.")
    if not reason and place is not ...:
        found = words("The row in the table names the same place") if tuple(place) in rows else words("The table has no row from there: run "
                                                                                               "ledger.audit()")
        return _say(place, hint, None, words("{}, so that the two can be compared without looking at the click.", found))
    _say(place, hint, reason, "")


@_checker
def id_of_a_line(made_id: Any) -> None:
    """Right: a UUID that is the same for the same request and place, and another for any other."""
    hint = words("Return an id as a text. uuid.uuid5(uuid.NAMESPACE_URL, text) gives the same id for the same text, each time.")
    asked = [(request, place) for request in ("a1", "a", "request-7") for place in (0, 1, 11)]
    first, reason = _tried(made_id, *asked[0])
    if first is ...:
        return _say(first, hint, None, "")
    seen: dict[str, tuple[str, int]] = {}
    for each in asked if not reason else ():
        made, reason = _tried(made_id, *each)
        again, _ = _tried(made_id, *each)
        if not reason and not _is_uuid(made):
            reason = words("for {} your function returns {}; the contract takes a UUID, as a text.", each, _short(made))
        elif not reason and made != again:
            reason = words("asked twice about one line, it gives two ids: a second replay would double the click.")
        elif not reason and made in seen:
            reason = words("{} and {} have one id: two clicks would count as one. Keep the two parts apart.", seen[made], each)
        if reason:
            break
        seen[made] = each
    _say(None if reason else first, hint, reason, words("{} lines, {} ids, and the same ones when they are read again.", len(seen),
                                                        len(seen)))


def _is_uuid(text: Any) -> bool:
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False
