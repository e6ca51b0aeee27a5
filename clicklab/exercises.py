"""Judge the exercises of the notebooks in words: what is right, what is not yet, and where to look again.

A checker takes what the learner made, and what it needs to know from the notebook. It prints, and never raises: a notebook whose
exercises are untouched runs to its end.
"""

from __future__ import annotations

import contextlib
import functools
import json
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
from typing import Any

import pyarrow.parquet as pq
import requests
from clickstream_ingest import events
from kafka import KafkaProducer

from clicklab import blog, collector, connect, landed, ledger, servers, topics

PATIENCE_S = 30  # for a learner's function that reads from Kafka, where nothing ends by itself


def _say(answer: Any, hint: str, reason: str | None, right: str) -> None:
    """Print the judgment: the hint for an untouched exercise, the reason of a wrong answer, or what the right one shows."""
    if answer is ...:
        print(f"Not answered yet. {hint}")
    elif reason:
        print(f"Not yet: {reason}")
    else:
        print(f"Right. {right}")


def _tried(function: Callable[..., Any], *given: Any) -> tuple[Any, str | None]:
    """What a learner's function returns; or `...` when it is untouched; or the reason in words when it fails."""
    try:
        made = function(*given)
    except Exception as error:
        return None, f"your function stops with {type(error).__name__}: {error}"
    return (..., None) if made is None else (made, None)


def _checker(judge: Callable[..., None]) -> Callable[..., None]:
    """Keep a checker's promise not to raise: an answer of a kind that it did not think of, or a server that is down, is said."""
    @functools.wraps(judge)
    def judged(*given: Any) -> None:
        try:
            judge(*given)
        except Exception as error:
            _say(None, "", f"this could not be judged. {type(error).__name__}: {error}", "")

    return judged


# --- 00 ------------------------------------------------------------------------------------------------------------------

@_checker
def http_at_the_broker(expected: Any) -> None:
    """Right: "no answer", which is what an HTTP request to the broker's port finds."""
    found: int | str = "no answer"
    with contextlib.suppress(requests.RequestException):
        found = requests.get(f"http://{servers.address('kafka')}", timeout=5).status_code
    reason = None
    if type(expected) is not int and expected != "no answer":
        reason = f"expected is {expected!r}; write a status as a number, or the words \"no answer\"."
    elif expected != found:
        reason = ("an HTTP server would say that. In which language did the notebook ask the broker for its registered brokers, "
                  "and does the broker know any other?")
    _say(expected, "Put a number or \"no answer\" in place of the dots. How did the notebook ask the broker, and how HDFS?", reason,
         f"It finds: {found}. The port is open and the server is usable, but it speaks Kafka's protocol and no HTTP.")


@_checker
def question_to_connect(is_usable: Any) -> None:
    """Right: True for the worker if it is usable, False where the answer is 404, False where nobody listens."""
    with _answers_404() as starting:
        worker = servers.url("connect")
        cases = ((worker, servers.usable("connect"), "the worker of this pipeline"),
                 (starting, False, "an address that answers 404, as a worker does that is still joining its group"),
                 (_nobody(), False, "an address where nobody listens"))
        for address, truth, what in cases:
            made, reason = _tried(is_usable, address)
            if made is ... and address == worker:
                break
            if reason:
                reason = f"{reason.split(':')[0]} at {what}. It has to say True or False there too."
            elif not isinstance(made, bool):
                reason = f"it returns {'nothing' if made is ... else repr(made)} for {what}; return True or False."
            elif made != truth:
                reason = f"it says {made} of {what}. Compare the status with 200."
            if reason:
                made = None
                break
    _say(made, "Begin with requests.get(…, timeout=5).status_code, and think of the exception.", reason,
         "Your function tells the usable worker from one that still starts, and from none at all.")


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
    hint, reason, found = "A whole number goes in place of the dots. Count the events of that page view, from 0.", None, 0
    if expected is not ... and type(expected) is not int:
        reason = f"expected is {expected!r}; write a whole number."
    elif expected is not ...:
        found = _seq_of_a_visit(address)
        if expected != found:
            reason = ("the engagement that arrived has another number. Which event comes before the first click, and which number "
                      "does the very first event have?")
    _say(expected, hint, reason, f"page_view 0, three clicks, and engagement {found}: this is what arrived of a browser's visit just now.")


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
    cases = ((arrived, missing, "the whole visit, as it arrived"),
             (with_gaps, missing + len(gone), f"the visit less {len(gone):,} events, in the opposite order"),
             (with_gaps + with_gaps[:20], missing + len(gone), f"the same with {len(with_gaps[:20])} events sent again"))
    for given, truth, what in cases:
        made, reason = _tried(lost, [dict(event) for event in given])
        if made is ... and given is arrived:
            break
        if not reason and type(made) is not int:
            reason = f"it returns {'nothing' if made is ... else repr(made)} for {what}; return a whole number."
        elif not reason and made != truth:
            reason = f"it returns {made:,} for {what}. Look at one page view at a time, and at each of its numbers once."
        if reason:
            made = None
            break
    _say(made, "Collect the numbers of each page_view_id, then compare how many there are with the highest.", reason,
         f"It says {missing} for the visit as it arrived, and finds all {len(gone):,} events that were taken out.")


