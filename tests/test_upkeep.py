"""The table is kept in order while the sink goes on: nothing else changes, and a kill at any step is finished by a repeat."""

from __future__ import annotations

import copy
import json
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
import requests
from clickstream_ingest import events
from conftest import run_clicklab
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from pyiceberg.manifest import ManifestFile

from clicklab import Trouble, collector, connect, hdfs, landed, ledger, servers, topics, traffic, upkeep

pytestmark = pytest.mark.servers
DAY_MS = 86_400_000


class Killed(BaseException):
    """Ends a step where a kill would: no handler of ours catches it."""


def post(clicks: int, seed: int, per_s: float | None = None) -> str:
    run = ledger.new_run("98")
    collector.post(traffic.readers(clicks, seed), run, user_agent=traffic.USER_AGENT, per_s=per_s)
    return run


def rows_of(session: str) -> int:
    return landed.rows(["session_id"]).column(0).to_pylist().count(session)


def places_with_contents(rows: list) -> Counter:
    return Counter((row.partition, row.offset, row.event_id, row.fingerprint) for row in rows)


def files_that_hold(session: str) -> list[str]:
    """Every file on HDFS below the table, read as it is: whether a snapshot names it or not."""
    held, found = [], landed.table()
    column = found.schema().find_field("session_id").field_id
    for path, size_bytes in hdfs.files():
        if not size_bytes:
            continue  # begun by a sink that found no room in HDFS
        if path.endswith(".parquet") and session in pq.read_table(path, filesystem=landed.filesystem()).column("session_id").to_pylist():
            held.append(path)
        if path.endswith(".avro") and "/snap-" not in path:
            manifest = ManifestFile.from_args(
                manifest_path=f"hdfs://{servers.address('namenode')}{path}", manifest_length=size_bytes, partition_spec_id=0,
                content=0, sequence_number=1, min_sequence_number=1, added_snapshot_id=1)
            for entry in manifest.fetch_manifest_entry(found.io, discard_deleted=False):
                bounds = [(bounds or {}).get(column, b"") for bounds in (entry.data_file.lower_bounds, entry.data_file.upper_bounds)]
                if any(bound.startswith(session[:15].encode()) for bound in bounds):
                    held.append(path)
    return held


