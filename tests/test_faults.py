"""Servers are broken while clicks are produced, and injected defects are put before the ledger: it names id and hop."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
import pyarrow as pa
import pytest
from clickstream_ingest import events
from conftest import run_clicklab

from clicklab import Trouble, collector, faults, landed, ledger, topics, traffic

QUICK = ["connect-kill", "kafka-kill", "namenode-down-3s", "ingest-kill", "poison", "hdfs-full"]


@pytest.mark.servers
@pytest.mark.parametrize("name", QUICK)
def test_what_has_to_hold_holds(pipeline, name):
    faults.drill(name, clicks=5000, seed=1)


@pytest.mark.drills
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name != "everything"])
def test_what_has_to_hold_holds_three_times(pipeline, name, seed):
    faults.drill(name, clicks=5000, seed=seed)


@pytest.mark.drills
def test_every_server_killed_at_random_for_ten_minutes_loses_and_doubles_nothing(pipeline):
    faults.drill("everything", clicks=200_000, seed=1, rounds=round(600 / faults.FAULTS["everything"].lasts_s))


def test_an_unknown_drill_is_refused_and_the_list_says_what_there_is():
    with pytest.raises(Trouble, match="There is no drill comet") as caught:
        faults.drill("comet", clicks=1, seed=1)
    assert "drill --list" in caught.value.next
    said = run_clicklab("drill", "--list").stdout
    assert all(name in said and fault.expected in said for name, fault in faults.FAULTS.items())
    assert "page cache" in said, "what cannot hold is named with its bound"


# --- Injected defects, in what the real hops hold ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def real(pipeline):
    """A run of real clicks that have landed; the topic's records and the table's rows since it began."""
    run = ledger.new_run("99")
    collector.post(traffic.readers(300, 9), run, user_agent=traffic.USER_AGENT)
    ledger.check("the table", run, landed.sightings)
    posted = ledger.open_run(run)
    rows = landed.rows(since_ms=posted.since_ms)
    return posted, list(topics.records(topics.CLICKS, posted.since_ms)), rows.to_pylist(), rows.schema


class Hop:
    """A hop that shows what it really holds, but for one click."""

    def __init__(self, name: str, real, monkeypatch):
        self.name, (self.run, records, rows, self.schema), self.patch = name, real, monkeypatch
        self.victim = sorted(self.run.acknowledged)[7]
        in_topic = [(record, topics.decoded(record.value)) for record in records]
        self.held = in_topic if name == "the topic" else [(row, row) for row in rows]
        self.seen_at = topics.sightings if name == "the topic" else landed.sightings

    def show(self, change: Callable[[dict], list[dict]]) -> None:
        """Let the hop show `change(click)` in place of the victim."""
        shown = []
        for held, click in self.held:
            if click.get("event_id") != self.victim:
                shown.append(held)
            elif self.name == "the topic":
                shown += [held._replace(value=msgspec.json.encode(new)) for new in change(click)]
            else:
                shown += change(click)
        if self.name == "the topic":
            self.patch.setattr(topics, "records", lambda topic, since_ms=0: iter(shown))
        else:
            table = pa.Table.from_pylist(shown, schema=self.schema)
            self.patch.setattr(landed, "_read", lambda found, columns, since_ms, until_ms=None: table.select(list(columns)))

    def error(self) -> ledger.LedgerError:
        with pytest.raises(ledger.LedgerError) as caught:
            ledger.check(self.name, self.run, self.seen_at, timeout_s=0)
        assert caught.value.hop == self.name
        return caught.value


@pytest.fixture(params=["the topic", "the table"])
def hop(request, real, monkeypatch) -> Hop:
    return Hop(request.param, real, monkeypatch)


@pytest.mark.servers
def test_one_dropped_click_is_named(hop):
    hop.show(lambda click: [])
    error = hop.error()
    assert error.lost == {hop.victim} and not (error.strangers or error.changed or error.repeated or error.too_often)


@pytest.mark.servers
def test_one_doubled_click_is_named(hop):
    hop.show(lambda click: [click, click])
    error = hop.error()
    assert len(error.repeated) == 1 and not (error.lost or error.strangers or error.changed)


@pytest.mark.servers
def test_one_altered_id_is_named_as_lost_and_as_a_stranger(hop):
    stranger = str(uuid.uuid4())
    hop.show(lambda click: [click | {"event_id": stranger}])
    error = hop.error()
    assert (error.lost, error.strangers) == ({hop.victim}, {stranger}) and not (error.changed or error.repeated)


@pytest.mark.servers
@pytest.mark.parametrize("field", [name for name in events.FROM_CLIENT if name != "event_id"])
def test_one_altered_value_is_named(hop, field):
    hop.show(lambda click: [click | {field: other(click.get(field), hop.schema.field(field).type)}])
    error = hop.error()
    assert error.changed == {hop.victim} and not (error.lost or error.strangers or error.repeated)


def other(value, kind: pa.DataType):
    """Another value of a field's kind; one for none."""
    if pa.types.is_boolean(kind):
        return not value
    if pa.types.is_string(kind):
        return f"{value or ''}x"
    return value + 1 if isinstance(value, int) else 7 if value is None else value.replace(year=value.year - 1)


@pytest.mark.servers
def test_a_dropped_and_a_doubled_row_do_not_make_up_for_each_other(real, monkeypatch):
    run, lost, doubled = real[0], *sorted(real[0].acknowledged)[:2]
    rows = landed.rows()
    shown = [row for row in rows.to_pylist() for _ in range({lost: 0, doubled: 2}.get(row["event_id"], 1))]
    assert len(shown) == len(rows)
    table = pa.Table.from_pylist(shown, schema=rows.schema)
    monkeypatch.setattr(landed, "_read", lambda found, columns, since_ms, until_ms=None: table.select(list(columns)))
    for compare in (lambda: ledger.check("the table", run, landed.sightings, timeout_s=0), lambda: ledger.audit(timeout_s=0)):
        with pytest.raises(ledger.LedgerError) as caught:
            compare()
        error = caught.value
        assert (error.hop, error.lost, len(error.repeated)) == ("the table", {lost}, 1)


@pytest.mark.servers
def test_watch_shows_clicks_at_each_hop_the_servers_and_the_task(real):
    said = run_clicklab("watch", "--seconds", "1", COLUMNS="120").stdout
    assert f"{sum(topics.end_offsets(topics.CLICKS).values()):,}" in said and f"{len(landed.rows(['event_id'])):,}" in said
    assert "newest snapshot" in said and "sink, task 0" in said and "RUNNING" in said and "guard:" in said