@_checker
def script_on_one_line(hook: Any) -> None:
    """Right: a hook with two comments whose script sets pages and waiting on a page as it is published."""
    hint = "Copy the script of the task below the include, between the three quotes. What does // do on one line, and what separates two statements?"
    reason = None if hook is ... else _not_repaired(hook)
    _say(hook, hint, reason, "Published on one line, it still sets both values, and the comments are there for who reads the source.")


def _not_repaired(hook: Any) -> str | None:
    if not isinstance(hook, str):
        return f"hook is {hook!r}; write the text of the file, in quotes."
    if "{% include clickstream.html %}" not in hook:
        return "the line that includes our snippet is gone. Begin with {% include clickstream.html %}."
    if "pages the reader has seen" not in hook or "clicks that wait" not in hook:
        return "a comment is gone. Keep both: write them in a way that survives one line."
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
            return f"on one line the browser refuses it: {told[0] if told else error}. What separates two statements there?"
    if found != [1, 0]:
        return f"on the published page, pages is {found[0]} and waiting is {found[1]}. What becomes of the text behind // there?"
    return None


# --- 02 ------------------------------------------------------------------------------------------------------------------

@_checker
def half_a_pixel(expected: Any, address: str) -> None:
    """Right: the status and the field's name with which the collector answers a click whose x is 1.5."""
    hint, reason, found = "Put a status and a name in place of the dots. Look at the table of answers, and at the reasons below it.", None, ()
    if isinstance(expected, tuple) and ... in expected:
        expected = ...
    elif not (isinstance(expected, tuple) and len(expected) == 2 and type(expected[0]) is int and isinstance(expected[1], str)):
        reason = f'expected is {expected!r}; write a status and a name, such as 200, "path".'
    if expected is not ... and not reason:
        answer = requests.post(address, json=_click(x=1.5), timeout=15)
        told = [one["reason"] for one in answer.json().get("rejected", [])]
        found = answer.status_code, re.search(r"\$\.(\w+)", told[0])[1] if told else ""
        if expected[0] != found[0]:
            reason = "the status is another one. Does the contract, from which the table's column comes, know half a pixel?"
        elif expected[1] != found[1]:
            reason = "the status is right, the field is not. The reason names the field that is at fault."
    _say(expected, hint, reason, f"Sent just now: {' '.join(map(str, found))}. Pixels are whole numbers, from the door to the table.")


@_checker
def sent_again(event_id: Any, since_ms: int) -> None:
    """Right: the id of a click that is in the topic more than once, received since an instant."""
    reason, records = None, Counter()
    if event_id is not ...:
        records = Counter(click["event_id"] for click in topics.clicks(since_ms))
        if not isinstance(event_id, str):
            reason = f"event_id is {event_id!r}; it has to be the id, a text, that you sent."
        elif not records[event_id.lower()]:
            reason = "no click with this id has reached the topic since this notebook asked for each answer. What did the collector say?"
        elif records[event_id.lower()] == 1:
            reason = ("one record has this id, so the topic cannot tell the second click from another reader's. "
                      "Who makes the event_id of a click that comes without one, and when?")
    _say(event_id, "Post one and the same click two times, then set event_id to its id.", reason,
         f"{records[event_id.lower()] if isinstance(event_id, str) else 0} records, one event_id: whoever counts ids counts one click.")


