"""The collector judges requests alike at its three doors: bare, under AWS's runtime client, and over HTTP."""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda_src"))

import dev_server
import seed_handler
from clickstream_ingest import delivery, events, handler
from lambda_function import lambda_handler

from clicklab import Trouble, collector, servers

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")

LAMBDA_SRC = Path(dev_server.__file__).parent
REQUESTS = [
    pytest.param(json.loads(path.read_text()), id=path.stem)
    for path in sorted((Path(__file__).parent / "fixtures/requests").glob("*.json"))
]
CLICK = {"path": "/test", "tag": "A", "id": None, "timestamp": "2025-05-21T12:00:00Z"}
EVENT_ID = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
# The port is the system's choice and is taken before the server starts, so a request waits until it can be answered.
SERVE = """
import socket, sys, uvicorn
sys.path.insert(0, sys.argv[1])
config = uvicorn.Config("dev_server:app", access_log=False, log_level="warning")
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
"""


@contextmanager
def serving(log=subprocess.DEVNULL, **settings):
    """Run the development server with these settings; yields a function that sends one request."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, LAMBDA_SRC, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            env={**without_settings(os.environ), **settings},
            stdout=log,
        )
        try:
            yield lambda *request: send(listening.getsockname()[1], *request)
        finally:
            server.terminate()
            server.wait()


def without_settings(environment):
    """Leave out what a pipeline running beside the tests may have set."""
    ours = {"ALLOWED_ORIGINS", "CLICK_SINK", "COLLECTOR", "LEDGER_DIR"}
    return {
        name: value
        for name, value in environment.items()
        if name not in ours and not name.startswith(("KAFKA_B", "KAFKA_S"))
    }


def send(port, method, path, body=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def call(event):
    answer = lambda_handler(event, None)
    return (
        answer["statusCode"],
        {name.lower(): value for name, value in answer["headers"].items()},
        answer.get("body", ""),
    )


def under_aws(function, event):
    answer = function.invoke(event, timeout_s=60)
    return (
        answer["statusCode"],
        {name.lower(): value for name, value in answer["headers"].items()},
        answer.get("body", ""),
    )


def gateway_event(body=None, *, method="POST", headers=None, is_base64=False):
    return {
        "headers": headers or {},
        "requestContext": {"requestId": "r-1", "http": {"method": method}},
        "body": body,
        "isBase64Encoded": is_base64,
    }


def sent(request):
    """Return a fixture's body as bytes."""
    if "body_base64" in request:
        return base64.b64decode(request["body_base64"])
    return request.get("body", "").rjust(request.get("padded_to", 0)).encode()


@pytest.fixture(scope="session")
def http_log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "dev_server.log"


@pytest.fixture(scope="session")
def over_http(http_log):
    with open(http_log, "ab") as log, serving(log, CLICK_SINK="log") as request:
        yield request


@pytest.fixture(scope="session")
def function():
    """The handler under awslambdaric."""
    settings = {"CLICK_SINK": "log", "COLLECTOR": "lambda", "ALLOWED_ORIGINS": ",".join(handler.ALLOWED_ORIGINS)}
    with collector.function(**settings) as made:
        yield made


@pytest.fixture(autouse=True)
def log_sink(monkeypatch):
    monkeypatch.setenv("CLICK_SINK", "log")


