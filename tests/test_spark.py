"""Spark on the sink's table: the same answers, and a compaction that the sink and the ledger do not notice."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clicklab import bootstrap, collector, landed, ledger, questions, traffic

# A process of its own: Spark's JVM is forked off, and this one may have used hdfs-native by now.
COMPACT = """
from clicklab import spark
session = spark.session()
done = session.sql("call lake.system.rewrite_data_files(table => 'web.clickstream', options => map('min-input-files', '2'))").first()
print("rewritten", done["rewritten_data_files_count"])
from clicklab import landed, questions
rows = landed.rows(questions.COLUMNS)
answers = questions.by_spark(session, spark.TABLE), questions.by_pandas(rows.to_pandas())
print("agreed", sum(questions.same(*(each[name] for each in answers)) for name in questions.QUESTIONS))
"""


@pytest.fixture(scope="module")
def clicks() -> pa.Table:
    """Two days of readers as rows of the table."""
    sent, _ = traffic.simulate(2, 200, seed=3)
    rows = [{"_kafka_partition": 0, "_kafka_offset": n} | {name: getattr(click, name) for name in questions.COLUMNS if hasattr(click, name)}
            for n, click in enumerate(traffic.click_of(one, "test") for one in sent)]
    made = pa.Table.from_pylist(rows)
    for name in ("timestamp", "received_at", "corrected_at"):
        made = made.set_column(made.schema.get_field_index(name), name, made[name].cast(pa.timestamp("ms", tz="UTC")))
    return made


def answers(rows: pa.Table) -> list[dict[str, pd.DataFrame]]:
    connection = duckdb.connect()
    connection.register("some_clicks", rows)
    return [questions.by_pandas(rows.to_pandas()), questions.by_duckdb(connection, "some_clicks"),
            questions.by_polars(polars.from_arrow(rows).lazy())]


def test_duckdb_polars_and_pandas_agree_to_the_last_row(clicks):
    found = answers(clicks)
    assert all(each.keys() == questions.QUESTIONS.keys() for each in found)
    assert all(questions.same(*(each[name] for each in found)) for name in questions.QUESTIONS)


def test_they_agree_where_nobody_but_bots_came(clicks):
    bots = clicks.set_column(clicks.schema.get_field_index("is_bot"), "is_bot", pa.repeat(True, clicks.num_rows))
    found = answers(bots)
    assert [questions.same(*(each[name] for each in found)) for name in questions.QUESTIONS].count(0) == 5


def test_clicks_that_were_sent_again_change_no_answer(clicks):
    offsets = pc.add(clicks["_kafka_offset"], clicks.num_rows)
    again = clicks.set_column(clicks.schema.get_field_index("_kafka_offset"), "_kafka_offset", offsets)
    once = questions.by_pandas(clicks.to_pandas())
    for found in answers(pa.concat_tables([again, clicks])):
        assert all(questions.same(once[name], found[name]) for name in once)


def test_an_answer_that_differs_in_one_row_is_refused():
    one = pd.DataFrame({"path": ["/a/", "/b/"], "views": [1, 2]})
    assert questions.same(one, one.iloc[::-1]) == 2
    with pytest.raises(AssertionError):
        questions.same(one, one.assign(views=[1, 3]))


def test_copies_are_other_clicks_and_as_many_as_asked_for(clicks, tmp_path):
    size = clicks.num_rows * 2 + 5
    questions.write_copies(clicks, size, tmp_path)
    copies = pd.read_parquet(tmp_path, columns=["event_id", *questions.PLACE])
    assert len(copies) == size == len(copies.drop_duplicates(questions.PLACE))
    assert copies["event_id"].nunique() == clicks["event_id"].to_pandas().nunique() * 2 + 5


@pytest.mark.servers
@pytest.mark.skipif(bootstrap.full_java() is None, reason="no full Java 17 or 21 on this machine")
def test_the_sink_goes_on_and_the_ledger_holds_after_a_compaction_by_spark(pipeline):
    run = ledger.new_run("97")
    for seed in (1, 2):  # two commits at least, so that there are two files to make one of
        collector.post(traffic.readers(200, seed), run, user_agent=traffic.USER_AGENT)
        ledger.check("the table", run, landed.sightings)
    before = set(landed.sightings())
    said = subprocess.run([sys.executable, "-c", COMPACT], capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr[-3000:]
    told = dict(line.split() for line in said.stdout.splitlines() if line.startswith(("rewritten", "agreed")))
    assert int(told["rewritten"]) >= 2 and int(told["agreed"]) > len(questions.QUESTIONS)
    assert landed.snapshots()["operation"].iloc[-1] == "replace"
    assert set(landed.sightings()) == before
    later = ledger.new_run("97")
    collector.post(traffic.readers(200, 3), later)
    ledger.check("the table", later, landed.sightings)
    ledger.audit()
