"""The event contract: its fields and limits, what the handler adds, and the fingerprint that follows a click."""

import json
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_src"))

from clickstream_ingest import events

RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
RECEIVED_MS = 1767323045678
HOUR_MS = 3_600_000
UUID = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
SEED = {"path": "/test", "tag": "A", "id": None, "timestamp": "2025-05-21T12:00:00Z"}
FULL = {
    "path": "/글/🙂", "tag": "", "id": "menu", "timestamp": RECEIVED_MS - 100, "event_id": UUID, "event_name": "page_view",
    "page_view_id": UUID, "seq": 0, "session_id": UUID, "hostname": "127.0.0.1", "referrer": "", "title": "a\0b",
    "link_url": "https://example.com/", "outbound": True, "button": 1, "x": -5, "y": 2**31 - 1, "page_width": 1200,
    "page_height": 0, "viewport_width": 800, "viewport_height": 600, "scroll_pct": 100, "engaged_ms": 1, "language": "ko-KR",
    "zone_offset_min": -210, "sent_at": RECEIVED_MS - 50, "queue_dropped": 0, "is_webdriver": False, "schema_version": 1,
    "tracker_version": "1.0",
}  # fmt: skip


def normalized(**changes):
    return events.normalize(SEED | changes, RECEIVED_AT)


def test_the_full_click_of_these_tests_has_every_field_a_client_may_send():
    assert tuple(FULL) == events.FROM_CLIENT


def test_a_click_of_the_seed_gets_what_it_lacks():
    click = events.normalize(SEED, RECEIVED_AT, request_id="r-1", collector="lambda", user_agent="Mozilla/5.0")
    assert (click.path, click.tag, click.id, click.timestamp) == ("/test", "A", None, 1747828800000)
    assert (click.event_name, click.schema_version, len(click.event_id)) == ("click", 1, 36)
    assert (click.received_at, click.corrected_at) == (RECEIVED_MS, RECEIVED_MS)
    assert (click.request_id, click.collector, click.user_agent) == ("r-1", "lambda", "Mozilla/5.0")
    assert click.is_bot is False


def test_each_field_of_a_client_arrives_as_sent():
    record = json.loads(events.encode(events.normalize(FULL, RECEIVED_AT)))
    assert {name: record[name] for name in FULL} == FULL


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("path", "/" * 2000, "/" * 2001),
        ("tag", "a" * 64, "a" * 65),
        ("id", "한" * 128, "한" * 129),
        ("title", "🙂" * 2000, "🙂" * 2001),
        ("language", "a" * 35, "a" * 36),
        ("tracker_version", "a" * 64, "a" * 65),
        ("event_id", UUID.upper(), UUID + "\n"),
        ("session_id", UUID, UUID.replace("-", "")),
        ("event_name", "engagement", "Click"),
        ("seq", 2**31 - 1, 2**31),
        ("x", -(2**31), -(2**31) - 1),
        ("page_height", 0, -1),
        ("button", 127, 128),
        ("scroll_pct", 100, 101),
        ("zone_offset_min", -(2**15), 2**15),
        ("outbound", False, 0),
        ("timestamp", "2000-01-01T00:00:00Z", "1999-12-31T23:59:59.999Z"),
        ("timestamp", RECEIVED_MS + 24 * HOUR_MS, RECEIVED_MS + 24 * HOUR_MS + 1),
        ("timestamp", "2025-05-21T21:00:00+09:00", "2025-05-21T21:00:00"),
        ("sent_at", 946684800000, 946684799999),
    ],
)
def test_a_limit_is_the_last_value_accepted(field, accepted, refused):
    normalized(**{field: accepted})
    with pytest.raises(events.ContractError, match=field):
        normalized(**{field: refused})


def test_an_instant_is_the_same_in_each_spelling():
    spellings = ["2025-05-21T12:00:00Z", "2025-05-21T21:00:00.000+09:00", 1747828800000]
    assert {normalized(timestamp=each).timestamp for each in spellings} == {1747828800000}