@_checker
def who_has_it(acknowledged: Any, address: str) -> None:
    """Right: of each request, the clicks that are in the topic afterward, told from status and answer alone."""
    good, mixed = [_click()], [_click(), _click(x="left"), _click()]
    many = [_click() for _ in range(21)]
    since_ms = time.time_ns() // 1_000_000 - 1000
    made, reason, right = None, None, []
    for what, sent in (("one good click", good), ("good, bad, good", mixed), ("21 clicks", many), ("a good click while the broker is away", [_click()])):
        status, told = _unheard(sent) if "away" in what else _posted(sent, address)
        made, reason = _tried(acknowledged, status, told, [dict(one) for one in sent])
        if made is ... and sent is good:
            break
        there = {click["event_id"] for click in topics.clicks(since_ms)} & {one["event_id"] for one in sent}
        if not reason and not isinstance(made, list):
            reason = f"for {what} it returns {'nothing' if made is ... else repr(made)}; return a list of clicks."
        elif not reason:
            named = [one.get("event_id") if isinstance(one, dict) else None for one in made]
            if None in named:
                reason = f"for {what} the list holds something that is no click with an event_id. Return those of sent."
            elif set(named) != there or len(named) != len(there):
                which = "others than" if len(named) == len(there) else f"{len(named)} instead of"
                reason = f"{what}, answered {status}: you name {which} the {len(there)} that the topic has. Which rule tells an acknowledged click?"
        if reason:
            made = None
            break
        right.append(f"{len(there)} of {len(sent)} at {status}")
    _say(made, "The sentence below the table of answers has the rule: 200, or 400 and not listed in rejected.", reason,
         f"The topic agrees: {', '.join(right)}.")


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
def key_of_a_session(key_of: Any, clicks: list[events.Click], topic: str) -> None:
    """Right: a key that puts each session's clicks into one Kafka partition, and all of them into more than one."""
    first = events.normalize({"path": "/test", "tag": "A", "timestamp": time.time_ns() // 1_000_000}, datetime.now(UTC))
    keys, made, reason, load = [], None, None, Counter()
    for click in (*clicks, first):
        made, reason = _tried(key_of, click)
        if made is ... and not keys:
            break
        what = "a click without a session" if click.session_id is None else "a click"
        if reason:
            reason = f"{reason}, for {what}." + (" Every click has an event_id." if click.session_id is None else "")
        elif not isinstance(made, bytes):
            reason = f"for {what} it returns {'nothing' if made is ... else repr(made)}; a key is bytes, such as click.path.encode()."
        if reason:
            made = None
            break
        keys.append(made)
    if keys and not reason:
        places: dict[str, set[int]] = defaultdict(set)
        for click, partition in zip((*clicks, first), _partitions_of(keys, f"{topic}-exercise"), strict=True):
            load[partition] += 1
            places[click.session_id or click.event_id].add(partition)
        spread = sum(len(each) > 1 for each in places.values())
        if spread:
            reason = f"{spread:,} of {len(places):,} sessions lie in several Kafka partitions. Which field do all clicks of a session share?"
        elif len(load) == 1:
            reason = "every session is in order, because all clicks lie in one Kafka partition, and the others idle. Use a field with many values."
    _say(made, "Return bytes: some field of the click, with .encode(). Equal keys, equal partition.", reason,
         f"Each session lies in one Kafka partition, and the load is shared: {dict(sorted(load.items()))}.")


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
    for instant, what in ((since_ms, "since this notebook's clicks"), (time.time_ns() // 1_000_000 + 60_000, "since a moment that is still to come")):
        fewest = sum(1 for _ in topics.records(topics.CLICKS, instant))
        made, reason = _tried(_in_time(count), instant)
        if made is ... and instant == since_ms:
            break
        most = sum(1 for _ in topics.records(topics.CLICKS, instant))  # readers may be clicking meanwhile
        if not reason and type(made) is not int:
            reason = f"{what} it returns {'nothing' if made is ... else repr(made)}; return a whole number."
        elif reason:
            reason += f" ({what})." + ("" if instant == since_ms else " Where no record is that young, offsets_for_times gives None.")
        elif not fewest <= made <= most:
            reason = f"{what} it returns {made:,}, but reading gives {fewest:,}. Add up, over the Kafka partitions, the end less the offset of the instant."
        if reason:
            made = None
            break
        right.append(f"{made:,} {what}")
    _say(made, "Ask for end_offsets and for offsets_for_times; the difference, added up, is the count.", reason,
         f"{', '.join(right)}: the same as by reading, and no record had to travel.")


@_checker
def one_page_view(read: Any, clicks: list[events.Click], places: dict[str, Any]) -> None:
    """Right: the event ids of a page view as they lie in clickstream from its first record on, and the same when asked again."""
    view, _ = Counter(click.page_view_id for click in clicks if click.event_id in places).most_common(1)[0]
    known = [places[click.event_id] for click in clicks if click.page_view_id == view and click.event_id in places]
    first = min(known, key=lambda place: place.offset)
    reason, truth = None, []
    for attempt in ("", "asked a second time "):
        made, reason = _tried(_in_time(read), view, first.partition, first.offset)
        if made is ... and not attempt:
            break
        if not attempt:
            truth = [dict(record.headers)["event_id"].decode() for record in topics.records(topics.CLICKS, clicks[0].received_at)
                     if record.partition == first.partition and record.offset >= first.offset and record.key == view.encode()]
        if not reason and not isinstance(made, list):
            reason = f"{attempt}it returns {'nothing' if made is ... else repr(made)[:80]}; return a list of event ids."
        elif not reason and made != truth:
            reason = attempt + _difference(made, truth)
        if reason:
            made = None
            break
    _say(made, "Take the cell that read the rejected topic as a model: assign, end_offsets, seek, and read to the end.", reason,
         f"{len(truth)} events of one page view, in their order, from Kafka partition {first.partition}, offset {first.offset:,} on.")


def _difference(made: list, truth: list[str]) -> str:
    if not all(isinstance(one, str) for one in made):
        return "the list holds something that is no text. An event_id is in the record's headers, as bytes: decode it."
    if others := set(made) - set(truth):
        return f"{len(others):,} of the ids belong to other page views. What do the records of one page view share, besides the partition?"
    if missing := set(truth) - set(made):
        return f"{len(missing)} of {len(truth)} events are missing. Begin at the offset itself, and read to the end of the partition."
    return "the ids are right, but not in their order, or not each once. Leave them as the partition has them."


def _in_time(function: Any) -> Callable[..., Any]:
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
            raise TimeoutError(f"it has not ended after {PATIENCE_S} s. Does it wait for records that never come? Read up to end_offsets, "
                               "or set consumer_timeout_ms")
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
    hint, reason, found = "Put the letters into the set. What can Connect know about a value that it has never used?", None, set()
    if refused is not ...:
        refused = {refused} if isinstance(refused, str) else refused
        if not isinstance(refused, (set, list, tuple)) or not all(isinstance(one, str) and one in CHANGES for one in refused):
            reason = f"refused is {refused!r}; write a set of the letters A to D."
        else:
            place = f"{servers.url('connect')}/connector-plugins/{config['connector.class']}/config/validate"
            for letter, change in CHANGES.items():
                answer = requests.put(place, json={"name": connect.SINK, **config, **change}, timeout=30)
                answer.raise_for_status()
                if answer.json()["error_count"]:
                    found.add(letter)
            if wrong := len(found ^ set(refused)):
                reason = (f"Connect says otherwise about {wrong} of the four. It knows of which type the values of its own keys are. "
                          "Does it know what you mean?")
    _say(refused, hint, reason, f"Asked just now, Connect refuses {', '.join(sorted(found))} and takes the others without a word.")


@_checker
def while_paused(said: Any, run: Any) -> None:
    """Right: what `ledger.where` says of a click posted while the sink is paused. The sink runs again afterward, in any case."""
    reason = None
    if said is not ...:
        lines = said if isinstance(said, list) and all(isinstance(line, str) for line in said) else []
        acknowledged = ledger.open_run(run).acknowledged if isinstance(run, str) else set()
        if not lines:
            reason = f"said is {said!r}; it has to be the list of lines that ledger.where returns."
        elif not acknowledged:
            reason = "the run has no acknowledged click. Post into it with collector.post."
        elif not any(line.startswith("topic") and "partition" in line for line in lines):
            reason = "these lines say nothing of a click in the topic. Ask for an id that was acknowledged."
        elif not any(line.startswith("table") and "PAUSED" in line for line in lines):
            reason = f"it says \"{lines[-1]}\", and nothing of PAUSED. Wait until connect.tasks() shows the pause, then post, then ask."
    # In any case, and without asking first: an order to pause that is still under way does not show in the states.
    requests.put(f"{servers.url('connect')}/connectors/{connect.SINK}/resume", timeout=10).raise_for_status()
    connect.wait_for_tasks()
    if said is not ... and not reason:
        present = requests.get(f"{servers.url('connect')}/connectors/{connect.SINK}/config", timeout=10).json()
        ledger.check("the table", run, landed.sightings, timeout_s=2 * int(present["iceberg.control.commit.interval-ms"]) / 1000 + 60)
    _say(said, "Replace the dots by what ledger.where returns between the pause and the resume.", reason,
         "A paused sink loses nothing: it went on at its last committed offset, and the clicks have landed.")


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
            reason = f"it returns {'nothing' if made is ... else repr(made)[:80]}; return a path, as the column file_path has it."
        elif not reason and made not in named:
            reason = f"the newest snapshot names no data file {made[-60:]!r}. Take the paths from landed.table().inspect.files()."
        elif not reason:
            inside = pq.read_table(made, columns=["event_id"], filesystem=landed.filesystem())["event_id"].to_pylist()
            rows += len(inside)
            if event_id not in inside:
                reason = f"the snapshot names that file, but it holds {len(inside):,} other rows, and not the click. Look into each file."
        if reason:
            made = None
            break
    _say(made, "pq.read_table(path, columns=[…], filesystem=landed.filesystem()) reads one column of one file.", reason,
         f"{len(ids)} clicks, each found in a file that counts; together these hold {rows:,} rows.")