@pytest.fixture
def no_broker(monkeypatch):
    """Kafka as the sink, at an address where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("CLICK_SINK", "kafka")
        monkeypatch.setattr(delivery, "BOOTSTRAP_SERVERS", [address])
        monkeypatch.setattr(delivery, "DELIVERY_TIMEOUT_MS", 200)
        yield address


def check(expected, status, headers, body):
    assert status == expected["status"]
    if "text" in expected:
        assert body == expected["text"]
    if "body" in expected:
        assert json.loads(body) == expected["body"]
    if "reasons" in expected:
        answer = json.loads(body)
        assert (answer["status"], answer["accepted"]) == ("error", expected["accepted"])
        assert len(answer["rejected"]) == len(expected["reasons"])
        for row, reason in zip(answer["rejected"], expected["reasons"], strict=True):
            assert reason in row["reason"]
    for name, value in expected.get("headers", {}).items():
        assert headers.get(name) == value


def events_of(request):
    """Return the events a gateway could make of a fixture: with its body as base64, and as text where it is one."""
    event = gateway_event(method=request["method"], headers=request["headers"])
    if "event" in request:
        return [event | request["event"]]
    body = sent(request)
    made = [event | {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}]
    if "body_base64" not in request:
        made.append(event | {"body": body.decode() or None, "isBase64Encoded": False})
    return made


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_handler_answers_text_and_base64_alike(request_):
    for event in events_of(request_):
        check(request_["expect"], *call(event))


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_handler_answers_alike_under_the_runtime_client_of_aws(function, request_):
    for event in events_of(request_):
        check(request_["expect"], *under_aws(function, event))


@pytest.mark.parametrize("request_", [each for each in REQUESTS if "event" not in each.values[0]])
def test_the_development_server_answers_like_the_handler(over_http, request_):
    check(request_["expect"], *over_http(request_["method"], "/ingest", sent(request_), request_["headers"]))


DIFFER = {"received_at", "corrected_at", "request_id", "collector"}  # clocks, and who took it in


def stored(lines, request):
    """Return what the log kept of a request, less what cannot be the same twice."""
    kept = []
    for line in map(json.loads, lines):
        if line["message"] in ("click", "rejected"):
            record = {name: value for name, value in line[line["message"]].items() if name not in DIFFER}
            if record["event_id"] and record["event_id"] not in sent(request).decode(errors="replace").lower():
                record["event_id"] = "made here"
            kept.append((line["message"], record))
    return kept


@pytest.mark.parametrize("request_", [each for each in REQUESTS if "event" not in each.values[0]])
def test_the_three_doors_answer_and_store_the_same(request_, function, over_http, http_log, capsys):
    headers = {"user-agent": "Mozilla/5.0 (doors)"} | request_["headers"]
    event = gateway_event(method=request_["method"], headers=headers) | dict(
        zip(
            ("body", "isBase64Encoded"),
            dev_server.as_text(sent(request_), headers.get("content-type", "")),
            strict=True,
        )
    )
    before_function, before_http = len(function.log()), http_log.stat().st_size
    answers = [
        call(event),
        under_aws(function, event),
        over_http(request_["method"], "/ingest", sent(request_), headers),
    ]
    logs = [
        capsys.readouterr().out.splitlines(),
        function.log()[before_function:],
        http_log.read_bytes()[before_http:].decode().splitlines(),
    ]
    bare, under_runtime, over_network = (
        (status, body, stored(lines, request_)) for (status, _, body), lines in zip(answers, logs, strict=True)
    )
    assert bare == under_runtime == over_network
    accepted = json.loads(bare[1] or "{}").get("accepted", int(bare[0] == 200))
    assert [kind for kind, _ in bare[2]].count("click") == accepted


def test_where_awslambdaric_is_missing_it_is_said_and_the_handler_runs_all_the_same(monkeypatch, capsys):
    monkeypatch.setattr(collector.importlib.util, "find_spec", lambda name: None)
    collector._runtime_client.cache_clear()
    try:
        with collector.function(CLICK_SINK="log") as function:
            assert function.invoke(gateway_event(json.dumps(CLICK)))["statusCode"] == 200
    finally:
        collector._runtime_client.cache_clear()
    assert "made for Linux only" in capsys.readouterr().out


DIES = """
import os
from clicklab import collector
kept = collector.function()
function = kept.__enter__()
function.freeze()
print(function._process.pid, flush=True)
os._exit(1)
"""


def test_a_frozen_function_does_not_outlive_the_notebook_that_died():
    frozen = int(subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True).stdout)
    servers.wait_for("its end", lambda: "it is still there" if psutil.pid_exists(frozen) else "", 30, quiet=True)


def test_a_handler_that_cannot_be_imported_is_named():
    with pytest.raises(Trouble, match="no_such_module"), collector.function("no_such_module.lambda_handler"):
        pass


@pytest.mark.parametrize(
    ("content_type", "is_base64"),
    [
        ("text/plain;charset=UTF-8", False),
        ("application/json", False),
        ("Application/JSON; charset=utf-8", False),
        ("", True),
        ("application/x-www-form-urlencoded", True),
        ("application/octet-stream", True),
    ],
)
def test_the_development_server_hands_bodies_over_as_the_gateway_does(content_type, is_base64):
    body, said_base64 = dev_server.as_text("글".encode(), content_type)
    assert said_base64 is is_base64
    assert (base64.b64decode(body).decode() if is_base64 else body) == "글"


@given(st.binary(max_size=300))
def test_no_bytes_make_the_handler_fail(body):
    status, _, _ = call(gateway_event(base64.b64encode(body).decode(), is_base64=True))
    assert status == 400


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inside: st.lists(inside) | st.dictionaries(st.text(max_size=8), inside), max_leaves=20
)
# Close to a click, so that most of the contract is reached.
VALUES = {
    "path": st.just("/") | st.text() | JSON,
    "tag": st.just("A") | st.text() | JSON,
    "timestamp": st.just(CLICK["timestamp"])
    | st.integers(946684800000, 1747828800000)
    | st.datetimes().map(str)
    | JSON,
}
NEARLY_CLICKS = st.fixed_dictionaries(
    VALUES,
    optional={name: JSON | st.just(EVENT_ID) | st.integers(0, 100) for name in events.FIELDS if name not in VALUES},
)


@given(JSON | st.lists(NEARLY_CLICKS | JSON, max_size=22))
def test_every_item_of_an_array_is_good_or_rejected(body):
    event = gateway_event(json.dumps(body))
    parsed = events.parse(event, datetime.now(UTC), collector="lambda")
    status, _, answer = call(event)
    assert status == parsed.status
    assert status in (200, 400, 413)
    if isinstance(body, list) and 1 <= len(body) <= 20 and status != 413:
        judged = len(parsed.good) + len(parsed.bad)
        assert judged == len(body) or parsed.bad[0].index is None
        assert json.loads(answer)["accepted"] == len(parsed.good)


ODD_JSON = ["-0", "-0.0", "1E400", "1e-400", "18446744073709551616", "9" * 400, "9007199254740993.0", "01", "1.", "NaN", "-Infinity",
            '{"a":1,"b":2,"a":3}', '"\\ud83d"', '"\\ud83d\\ude00"', '"\t"', '"\x7f"', "\ufeff1", " 1\n", "\xa01", "[1,]", "1 2"]  # fmt: skip


@given(JSON.map(json.dumps) | st.sampled_from(ODD_JSON) | st.text('0123456789eE+-."\\u[]{},:ntd \t', max_size=12))
def test_what_the_fast_decoder_reads_is_what_json_reads(text):
    try:
        fast = events.msgspec.json.decode(text.encode())
    except (events.msgspec.DecodeError, ValueError):
        return  # then `json` has the word
    assert repr(fast) == repr(events._decoder.decode(text))


@given(NEARLY_CLICKS)
def test_what_is_accepted_reads_the_same_from_the_topic(body):
    parsed = events.parse(gateway_event(json.dumps([body])), datetime.now(UTC), collector="lambda")
    for click in parsed.good:
        record = json.loads(events.encode(click))
        assert events.msgspec.convert(record, events.Click) == click
        assert events.fingerprint(record) == events.fingerprint(click)


@given(headers=st.dictionaries(st.sampled_from(["user-agent", "origin", "content-type"]), st.text()), id_=st.text())
def test_no_header_makes_the_handler_fail(headers, id_):
    event = gateway_event(json.dumps(CLICK), headers=headers)
    event["requestContext"]["requestId"] = id_
    assert call(event)[0] == 200


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({}, id="invoked-by-hand"),
        pytest.param({"body": None, "headers": None, "requestContext": None}, id="all-null"),
        pytest.param({"body": CLICK}, id="body-is-an-object"),
    ],
)
def test_an_event_without_a_gateway_is_answered(event):
    assert call(event)[0] == 400


def test_the_log_sink_prints_a_line_for_each_click_and_each_refusal(capsys):
    call(gateway_event(json.dumps([CLICK, CLICK, {"path": "/"}])))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["level"], line["message"]) for line in lines[:3]] == [
        ("INFO", "click"),
        ("INFO", "click"),
        ("WARNING", "rejected"),
    ]
    assert {line["request_id"] for line in lines} == {"r-1"}
    assert lines[0]["click"]["path"] == "/test"
    assert lines[2]["rejected"]["index"] == 2


def test_without_an_acknowledgment_the_answer_is_503_and_the_log_keeps_quiet_about_people(no_broker, capsys):
    status, headers, body = call(gateway_event(json.dumps(CLICK | {"path": "/secret"})))
    assert status == 503
    assert headers["retry-after"] == "5"
    assert json.loads(body)["status"] == "error"
    logged = capsys.readouterr().out
    assert json.loads(logged)["request_id"] == "r-1"
    assert "secret" not in logged


def test_a_refused_row_that_is_not_kept_is_not_answered_with_400(no_broker):
    assert call(gateway_event("not JSON"))[0] == 503


def test_what_needs_no_broker_is_answered_without_one(no_broker):
    assert call(gateway_event(method="OPTIONS"))[0] == 204
    assert call(gateway_event(method="GET"))[0] == 405
    assert call(gateway_event())[0] == 400


def test_our_own_mistake_is_logged_and_answered_with_503(monkeypatch, capsys):
    monkeypatch.setenv("CLICK_SINK", "carrier-pigeon")
    assert call(gateway_event(json.dumps(CLICK)))[0] == 503
    logged = json.loads(capsys.readouterr().out)
    assert logged["request_id"] == "r-1"
    assert "carrier-pigeon" in logged["traceback"]


def test_a_wrong_collector_name_costs_no_click(monkeypatch):
    monkeypatch.setattr(handler, "COLLECTOR", "laptop")
    assert call(gateway_event(json.dumps(CLICK)))[0] == 503


@pytest.mark.parametrize("client", ["kafka", "kafka-confluent"])
def test_the_development_server_enters_what_nobody_else_enters(client, no_broker, tmp_path):
    settings = {"CLICK_SINK": client, "KAFKA_BOOTSTRAP_SERVERS": no_broker, "DELIVERY_TIMEOUT_MS": "200"}
    click = CLICK | {"event_id": EVENT_ID}
    with serving(**settings, LEDGER_DIR=str(tmp_path / "ledger")) as request:
        body = json.dumps([click, {"event_id": EVENT_ID.replace("6", "7")}])
        for headers in ({"Origin": "http://localhost:4000"}, {}, {"X-Ledger-Run": "r"}):
            assert request("POST", "/ingest", body, headers)[0] == 503
        assert json.loads(request("GET", "/health")[2]) == {"status": "ok", "sink": client, "broker": "unreachable"}
    files = {path.stem: events.read_lines(path.read_bytes()) for path in (tmp_path / "ledger").iterdir()}
    assert set(files) == {"browser", "curl"}
    fingerprint = events.fingerprint(events.normalize(click, datetime.now(UTC)))
    for source, lines in files.items():
        posted, unknown = lines
        assert (posted.event_id, posted.source, posted.state) == (EVENT_ID, source, "posted")
        assert posted.fingerprint == fingerprint
        assert (unknown.event_id, unknown.source, unknown.state) == (EVENT_ID, source, "unknown")


def test_the_log_sink_is_not_entered(tmp_path):
    with serving(CLICK_SINK="log", LEDGER_DIR=str(tmp_path)) as request:
        assert request("POST", "/ingest", json.dumps(CLICK))[0] == 200
    assert list(tmp_path.iterdir()) == []


def test_the_development_server_says_how_it_is(over_http):
    assert json.loads(over_http("GET", "/health")[2]) == {"status": "ok", "sink": "log"}


@pytest.mark.parametrize(
    ("event", "received"),
    [
        pytest.param({"body": json.dumps(CLICK)}, CLICK, id="a-click"),
        pytest.param({"body": "{"}, {"raw": "{"}, id="not-json"),
        pytest.param({"body": "5"}, 5, id="no-click-at-all"),
        pytest.param({}, {}, id="no-body"),
    ],
)
def test_the_seed_says_ok_to_everything(event, received):
    answer = seed_handler.lambda_handler(event, None)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "ok", "received": received})