def test_an_id_is_the_same_in_each_spelling():
    assert normalized(event_id=UUID.upper()).event_id == UUID


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "corrected_at"),
    [
        pytest.param(RECEIVED_MS - 70, None, RECEIVED_MS, id="sent-at-missing"),
        pytest.param(RECEIVED_MS - 70, RECEIVED_MS - 50, RECEIVED_MS - 20, id="sent-at-once"),
        pytest.param(RECEIVED_MS - 3 * HOUR_MS, RECEIVED_MS, RECEIVED_MS - 3 * HOUR_MS, id="sent-again-hours-later"),
        pytest.param(1000000000000, 1000000000020, RECEIVED_MS - 20, id="clock-years-behind"),
        pytest.param(RECEIVED_MS + HOUR_MS, RECEIVED_MS + HOUR_MS + 20, RECEIVED_MS - 20, id="clock-an-hour-ahead"),
        pytest.param(RECEIVED_MS, 946684800000, RECEIVED_MS + 24 * HOUR_MS, id="clock-set-back-between"),
    ],
)
def test_corrected_at_removes_the_error_of_the_clients_clock(timestamp, sent_at, corrected_at):
    assert normalized(timestamp=timestamp, sent_at=sent_at).corrected_at == corrected_at


def test_corrected_at_never_leaves_the_range_of_instants():
    tomorrow = RECEIVED_MS + 24 * HOUR_MS
    just_after_2000 = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=1)
    click = events.normalize(SEED | {"timestamp": 946684800000, "sent_at": 946684800000 + 2 * HOUR_MS}, just_after_2000)
    assert click.corrected_at == 946684800000
    assert normalized(timestamp=tomorrow, sent_at=946684800000).corrected_at == tomorrow


def test_only_the_handler_says_what_the_handler_knows():
    said = {"received_at": 5, "corrected_at": 5, "request_id": 5, "collector": 5, "user_agent": 5, "is_bot": 5}
    assert set(said) == set(events.FROM_HANDLER)
    assert normalized(**said, event_id=UUID) == normalized(event_id=UUID)


def test_unknown_fields_are_dropped_and_counted():
    event = {"body": json.dumps([SEED | {"color": "red", "is_bot": True}, SEED])}
    parsed = events.parse(event, RECEIVED_AT, collector="dev")
    assert parsed.status == 200
    assert parsed.unknown_fields == 2
    assert "color" not in json.loads(events.encode(parsed.good[0]))


def test_a_refused_click_is_kept_with_its_reason_and_its_first_2_kb():
    event = {
        "headers": {"user-agent": "Mozilla/5.0"},
        "requestContext": {"requestId": "r-1", "http": {"method": "POST"}},
        "body": json.dumps([SEED, SEED | {"event_id": UUID, "x": "1", "title": "글" * 1000}]),
    }
    (row,) = events.parse(event, RECEIVED_AT, collector="dev").bad
    assert (row.received_at, row.request_id, row.collector, row.index) == (RECEIVED_MS, "r-1", "dev", 1)
    assert row.event_id == UUID
    assert "$.x" in row.reason
    assert row.payload.startswith('{"path": "/test"')
    assert 2046 <= len(row.payload.encode()) <= 2048


@pytest.mark.parametrize(
    ("user_agent", "is_webdriver", "is_bot"),
    [
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/143.0 Safari/537.36", None, False),
        (
            "Mozilla/5.0 (Linux; Android 14; CUBOT KINGKONG) AppleWebKit/537.36 Chrome/143.0 Mobile Safari/537.36",
            False,
            False,
        ),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", None, True),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/143.0 Safari/537.36", None, True),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/143.0 Safari/537.36", True, True),
        ("curl/8.5.0", None, True),
        ("python-requests/2.32.3", None, True),
        (None, None, True),
    ],
)
def test_who_says_so_is_a_bot(user_agent, is_webdriver, is_bot):
    assert events.is_bot(user_agent, is_webdriver) is is_bot


def test_the_fingerprint_survives_the_way_to_the_topic():
    click = events.normalize(FULL, RECEIVED_AT)
    assert events.fingerprint(json.loads(events.encode(click))) == events.fingerprint(click)
    assert len(events.fingerprint(click)) == 16


def test_the_fingerprint_is_the_same_for_a_row_of_the_table():
    click = normalized(event_id=UUID)
    row = msgspec.structs.asdict(click) | {"_kafka_offset": 7, "a_later_field": None}
    assert events.fingerprint(dict(reversed(row.items()))) == events.fingerprint(click)


def test_the_fingerprint_is_known_before_sending():
    click = SEED | {"event_id": UUID, "timestamp": "2025-05-21T21:00:00+09:00", "color": "red"}
    parsed = events.parse({"body": json.dumps(click)}, datetime.now(UTC), collector="dev")
    assert events.fingerprint(events.normalize(click, RECEIVED_AT)) == events.fingerprint(parsed.good[0])


@pytest.mark.parametrize("field", events.FROM_CLIENT)
def test_the_fingerprint_tells_each_change_of_what_the_client_said(field):
    record = msgspec.structs.asdict(events.normalize(FULL, RECEIVED_AT))
    fingerprint = events.fingerprint(record)
    for altered in (None, 0 if record[field] != 0 else 1, "", "1", True):
        if altered is not record[field] and altered != record[field]:
            assert events.fingerprint(record | {field: altered}) != fingerprint