def killed_at(step: str, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a piece of upkeep that ends between two of its steps."""
    def end(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if step == "before the commit":
            patch.setattr(upkeep, "_publish", end)
        elif step == "before the old snapshots go":
            patch.setattr(upkeep, "_expire", end)
        elif step == "before the files go":
            # Of an expire's own note; the call at the beginning finds none.
            finish, calls = upkeep.finish, Counter()
            patch.setattr(upkeep, "finish", lambda: (calls.update(n=1), end() if calls["n"] > 1 else finish())[1])
        else:
            client = hdfs.client()

            class Dies:
                def __getattr__(self, name):
                    return getattr(client, name)

                def delete(self, path):
                    client.delete(path)
                    raise Killed

            patch.setattr(hdfs, "client", Dies)
        work()


def test_a_session_is_forgotten_while_clicks_arrive_however_often_the_forget_is_killed(pipeline, monkeypatch, capsys):
    before = post(300, 61)
    ledger.check("the table", before, landed.sightings)
    session = Counter(filter(None, landed.rows(["session_id"]).column(0).to_pylist())).most_common(1)[0][0]
    count = rows_of(session)
    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(post, 1200, 62, 60)
        for step in ("before the commit", "before the old snapshots go", "before the files go", "after the first file went"):
            killed_at(step, lambda: upkeep.forget(session), monkeypatch)
            assert rows_of(session) == (count if step == "before the commit" else 0), step
        upkeep.forget(session)
        meanwhile = meanwhile.result()
    said = capsys.readouterr().out
    assert "no file on HDFS holds it" in said and f"topic clickstream still holds {count:,} of its records" in said
    assert "delete_records(" in said and "The cost:" in said
    assert files_that_hold(session) == []
    assert upkeep.sink_offsets(landed.table())
    ledger.check("the table", meanwhile, landed.sightings)
    ledger.audit()

    servers.send_signal("connect", signal.SIGKILL)
    servers.wait_usable("connect")
    ledger.check("the table", post(40, 63), landed.sightings)
    ledger.audit()
    assert rows_of(session) == 0 and files_that_hold(session) == []


def test_small_files_become_one_and_old_snapshots_go_while_rows_and_offsets_stay_however_often_it_is_killed(pipeline, monkeypatch, capsys):
    for seed in (71, 72):
        ledger.check("the table", post(60, seed), landed.sightings)
    rows = places_with_contents(landed.sightings())
    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(post, 400, 73, 40)
        killed_at("before the commit", upkeep.compact, monkeypatch)
        assert not rows - places_with_contents(landed.sightings()), "a row is gone"
        upkeep.compact()
        assert not rows - places_with_contents(landed.sightings()), "a row is gone"
        for step in ("before the commit", "before the files go", "after the first file went"):
            killed_at(step, lambda: upkeep.expire(keep=2), monkeypatch)
            assert not rows - places_with_contents(landed.sightings()), f"a row is gone: {step}"
        upkeep.expire(keep=2)
        assert not rows - places_with_contents(landed.sightings()), "a row is gone"
        run = meanwhile.result()
    ledger.check("the table", run, landed.sightings)
    ledger.audit()
    assert "small files became" in capsys.readouterr().out


def test_expire_keeps_the_sinks_offsets_when_another_program_made_the_newest_snapshot(pipeline, monkeypatch):
    for seed in (74, 75):
        ledger.check("the table", post(20, seed), landed.sightings)
    wanted = upkeep.sink_offsets(landed.table())
    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "sink_offsets", lambda table: {})  # as Spark's compaction does it
        upkeep.compact()
    assert wanted and not upkeep._offsets(landed.table().current_snapshot())
    upkeep.expire(keep=1)
    assert upkeep.sink_offsets(landed.table()) == wanted
    assert len(landed.table().snapshots()) == 2


def test_sweep_takes_what_killed_programs_left_and_never_what_the_sink_announced(pipeline, capsys):
    ledger.check("the table", post(20, 81), landed.sightings)
    client, long_ago = hdfs.client(), int(time.time() * 1000) - 2 * DAY_MS
    left = [f"{hdfs.TABLE}/data/{uuid.uuid4()}.parquet", f"{hdfs.TABLE}/metadata/{uuid.uuid4()}-m0.avro"]
    young = f"{hdfs.TABLE}/data/{uuid.uuid4()}.parquet"
    for path in (*left, young):
        with client.create(path) as file:
            file.write(b"PAR1")
    for path in left:
        client.set_times(path, long_ago, long_ago)
    # No room for metadata: the sink writes and announces its files, and cannot commit them.
    servers.hdfs_admin("-setSpaceQuota", "1", f"{hdfs.TABLE}/metadata")
    try:
        run = post(60, 82)
        servers.wait_for("files that are announced", lambda: "" if upkeep._announced(landed.table()) else "none yet", 60)
        announced = upkeep._announced(landed.table())
        waiting = [path for path, _ in hdfs.files() if path.rsplit("/", 1)[1] in announced]
        for path in waiting:
            client.set_times(path, long_ago, long_ago)
        upkeep.sweep()
    finally:
        servers.hdfs_admin("-clrSpaceQuota", f"{hdfs.TABLE}/metadata")
    there = {path for path, _ in hdfs.files()}
    assert waiting and there.issuperset(waiting) and young in there and not there.intersection(left)
    assert "2 files removed" in capsys.readouterr().out
    ledger.check("the table", run, landed.sightings)
    ledger.audit()
    client.delete(young)


def test_the_broker_keeps_the_sinks_offsets_as_long_as_the_clicks(pipeline):
    # By default an empty group's offsets go after 7 days, and the sink would land a topic that is kept forever a second time.
    client = topics.admin()
    try:
        broker, clicks = (client.describe_configs([ConfigResource(kind, name)], config_filter="all")[kind.name.lower()][name] for kind, name in (
            (ConfigResourceType.BROKER, "1"), (ConfigResourceType.TOPIC, topics.CLICKS)))
    finally:
        client.close()
    assert clicks["retention.ms"]["value"] == "-1" and int(broker["offsets.retention.minutes"]["value"]) == 2**31 - 1


def test_commands_refuse_what_cannot_be_meant():
    for words, said in ((("forget", "yesterday"), "is no session_id"), (("expire", "--keep", "0"), "without a snapshot"),
                        (("sweep", "--older-than-h", "0.1"), "a younger file may belong to a commit")):
        ran = run_clicklab(*words)
        assert ran.returncode == 1 and said in ran.stderr and "Next:" in ran.stderr


# --- Schema changes --------------------------------------------------------------------------------------------------------

def changed(**kinds: str | None) -> dict:
    """The contract's schema with fields added, retyped or, where the kind is None, removed."""
    schema = copy.deepcopy(events.connect_schema())
    of = {field["field"]: field for field in schema["fields"]}
    for name, kind in kinds.items():
        if kind is None:
            schema["fields"].remove(of[name])
        elif name in of:
            of[name]["type"] = kind
        else:
            schema["fields"].append({"field": name, "type": kind, "optional": True})
    return schema


@pytest.mark.parametrize(("kinds", "says", "is_fine"), [
    pytest.param({"campaign": "string"}, "campaign: new, string, optional; old rows are null", True, id="new-optional"),
    pytest.param({"x": "int64"}, "x: widened from int32 to int64", True, id="widened"),
    pytest.param({"title": None}, "title: removed; what is still sent in it is dropped", False, id="removed-optional"),
    pytest.param({"path": None}, "path: removed; the column is required, so the sink fails", False, id="removed-required"),
    pytest.param({"title": "int32"}, "title: string becomes int32; the column keeps its type", False, id="retyped"),
    pytest.param({"engaged_ms": "int8"}, "engaged_ms: int32 becomes int8; what no longer fits", False, id="narrowed"),
])
def test_schema_says_what_kind_of_change_it_is_and_refuses_what_loses(monkeypatch, tmp_path, capsys, kinds, says, is_fine):
    file = tmp_path / "sink.json"
    file.write_text(before := connect.CONFIG.read_text())
    monkeypatch.setattr(connect, "CONFIG", file)
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    wanted = changed(**kinds)
    monkeypatch.setattr(events, "connect_schema", lambda: wanted)
    if is_fine:
        connect.schema(write=True)
        assert json.loads(json.loads(file.read_text())["value.converter.schema.content"]) == wanted
        said = capsys.readouterr().out
        assert says in said and "only then deploy the handler" in said
    else:
        with pytest.raises(Trouble, match=says) as caught:
            connect.schema(write=True)
        assert caught.value.next.startswith("put ") and file.read_text() == before


def produce(clicks: int, seed: int, more: dict) -> str:
    """What a changed handler would send, straight to the topic."""
    run, producer = ledger.new_run("98"), KafkaProducer(bootstrap_servers=servers.address("kafka"))
    try:
        made = [json.loads(events.encode(events.normalize(c, datetime.now(UTC)))) | more for c in traffic.readers(clicks, seed)]
        ids = [click["event_id"] for click in made]
        ledger.write(run, "posted", ids, source="test", prints={c["event_id"]: events.fingerprint(c) for c in made})
        for sent in [producer.send(topics.CLICKS, json.dumps(click).encode()) for click in made]:
            sent.get(30)
        ledger.write(run, "acknowledged", ids, source="test")
    finally:
        producer.close()
    return run


def put(schema: dict) -> None:
    config = connect.config() | {"value.converter.schema.content": json.dumps(schema)}
    requests.put(f"{servers.url('connect')}/connectors/{connect.SINK}/config", json=config, timeout=30).raise_for_status()


def test_new_and_wider_fields_land_and_a_retyped_one_fails_until_the_schema_is_put_back(pipeline):
    ledger.check("the table", old := post(20, 91), landed.sightings)
    try:
        put(changed(campaign="string", weight="int32"))
        ledger.check("the table", new := produce(20, 92, {"campaign": "spring", "weight": 7}), landed.sightings)
        put(changed(campaign="string", weight="int64"))
        ledger.check("the table", wide := produce(20, 93, {"weight": 2**40}), landed.sightings)
        rows = {row["event_id"]: (row["campaign"], row["weight"]) for row in landed.rows(["event_id", "campaign", "weight"]).to_pylist()}
        for run, values in ((old, (None, None)), (new, ("spring", 7)), (wide, (None, 2**40))):
            assert {rows[one] for one in ledger.open_run(run).acknowledged} == {values}

        put(changed(campaign="string", weight="string"))
        text = produce(20, 94, {"weight": "light"})
        servers.wait_for("the task to fail", lambda: "" if "FAILED" in {state for _, state, _ in connect.tasks()} else "it runs", 60)
    finally:
        connect.register()
    ledger.check("the table", text, landed.sightings)
    ledger.audit()
