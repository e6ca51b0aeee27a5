"""The questions of notebook 05 in SQL and in pandas: Spark, DuckDB, polars and pandas answer the same. For 07 and the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicklab import traffic

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    from pyspark.sql import SparkSession

ZONE = "Asia/Seoul"
VISIT_MS = 30 * 60_000
MINUTE_MS = 60_000
INSTANTS = {"clock_ms": "timestamp", "received_ms": "received_at", "at_ms": "corrected_at"}
COLUMNS = ["event_id", "event_name", "path", "page_view_id", "seq", "session_id", "referrer", "link_url", "button", "scroll_pct",
           "engaged_ms", "timestamp", "received_at", "corrected_at", "is_bot", "_kafka_partition", "_kafka_offset"]
# How the two dialects spell "ms since 1970" and "hour of day in a zone". All else is the same SQL.
SPARK_INSTANT, SPARK_HOUR = "unix_millis({})", f"hour(from_utc_timestamp(corrected_at, '{ZONE}'))"
DUCKDB_INSTANT, DUCKDB_HOUR = "epoch_ms({})", f"hour(corrected_at at time zone '{ZONE}')"

ASKED = ["event_name", "path", "page_view_id", "seq", "session_id", "referrer", "link_url", "button", "scroll_pct", "engaged_ms", "is_bot"]
PLACE = ["_kafka_partition", "_kafka_offset"]
# The first row of each event_id, as landed.clicks keeps it.
COPY = f"row_number() over (partition by event_id order by received_at, {', '.join(PLACE)}) as copy"
CLICKS = f"select * from (select {{columns}}, {COPY} from {{source}}) as numbered where copy = 1"
# In one process memory is short, and ten million ids to number are 4 GB. So only the few rows whose id has another row are
# numbered, the hash of an id stands for it until then, and later copies are known by their place in Kafka, which is unique.
LATER = f"""
create or replace temp table later as select {', '.join(PLACE)} from (
    select {', '.join(PLACE)}, {COPY} from {{source}}
    where hash(event_id) in (select hash(event_id) from {{source}} group by hash(event_id) having count(*) > 1)) where copy > 1
"""
NOT_LATER = f"create or replace temp view clicks as select {{columns}} from {{source}} where ({', '.join(PLACE)}) not in (select * from later)"
# A sum over no rows is null in SQL and 0 in pandas: coalesce says 0 in both.
QUESTIONS = {
    "what is read": "select path, count(*) as views from clicks where event_name = 'page_view' and not is_bot group by path",
    "when": f"""
select hour_here as hour, count(*) as events, count(distinct session_id) as sessions  -- {ZONE}
from clicks where not is_bot group by hour_here""",
    "how far and how long": """
select path, count(*) as page_views, median(scroll_pct) as scroll_pct, median(engaged_ms) as engaged_ms
from (  -- one for each time that the page was hidden; the last holds the sum
    select path, max(scroll_pct) as scroll_pct, max(engaged_ms) as engaged_ms
    from clicks where event_name = 'engagement' and not is_bot group by path, page_view_id) as stay group by path""",
    "from where": """
select coalesce(referrer, '') as referrer, count(*) as views
from clicks where event_name = 'page_view' and not is_bot group by coalesce(referrer, '')""",
    "which way": f"""
select path, substring(link_url, {len(traffic.BLOG) + 1}) as next_path, count(*) as steps
from clicks where link_url like '{traffic.BLOG}/%' and button = 0 and not is_bot group by path, link_url""",
    "how many visits": f"""
select count(*) as visits from (
    select at_ms - lag(at_ms) over (partition by session_id order by at_ms) as gap_ms
    from clicks where not is_bot and session_id is not null
) as gaps where gap_ms is null or gap_ms > {VISIT_MS}""",
    "what bots change": "select event_name, is_bot, count(*) as events from clicks group by event_name, is_bot",
    "how many were lost": """
select coalesce(sum(last_seq), 0) as numbered, coalesce(sum(last_seq + 1 - arrived), 0) as lost from (
    select max(seq) as last_seq, count(*) as arrived from clicks where page_view_id is not null group by page_view_id
) as views""",
    "whose clock is wrong": f"""
select count(*) as events, coalesce(sum(case when abs(clock_ms - at_ms) > {MINUTE_MS} then 1 else 0 end), 0) as wrong
from clicks where not is_bot""",
    "how late": f"""