def test_the_fingerprint_tells_what_the_converter_confuses():
    prints = {events.fingerprint({"x": value}) for value in (1, "1", True, 0, "", False, None)}
    assert len(prints) == 7


@pytest.mark.parametrize("field", events.FROM_HANDLER)
def test_the_fingerprint_leaves_out_what_the_handler_made(field):
    record = msgspec.structs.asdict(normalized())
    assert events.fingerprint(record | {field: "altered"}) == events.fingerprint(record)


def test_the_schema_for_connect_requires_what_is_required_forever():
    fields = events.connect_schema()["fields"]
    assert [field["field"] for field in fields] == list(events.FIELDS)
    assert {field["field"] for field in fields if not field["optional"]} == {
        "path", "tag", "timestamp", "event_id", "event_name", "received_at", "corrected_at", "schema_version",
        "request_id", "collector", "is_bot",
    }  # fmt: skip


def test_the_schema_for_connect_fits_each_value_that_is_accepted():
    bits = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
    kinds = {field["field"]: field for field in events.connect_schema()["fields"]}
    record = json.loads(events.encode(events.normalize(FULL, RECEIVED_AT)))
    for name, value in record.items():
        kind = kinds[name]["type"]
        assert kind == {str: "string", bool: "boolean"}.get(type(value), kind)
        if kind in bits:
            assert -(2 ** (bits[kind] - 1)) <= value < 2 ** (bits[kind] - 1)
    assert {name for name, field in kinds.items() if field.get("name", "").endswith(".Timestamp")} == {
        "timestamp", "sent_at", "received_at", "corrected_at",
    }  # fmt: skip


def test_the_schema_for_the_snippet_asks_for_what_the_seed_sent():
    schema = events.json_schema()
    assert tuple(schema["properties"]) == events.FROM_CLIENT
    assert schema["required"] == ["path", "tag", "timestamp"]
    for name in schema["required"]:
        with pytest.raises(events.ContractError, match=name):
            events.normalize({key: value for key, value in SEED.items() if key != name}, RECEIVED_AT)


def test_the_columns_say_what_each_field_means():
    rows = events.columns()
    assert [row.field for row in rows] == list(events.FIELDS)
    assert all(row.meaning and row.type for row in rows)
    assert sum(row.is_taught_first for row in rows) == 12
    assert {row.field for row in rows if row.source == "first script"} == set(SEED)


def test_the_events_of_a_page_view_share_their_key():
    other = UUID.replace("6", "7")
    assert events.key(normalized(page_view_id=UUID, event_id=other)) == UUID.encode()
    assert events.key(normalized(event_id=other)) == other.encode()
    assert events.headers(normalized(event_id=other)) == [("event_id", other.encode()), ("schema_version", b"1")]


def enter_many(path, source):
    for at in range(200):
        events.append(path, [events.LedgerLine(UUID, source, "posted", at, "f" * 16)] * 5)


def test_the_lines_of_several_processes_stay_whole(tmp_path):
    path = tmp_path / "ledger" / "run.jsonl"
    # Not forked: this process may have threads that speak to Kafka or HDFS, and a fork of those may hang.
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as processes:
        list(processes.map(enter_many, [path] * 4, "abcd"))
    assert sorted(line.source for line in events.read_lines(path.read_bytes())) == sorted("abcd" * 1000)


def test_lines_after_a_write_that_a_kill_cut_anywhere_stay_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    first, second, third = (events.LedgerLine(UUID, source, "posted", 0, "f" * 16) for source in "abc")
    events.append(path, [first, second])
    written = path.read_bytes()
    for cut in range(len(written)):
        path.write_bytes(written[:cut])
        before = events.read_lines(path.read_bytes())
        assert before == [first, second][: len(before)]
        events.append(path, [third])
        assert events.read_lines(path.read_bytes()) == [*before, third], f"cut after {cut} bytes"
    with pytest.raises(msgspec.DecodeError):
        events.read_lines(written.replace(b'"posted"', b'"lost"'))


def test_a_disk_that_takes_a_part_of_the_lines_is_an_error_and_later_lines_stay_whole(tmp_path):
    path = tmp_path / "run.jsonl"
    line = events.LedgerLine(UUID, "a", "posted", 0, "f" * 16)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # bytes: one line and a part of the next
    try:
        with pytest.raises(OSError, match="No space left"):
            events.append(path, [line] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    events.append(path, [line])
    assert events.read_lines(path.read_bytes()) == [line] * 2
