"""AWS without an account: the zip, the Terraform files, and clicks that come back from a log group (moto stands in for AWS)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import lark
import msgspec
import pytest
from clickstream_ingest import delivery, events
from conftest import run_clicklab
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.only_checked("the Lambda's zip for arm64: looked into, not run on arm64")
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
    ran = subprocess.run([sys.executable, "-I", "-c", call, str(Path(msgspec.__file__).parents[1]), str(tmp_path)],
                         capture_output=True, text=True, env={**os.environ, "CLICK_SINK": "log"})
    assert ran.stdout.splitlines()[-1:] == ["400"], ran.stderr


# --- The Terraform files -----------------------------------------------------------------------------------------------

SCHEMA = json.loads((Path(__file__).parent / "fixtures" / "aws_provider.json").read_text())["types"]
OF_TERRAFORM = {"count", "for_each", "depends_on", "lifecycle", "provider", "dynamic"}


def expressions(value: object) -> list[str]:
    """All texts of a body in which a reference can stand."""
    if isinstance(value, dict):
        return [text for key, inside in value.items() if key not in ("description", "error_message", "__comments__")
                for text in expressions(inside)]
    return [text for inside in value for text in expressions(inside)] if isinstance(value, list) else [str(value)]


def wrong_arguments(where: str, body: dict, arguments: dict[str, dict]) -> list[str]:
    """Arguments that the provider does not have, and those it requires and does not get, blocks within blocks too."""
    given = {name: inside for name, inside in body.items() if not name.startswith("__") and name not in OF_TERRAFORM}
    for dynamic in body.get("dynamic", []):
        given |= {name: inside["content"] for name, inside in dynamic.items() if not name.startswith("__")}
    found = [f"{where}: the provider has no {name}" for name in given.keys() - arguments.keys()]
    found += [f"{where}: {name} is required" for name, entry in arguments.items() if entry["required"] and name not in given]
    for name, inside in given.items():
        blocks = [block for block in inside if isinstance(block, dict) and "__is_block__" in block] if isinstance(inside, list) else []
        if name in arguments and bool(blocks) != ("block" in arguments[name]):
            found.append(f"{where}: {name} is {'no' if blocks else 'a'} block")
        for block in blocks if name in arguments and "block" in arguments[name] else []:
            found += wrong_arguments(f"{where}.{name}", block, arguments[name]["block"])
    return found


def faults(declared: dict[str, dict]) -> list[str]:
    """What `terraform validate` would say about these files, as far as names go."""
    found, used = [], set()
    for address, body in declared.items():
        kind = address.rsplit(".", 1)[0]
        if "aws_" in kind:
            if kind not in SCHEMA:
                found.append(f"{address}: not in tests/fixtures/aws_provider.json; run tests/provider_schema.py")
                continue
            found += wrong_arguments(address, body, SCHEMA[kind]["arguments"])
        for text in expressions(body):
            for other in re.findall(r"\b(?:var|local)\.\w+", text):
                used.update({other} - {address})
                if other not in declared:
                    found.append(f"{address}: there is no {other}")
            for other, attribute in re.findall(r"\b((?:data\.)?aws_\w+\.\w+)(?:\[[^\]]*\])?(?:\.(\w+))?", text):
                of = SCHEMA.get(other.rsplit(".", 1)[0], {"attributes": [], "arguments": {}})
                if other not in declared:
                    found.append(f"{address}: there is no {other}")
                elif attribute and attribute not in {*of["attributes"], *of["arguments"]}:
                    found.append(f"{address}: {other} has no {attribute}")
    found += [f"{address} is not used" for address in declared if address.startswith(("var.", "local.")) and address not in used]
    return found


@pytest.mark.only_checked("the Terraform files: parsed, formatted, held against the provider's schema, not applied")
def test_the_terraform_files_name_what_the_provider_and_they_themselves_have():
    declared = aws.configuration()
    assert faults(declared) == []
    assert len([address for address in declared if address.startswith("aws_")]) >= 15


@pytest.mark.parametrize("file, old, new, says", [
    pytest.param("main.tf", "retention_in_days", "retention_days", "no retention_days", id="an-argument-that-is-not"),
    pytest.param("main.tf", "max_age ", "max_age_s ", "no max_age_s", id="an-argument-of-a-block"),
    pytest.param("main.tf", '  protocol_type = "HTTP"\n', "", "protocol_type is required", id="a-required-argument"),
    pytest.param("msk.tf", "      arn      = ", "", "", id="a-file-that-does-not-parse"),
    pytest.param("msk.tf", "    arn      = aws_msk_configuration.clicks[0].arn\n", "", "arn is required", id="a-required-argument-of-a-block"),
    pytest.param("main.tf", "aws_iam_role.ingest.arn", "aws_iam_role.ingests.arn", "no aws_iam_role.ingests", id="a-resource-that-is-not"),
    pytest.param("main.tf", ".invoke_arn", ".invocation_arn", "no invocation_arn", id="an-attribute-that-is-not"),
    pytest.param("main.tf", "var.memory_mb", "256", "var.memory_mb is not used", id="an-unused-variable"),
    pytest.param("main.tf", "var.memory_mb", "var.memory", "no var.memory", id="a-variable-that-is-not"),
])
def test_a_mistake_in_the_terraform_files_is_found(tmp_path, file, old, new, says):
    for path in aws.TERRAFORM.glob("*.tf"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / file).read_text()
    if not says:
        text += "resource {"
    (tmp_path / file).write_text(text.replace(old, new, 1) if says else text)
    if says:
        assert any(says in fault for fault in faults(aws.configuration(tmp_path)))
    else:
        with pytest.raises(lark.exceptions.LarkError):
            aws.configuration(tmp_path)


@pytest.mark.only_checked("the Terraform files: parsed, formatted, held against the provider's schema, not applied")
def test_each_variable_says_what_it_is_and_refuses_what_cannot_be():
    variables = {address: body for address, body in aws.configuration().items() if address.startswith("var.")}
    assert len(variables) >= 13
    for address, body in variables.items():
        assert body["description"] and body["type"] and body["validation"][0]["error_message"], address


@pytest.mark.only_checked("the Terraform files: parsed, formatted, held against the provider's schema, not applied")
def test_the_terraform_files_are_formatted():
    attribute = re.compile(r"^( *)([\w\"-]+)( +)= (.*)$")
    for path in [*aws.TERRAFORM.glob("*.tf"), aws.TERRAFORM / "terraform.tfvars.example"]:
        group: list[tuple[str, str, str]] = []
        for line in [*path.read_text().splitlines(), ""]:
            assert "\t" not in line and line == line.rstrip() and (len(line) - len(line.lstrip())) % 2 == 0, f"{path.name}: {line!r}"
            found = attribute.match(line)
            whole = found and all(found[4].count(a) == found[4].count(b) for a, b in ("()", "[]", "{}"))
            if group and (not whole or found[1] != group[0][0]):
                longest = max(len(name) for _, name, _ in group)
                assert all(len(name) + len(space) == longest + 1 for _, name, space in group), f"{path.name}: align = in {group}"
                group = []
            if whole:
                group.append((found[1], found[2], found[3]))


@pytest.mark.only_checked("the Terraform files: parsed, formatted, held against the provider's schema, not applied")
def test_the_terraform_files_agree_with_the_zip_and_the_series():
    declared = aws.configuration()
    function, region = declared["aws_lambda_function.ingest"], declared["var.region"]["default"]
    assert (function["handler"], function["runtime"], function["architectures"]) == (aws.HANDLER, f"python{aws.PYTHON}", ["arm64"])
    assert aws.PLATFORM.startswith("aarch64")
    group = declared["aws_cloudwatch_log_group.ingest"]["name"].replace("${var.name}", declared["var.name"]["default"])
    assert (group, region) == (aws.LOG_GROUP, aws.REGION)
    assert declared["aws_apigatewayv2_route.ingest"]["route_key"] == "ANY /ingest"
    assert declared["aws_apigatewayv2_stage.default"]["name"] == "$default"


@pytest.mark.only_checked("the Terraform files: parsed, formatted, held against the provider's schema, not applied")
def test_the_terraform_files_allow_nothing_to_everybody_and_name_nobody():
    text = "\n".join(path.read_text() for path in aws.TERRAFORM.iterdir() if path.is_file())
    policies = [body["policy"] for address, body in aws.configuration().items() if address.startswith("aws_iam_role_policy.")]
    assert len(policies) == 2
    assert not [policy for policy in policies if re.search(r'(Action|Resource) = \[?"\*"|[a-z-]+:\*"\]?, Resource', policy)]
    assert not re.search(r"\b\d{12}\b|AKIA|0\.0\.0\.0/0", text)
    assert not re.search(r"allow_origins *= *\[", text), "only the blog's own origin"


needs_terraform = pytest.mark.skipif(not shutil.which("terraform"), reason="terraform itself is not on this machine")


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["terraform", *words, "-no-color"], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"CHECKPOINT_DISABLE": "1"})


def stand_ins() -> dict:
    """Our files in Terraform's JSON, each resource of AWS replaced by one that Terraform has built in.

    That one takes anything and gives it back, so every expression is evaluated, without the provider.
    """
    made: dict = {"resource": {"terraform_data": {}}, "locals": {}, "output": {}}
    for address, body in aws.configuration().items():
        kind, name = address.rsplit(".", 1)
        body = referring(body)
        if kind == "local":
            made["locals"][name] = body["value"]
        elif kind == "output":
            made["output"][name] = {"value": body["value"]}
        elif "aws_" in kind:
            counted = {word: body.pop(word) for word in ("count", "for_each") if word in body}
            for block, inside in (pair for dynamic in body.pop("dynamic", []) for pair in dynamic.items()):
                content = ", ".join(f"{word} = {value[2:-1].replace(f'{block}.', 'each_.')}" for word, value in inside["content"][0].items())
                body[block] = f"${{[for each_ in [for value in {inside['for_each'][2:-1]} : {{value = value}}] : {{{content}}}]}}"
            known = {attribute: f"{name}-{attribute}" for attribute in SCHEMA[kind]["attributes"]}
            known |= {"names": ["a", "b", "c"], "cidr_block": "10.42.0.0/24"}
            made["resource"]["terraform_data"][f"{kind.removeprefix('data.')}__{name}"] = counted | {"input": known | body}
    return made


def referring(value: object) -> object:
    """A body with its references pointed at the stand-ins."""
    if isinstance(value, dict):
        return {word: referring(inside) for word, inside in value.items() if not word.startswith("__") and word != "depends_on"}
    if isinstance(value, list):
        return [referring(inside) for inside in value]
    if not isinstance(value, str):
        return value
    value = value.replace("${filebase64sha256(var.package)}", "digest")  # there need be no zip
    value = re.sub(r"\bin (aws_\w+)\.(\w+) :", r"in values(terraform_data.\1__\2)[*].output :", value)
    return re.sub(r"\b(?:data\.)?(aws_\w+)\.(\w+)((?:\[[^\]]*\])?)\.(\w+)", r"terraform_data.\1__\2\3.output.\4", value)


@needs_terraform
def test_terraform_itself_formats_alike_judges_values_and_evaluates_every_expression(tmp_path):
    assert terraform(tmp_path, "fmt", "-check", str(aws.TERRAFORM)).returncode == 0
    shutil.copy(aws.TERRAFORM / "variables.tf", tmp_path)
    shutil.copy(aws.TERRAFORM / "terraform.tfvars.example", tmp_path / "terraform.tfvars")
    (tmp_path / "stand_ins.tf.json").write_text(json.dumps(stand_ins()))
    assert terraform(tmp_path, "init").returncode == 0
    for chosen, count in ((None, 9), ("msk={}", 23), ('kafka={bootstrap_servers="b:9094"}', 9),
                         ('network={subnet_ids=["s"], security_group_ids=["g"]}', 10)):
        planned = terraform(tmp_path, "plan", *(["-var", chosen] if chosen else []))
        assert f"Plan: {count} to add" in planned.stdout, planned.stderr  # with msk also the list of zones, which is only read
    for bad, says in (('allowed_origins=["https://example.github.io/"]', "without"), ("reserved_concurrency=0", "stops the collector"),
                      ("timeout_s=30", "gives up after 30"), ("log_retention_days=31", "CloudWatch takes"),
                      ('region="Seoul"', "ap-northeast-2"), ("msk={storage_gib=0}", "1 or more")):
        refused = terraform(tmp_path, "plan", "-var", bad)
        assert refused.returncode == 1 and says in refused.stderr, f"{bad}: {refused.stderr}"


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


def test_what_the_handler_logs_is_what_the_replay_reads(monkeypatch, capsys):
    monkeypatch.setenv("CLICK_SINK", "log")
    at = datetime(2026, 11, 1, tzinfo=UTC)
    click = {"path": "/클릭/", "tag": "A", "timestamp": "2026-10-31T23:59:59Z", "title": "\u2028 it's", "link_url": "https://example.com/"}
    parsed = events.parse({"headers": {"user-agent": "Mozilla/5.0"}, "requestContext": {"requestId": "JKJaXmPLvHcESHE="},
                           "body": json.dumps([click, {"tag": "A"}])}, at, collector="lambda")
    delivery.send(parsed.good, parsed.bad)
    found = [replay.judge(replay.Line(now_ms(), "stream/1", line)) for line in capsys.readouterr().out.split("\n")]
    [good], [bad] = (one.good or one.bad for one in found if one)
    assert events.fingerprint(good) == events.fingerprint(parsed.good[0])
    assert (good.event_id, good.request_id, good.user_agent, good.is_bot) == (
        parsed.good[0].event_id, "JKJaXmPLvHcESHE=", "Mozilla/5.0", False)
    assert (bad.reason, bad.payload, bad.index) == (parsed.bad[0].reason, parsed.bad[0].payload, 1)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
                           lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from([*events.FIELDS, "raw"]) | st.text(), inside))


@given(body=json_values, as_json=st.booleans())
@settings(deadline=None, max_examples=200)
def test_whatever_a_handler_logged_becomes_clicks_refused_rows_or_an_unreadable_line(body, as_json):
    text = f"[INFO]\t2026-11-01T00:00:00.000Z\t00000000-0000-4000-8000-000000000001\tReceived click event: {body}"
    if as_json:
        text = json.dumps({"level": "INFO", "message": "click", "request_id": body, "click": body})
    try:
        found = replay.judge(replay.Line(1_793_491_200_000, "stream/1", text))
    except replay.Unreadable:
        return
    rows = [*found.good, *found.bad]
    assert len(rows) == (1 if as_json or not isinstance(body, list) else len(body))
    assert all(msgspec.json.encode(row) for row in rows) and len({row.event_id for row in rows}) == len(rows)


@pytest.fixture(scope="module")
def endpoint():
    with aws.stand_in() as address:
        yield address


def fill(endpoint: str, group: str, lines: list[tuple[int, str]]) -> None:
    """Put lines into a log group of the stand-in, a stream for each thousand as two containers of a Lambda would."""
    logs = aws.client("logs", endpoint=endpoint)
    logs.create_log_group(logGroupName=group)
    for start in range(0, len(lines), 1000):
        stream = f"2026/11/01/[$LATEST]{start:08x}"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[
            {"timestamp": at, "message": text} for at, text in sorted(lines[start : start + 1000])])


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
    assert len([row for row in refused if row["collector"] == "replay"]) == 4
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
def test_clicks_that_a_second_machine_replays_again_are_posted_twice_and_one_click_each(pipeline, endpoint):
    group = "/aws/lambda/replayed-by-two"
    fill(endpoint, group, [(now_ms() - 1000 + number, seeds_line(10_000 + number)) for number in range(10)])
    for run in ("replay-one", "replay-two"):
        assert replay.from_log_group(group, endpoint=endpoint, run=run).sent == 10
    assert {ledger.everything().posted[one] for one in ledger.open_run("replay-two").posted} == {2}
    ledger.audit()


@pytest.mark.servers
def test_the_next_day_waits_until_the_sink_has_landed_the_days_before(second_state, endpoint):
    group = "/aws/lambda/without-a-sink"
    fill(endpoint, group, [(now_ms() - days * DAY_MS, seeds_line(20_000 + days)) for days in (3, 2, 1)])
    for _ in range(2):  # trying again does not get around it
        with pytest.raises(Trouble, match="have to wait") as caught:
            replay.from_log_group(group, endpoint=endpoint)
        assert "the sink does not run" in caught.value.why and "notebook 04" in caught.value.next
    assert sum(topics.end_offsets(topics.CLICKS).values()) == 1


@pytest.mark.servers
def test_an_unknown_log_group_is_named_with_the_next_step(pipeline, endpoint):
    with pytest.raises(Trouble, match="no log group /aws/lambda/other") as caught:
        replay.from_log_group("/aws/lambda/other", endpoint=endpoint)
    assert "--region" in caught.value.next