select cast(floor((received_ms - at_ms) / {MINUTE_MS}.0) as bigint) as minutes, count(*) as events
from clicks group by cast(floor((received_ms - at_ms) / {MINUTE_MS}.0) as bigint)""",
}


def by_spark(session: SparkSession, source: str) -> dict[str, pd.DataFrame]:
    """Every question answered by Spark; `source` is a table of a catalog, or ``parquet.`PATH` ``."""
    # Kept for all questions: else each of them finds the first rows anew.
    clicks = session.sql(CLICKS.format(source=source, columns=_columns(SPARK_INSTANT, SPARK_HOUR))).cache()
    clicks.createOrReplaceTempView("clicks")
    try:
        return {name: session.sql(sql).toPandas() for name, sql in QUESTIONS.items()}
    finally:
        clicks.unpersist()


def by_duckdb(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, pd.DataFrame]:
    """Every question answered by DuckDB; `source` is a relation, such as `read_parquet([…])`."""
    connection.execute(LATER.format(source=source))
    connection.execute(NOT_LATER.format(source=source, columns=_columns(DUCKDB_INSTANT, DUCKDB_HOUR)))
    return {name: connection.sql(sql).df() for name, sql in QUESTIONS.items()}


def by_polars(rows: pl.LazyFrame) -> dict[str, pd.DataFrame]:
    """Every question answered by polars, which understands the same SQL; `rows` is lazy, such as `pl.scan_parquet(…)`."""
    import polars as pl

    id_hash = pl.col("event_id").hash()
    twice = rows.group_by(id_hash).len().filter(pl.col("len") > 1).collect(engine="streaming")["event_id"]
    again = rows.filter(id_hash.is_in(twice.implode())).select("event_id", "received_at", *PLACE).sort("received_at", *PLACE)
    later = again.filter(~pl.col("event_id").is_first_distinct()).select(PLACE).collect()
    instants = {short: pl.col(name).dt.epoch("ms") for short, name in INSTANTS.items()}
    clicks = rows.join(later.lazy(), on=PLACE, how="anti").select(
        *ASKED, **instants, hour_here=pl.col("corrected_at").dt.convert_time_zone(ZONE).dt.hour())
    context = pl.SQLContext(clicks=clicks)
    return {name: context.execute(sql).collect(engine="streaming").to_pandas() for name, sql in QUESTIONS.items()}


def _columns(instant: str, hour: str) -> str:
    return ", ".join([*ASKED, *(f"{instant.format(name)} as {short}" for short, name in INSTANTS.items()), f"{hour} as hour_here"])


def by_pandas(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every question answered by pandas, from rows that hold `COLUMNS`."""
    first = rows.sort_values(["received_at", "_kafka_partition", "_kafka_offset"], kind="stable")
    clicks = first.drop_duplicates("event_id")
    people = clicks[~clicks["is_bot"]]
    views = people[people["event_name"] == "page_view"]
    stay = people[people["event_name"] == "engagement"].groupby(["path", "page_view_id"], as_index=False)[["scroll_pct", "engaged_ms"]].max()
    steps = people[people["link_url"].str.startswith(f"{traffic.BLOG}/").fillna(False) & (people["button"] == 0)]
    here = people["corrected_at"].dt.tz_convert(ZONE).dt.hour.rename("hour")
    ordered = people[people["session_id"].notna()].sort_values(["session_id", "corrected_at"])
    gap_ms = _ms(ordered["corrected_at"] - ordered["corrected_at"].shift())
    begins = (ordered["session_id"] != ordered["session_id"].shift()) | (gap_ms > VISIT_MS)
    per_view = clicks.groupby("page_view_id")["seq"].agg(["size", "max"])
    wrong = _ms(people["timestamp"] - people["corrected_at"]).abs() > MINUTE_MS
    minutes = (_ms(clicks["received_at"] - clicks["corrected_at"]) // MINUTE_MS).rename("minutes")
    return {
        "what is read": views.groupby("path").size().reset_index(name="views"),
        "when": people.groupby(here).agg(events=("event_name", "size"), sessions=("session_id", "nunique")).reset_index(),
        "how far and how long": stay.groupby("path").agg(page_views=("page_view_id", "size"), scroll_pct=("scroll_pct", "median"),
                                                         engaged_ms=("engaged_ms", "median")).reset_index(),
        "from where": views.groupby(views["referrer"].fillna("")).size().reset_index(name="views"),
        "which way": steps.groupby(["path", steps["link_url"].str.slice(len(traffic.BLOG)).rename("next_path")]).size()
                          .reset_index(name="steps"),
        "how many visits": pd.DataFrame({"visits": [int(begins.sum())]}),
        "what bots change": clicks.groupby(["event_name", "is_bot"]).size().reset_index(name="events"),
        "how many were lost": pd.DataFrame({"numbered": [int(per_view["max"].sum())],
                                            "lost": [int((per_view["max"] + 1 - per_view["size"]).sum())]}),
        "whose clock is wrong": pd.DataFrame({"events": [len(people)], "wrong": [int(wrong.sum())]}),
        "how late": minutes.value_counts().sort_index().reset_index(name="events"),
    }


def _ms(spans: pd.Series) -> pd.Series:
    return spans // pd.Timedelta(milliseconds=1)


def same(*answers: pd.DataFrame) -> int:
    """Compare answers to one question row by row, in whatever order their rows are; returns how many rows they have.

    Raises
    ------
    AssertionError
        Two of them differ; says where.
    """
    plain = [answer.sort_values(list(answer.columns)).reset_index(drop=True) for answer in answers]
    for other in plain[1:]:
        pd.testing.assert_frame_equal(plain[0], other, check_dtype=False)
    return len(plain[0])


def write_copies(rows: pa.Table, size: int, folder: Path) -> None:
    """Write `size` rows as Parquet files: the given ones, again and again with other ids and places, for sizes nobody has landed.

    Parameters
    ----------
    rows : Table
        Holds `COLUMNS`.
    folder : Path
        Made; holds a file for each copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-size // rows.num_rows)):
        part = rows.slice(0, size - number * rows.num_rows)
        for name in ("event_id", "page_view_id", "session_id"):
            other = pc.utf8_replace_slice(part[name], start=0, stop=8, replacement=f"{number:08x}")
            part = part.set_column(part.schema.get_field_index(name), name, other)
        places = pc.add(part["_kafka_offset"], number * (pc.max(rows["_kafka_offset"]).as_py() + 1))
        part = part.set_column(part.schema.get_field_index("_kafka_offset"), "_kafka_offset", places)
        pq.write_table(part, folder / f"{number:05}.parquet", compression="zstd")


def cpu_s() -> float:
    """CPU seconds that this process and its children, Spark's JVM among them, have used: what an answer costs.

    Unlike the time on the wall it hardly depends on what else the machine does.
    """
    mine = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (mine, *mine.children(recursive=True)))
