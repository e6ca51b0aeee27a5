"""AWS without an account: the zip, the Terraform files, and clicks that come back from a log group (moto stands in for AWS)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import run_clicklab

from clicklab import Trouble, aws, landed, ledger, replay, servers, topics

LINES = json.loads((Path(__file__).parent / "fixtures" / "log_lines.json").read_text())
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


# --- The zip ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def zipped(tmp_path_factory) -> Path:
    return aws.package(tmp_path_factory.mktemp("zip") / "first.zip")


def test_the_zip_has_the_same_bytes_twice_and_at_most_5_mb(zipped, tmp_path):
    again = run_clicklab("package", str(tmp_path / "second.zip"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "second.zip").read_bytes() == zipped.read_bytes()
    assert zipped.stat().st_size <= 5_000_000
    assert aws.digest(zipped) in again.stdout


def test_the_zip_holds_the_handler_and_what_it_needs_for_arm64(zipped, tmp_path):
    with zipfile.ZipFile(zipped) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    source = servers.ROOT / "lambda_src"
    ours = {path.relative_to(source).as_posix() for path in (source / "clickstream_ingest").glob("*.py")}
    assert ours | {"lambda_function.py", "kafka/__init__.py", "msgspec/__init__.py", "crc32c/__init__.py"} <= set(names)
    compiled = [name for name in names if name.endswith(".so")]
    assert len(compiled) == 2 and all("313-aarch64" in name for name in compiled)
    # 183: the ELF header's number for AArch64. A wheel of this machine would start nowhere else.
    assert all(int.from_bytes((tmp_path / name).read_bytes()[18:20], "little") == 183 for name in compiled)
    # With this machine's own msgspec, the rest of the zip answers: nothing that the handler imports was left out.
    call = ("import sys; sys.path.insert(0, sys.argv[1]); import msgspec, crc32c; sys.path.insert(0, sys.argv[2]); "
            "import kafka, lambda_function; assert kafka.__file__.startswith(sys.argv[2]); "
            "print(lambda_function.lambda_handler({'body': '{}'}, None)['statusCode'])")
    import msgspec

    ran = subprocess.run([sys.executable, "-I", "-c", call, str(Path(msgspec.__file__).parents[1]), str(tmp_path)],
                         capture_output=True, text=True, env={**os.environ, "CLICK_SINK": "log"})
    assert ran.stdout.splitlines()[-1:] == ["400"], ran.stderr


# --- From CloudWatch to Kafka ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", [pytest.param(case, id=case["why"]) for case in LINES])
def test_a_log_line_gives_the_clicks_it_holds_and_the_same_ids_each_time(case):
    line = replay.Line(1_747_828_801_000, "2025/05/21/[$LATEST]0a1b/1", case["text"])
    if "unreadable" in case:
        with pytest.raises(replay.Unreadable, match=case["unreadable"]):
            replay.judge(line)
        return
    found = replay.judge(line)
    if not case.get("good") and not case.get("refused"):
        assert found is None
        return
    assert len(found.good) == case.get("good", 0)
    assert [part for row, part in zip(found.bad, case.get("refused", []), strict=True) if part not in row.reason] == []
    for row in [*found.good, *found.bad]:
        assert (row.collector, row.received_at) == ("replay", line.at)
    assert replay.judge(line) == found
    ids = [row.event_id for row in [*found.good, *found.bad]]
    assert len(set(ids)) == len(ids)


def test_clicks_of_the_first_handler_are_not_taken_for_a_programs():
    seed, ours = LINES[0], next(case for case in LINES if "our handler's line, CLICK_SINK" in case["why"])
    for case in (seed, ours):
        [click] = replay.judge(replay.Line(1_747_828_801_000, "stream/1", case["text"])).good
        assert not click.is_bot
    assert click.event_id == "6f9619ff-8b86-4011-b42d-00cf4fc964ff" and click.user_agent == "Mozilla/5.0"


@pytest.fixture(scope="module")
def endpoint():
    with aws.stand_in() as address:
        yield address


def fill(endpoint: str, group: str, events: list[tuple[int, str]]) -> None:
    """Put lines into a log group of the stand-in, a stream for each thousand as two containers of a Lambda would."""
    logs = aws.client("logs", endpoint=endpoint)
    logs.create_log_group(logGroupName=group)
    for start in range(0, len(events), 1000):
        stream = f"2026/11/01/[$LATEST]{start:08x}"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[
            {"timestamp": at, "message": text} for at, text in sorted(events[start : start + 1000])])


def seeds_line(number: int) -> str:
    return (f"[INFO]\t2026-11-01T00:00:00.000Z\t00000000-0000-4000-8000-{number:012x}\tReceived click event: "
            f"{{'path': '/posts/{number}/', 'tag': 'A', 'id': None, 'timestamp': '2026-11-01T00:00:00Z'}}\n")


@pytest.mark.servers
def test_a_log_group_comes_into_the_topic_once_however_often_it_is_replayed(pipeline, endpoint):
    group, since_ms = "/aws/lambda/replayed-twice", now_ms() - 60_000
    fill(endpoint, group, [(since_ms + number, case["text"]) for number, case in enumerate(LINES)])
    first = replay.from_log_group(group, endpoint=endpoint, page=5)
    assert (first.lines, first.sent, first.refused, first.unreadable.total(), first.other) == (14, 7, 4, 3, 2)
    assert "for example unreadable" in str(first) or "for example refused" in str(first)
    second = replay.from_log_group(group, endpoint=endpoint, page=5)
    assert (second.sent, second.refused, second.known) == (0, 0, 11)
    run = ledger.open_run("replay-ap-northeast-2-aws-lambda-replayed-twice")
    assert len(run.acknowledged) == 7 and set(run.posted.values()) == {1} and len(run.refused) == 4
    ledger.check("the topic", run, topics.sightings)
    refused = [topics.decoded(record.value) for record in topics.records(topics.REJECTED, since_ms)]
    assert {row["event_id"] for row in refused if row["collector"] == "replay"} == run.refused


@pytest.mark.servers
def test_a_replay_killed_in_the_middle_goes_on_and_every_click_is_one_click(pipeline, endpoint):
    group, clicks = "/aws/lambda/killed", 6000
    begin_ms = now_ms() - DAY_MS - HOUR_MS  # two days, two partitions of the table
    fill(endpoint, group, [(begin_ms + number % 2 * DAY_MS + number, seeds_line(number)) for number in range(clicks)])
    words = ["replay", "--log-group", group, "--endpoint-url", endpoint, "--run", "replay-killed"]
    running = subprocess.Popen([sys.executable, "-m", "clicklab", *words], stdout=subprocess.DEVNULL)
    servers.wait_for("some clicks", lambda: "" if ledger.open_run("replay-killed").acknowledged else "none yet", 120, every_s=0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    before = ledger.open_run("replay-killed").acknowledged
    assert 0 < len(before) < clicks

    again = run_clicklab(*words)
    assert again.returncode == 0, again.stderr
    run = ledger.open_run("replay-killed")
    assert len(run.acknowledged) == clicks and not run.unknown
    assert all(run.posted[one] == 1 for one in before), "what was acknowledged before the kill was sent again"
    ledger.check("the topic", run, topics.sightings)
    ledger.check("the table", run, landed.sightings)
    there = Counter(s.event_id for s in topics.sightings(run.since_ms) if s.event_id in run.posted)
    assert len(there) == clicks
    assert there.total() <= clicks + replay.BATCH  # at most the batch under way is there twice, with the same ids
    third = run_clicklab(*words)
    assert "0 clicks sent" in third.stdout


@pytest.mark.servers
def test_an_unknown_log_group_is_named_with_the_next_step(pipeline, endpoint):
    with pytest.raises(Trouble, match="no log group /aws/lambda/other") as caught:
        replay.from_log_group("/aws/lambda/other", endpoint=endpoint)
    assert "--region" in caught.value.next
