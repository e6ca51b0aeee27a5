"""Read what has landed: the newest committed snapshot of the table on HDFS. Notebooks 04 and 05 call it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
from clickstream_ingest import events
from hdfs_native.fsspec import HdfsFileSystem
from pyiceberg.expressions import AlwaysTrue, And, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.io.fsspec import FsspecFileIO
from pyiceberg.table import StaticTable

from clicklab import Trouble, hdfs, servers
from clicklab.topics import Sighting

PLACE = ["_kafka_topic", "_kafka_partition", "_kafka_offset"]


class HdfsFileIO(FsspecFileIO):
    """pyiceberg's door to HDFS: it knows S3, GCS and local files by itself, but not `hdfs://`."""

    def __init__(self, properties: dict):
        super().__init__(properties)
        self._scheme_to_fs["hdfs"] = lambda _: filesystem()


def filesystem() -> HdfsFileSystem:
    """HDFS as an fsspec file system: what `pd.read_parquet(…, filesystem=…)` and DuckDB take."""
    host, port = servers.address("namenode").split(":")
    return HdfsFileSystem(host=host, port=int(port))


def table(place: str = hdfs.TABLE) -> StaticTable | None:
    """The table (by default the clicks') at its newest snapshot; None while there is none.

    `.inspect.snapshots()` and `.inspect.files()` list what it is made of.
    """
    newest = hdfs.version(place)
    if not newest:
        return None
    properties = {"py-io-impl": f"{HdfsFileIO.__module__}.{HdfsFileIO.__name__}"}
    metadata = f"hdfs://{servers.address('namenode')}{place}/metadata/v{newest}.metadata.json"
    found = StaticTable.from_metadata(metadata, properties=properties)
    return found if found.current_snapshot() else None


def snapshots() -> pd.DataFrame:
    """The table's snapshots, oldest first: `committed_at` (UTC), `operation`, `added_rows`, `added_files`."""
    found = table()
    if found is None:
        return pd.DataFrame(columns=["committed_at", "operation", "added_rows", "added_files"])
    return pd.DataFrame([{
        "committed_at": pd.Timestamp(snapshot.timestamp_ms, unit="ms", tz="UTC"),
        "operation": snapshot.summary.operation.value,
        "added_rows": int(snapshot.summary["added-records"] or 0),
        "added_files": int(snapshot.summary["added-data-files"] or 0),
    } for snapshot in found.snapshots()])


def rows(columns: Iterable[str] = ("*",), since_ms: int = 0) -> pa.Table:
    """Every landed row, as often as it is there.

    Parameters
    ----------
    columns : iterable of str
        Only these are read from HDFS. Default all.
    since_ms : int
        Only rows received at or after this instant (ms since 1970 UTC); whole hours before it are not even opened.

    Raises
    ------
    Trouble
        Nothing has landed yet.
    """
    found = table()
    if found is None:
        raise Trouble("Nothing has landed yet.", "the sink has not committed a snapshot",
                      "run notebook 04, which registers the sink, or wait for one commit interval")
    return _read(found, columns, since_ms)


def _read(found: StaticTable, columns: Iterable[str], since_ms: int, until_ms: int | None = None) -> pa.Table:
    def instant(at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()

    chosen = GreaterThanOrEqual("received_at", instant(since_ms)) if since_ms else AlwaysTrue()
    if until_ms is not None:
        chosen = And(chosen, LessThanOrEqual("received_at", instant(until_ms)))
    return found.scan(row_filter=chosen, selected_fields=tuple(columns)).to_arrow()


def clicks(columns: Iterable[str] = ("*",), since_ms: int = 0) -> pd.DataFrame:
    """The landed clicks as a DataFrame: the first row of each event_id, in the order they were received.

    A click that was sent again after a 503 may be in the topic twice; it is one click. With `since_ms` the first row from then
    on counts, so a click sent again across that moment is there by its second row.

    Parameters
    ----------
    columns, since_ms
        As for `rows`. `event_id` and the place in Kafka are read besides, to tell the first row.

    Returns
    -------
    DataFrame, shape (clicks, columns)
        Instants are timezone-aware, UTC.
    """
    wanted = list(columns)
    extra = ["event_id", "received_at", *PLACE[1:]]
    read = ["*"] if wanted == ["*"] else list(dict.fromkeys([*wanted, *extra]))
    frame = rows(read, since_ms).to_pandas()
    frame = frame.sort_values(["received_at", *PLACE[1:]]).drop_duplicates("event_id").reset_index(drop=True)
    return frame if wanted == ["*"] else frame[wanted]


def arrivals(since_ms: int = 0) -> pd.DataFrame:
    """When each row landed: `event_id`, and `committed_ms` of the snapshot that added its file (ms since 1970 UTC).

    Parameters
    ----------
    since_ms : int
        Only rows of snapshots committed at or after this instant; older files are not opened.
    """
    found, columns = table(), ["event_id", "committed_ms"]
    if found is None:
        return pd.DataFrame(columns=columns)
    committed = {s.snapshot_id: s.timestamp_ms for s in found.snapshots() if s.timestamp_ms >= since_ms}
    frames = []
    for manifest in found.current_snapshot().manifests(found.io):
        # Small manifests are merged into newer ones, and each entry keeps the snapshot that added its file.
        for entry in manifest.fetch_manifest_entry(found.io) if manifest.added_snapshot_id in committed else []:
            if entry.snapshot_id in committed:
                rows = pd.read_parquet(entry.data_file.file_path, columns=["event_id"], filesystem=filesystem())
                frames.append(rows.assign(committed_ms=committed[entry.snapshot_id]))
    return pd.concat(frames).sort_values("committed_ms", ignore_index=True) if frames else pd.DataFrame(columns=columns)


def sightings(since_ms: int = 0) -> list[Sighting]:
    """What the ledger compares: id, place and fingerprint of each landed row; [] while there is no table."""
    found = table()
    if found is None:
        return []
    present = set(found.schema().column_names)
    read = [name for name in (*sorted(events.FROM_CLIENT), *PLACE[1:]) if name in present]
    return [Sighting(row["event_id"], row["_kafka_partition"], row["_kafka_offset"], events.fingerprint(row))
            for row in plain(_read(found, read, since_ms))]


def event_ids(since_ms: int = 0, until_ms: int | None = None) -> set[str]:
    """The ids of the rows received between two instants (ms since 1970 UTC), where contents do not matter; default all.

    Empty while there is no table.
    """
    found = table()
    return set(_read(found, ["event_id"], since_ms, until_ms)["event_id"].to_pylist()) if found else set()


def plain(data: pa.Table) -> list[dict]:
    """Rows as the topic spells them: instants as ms since 1970 UTC, so that both sides compare."""
    for number, field in enumerate(data.schema):
        if pa.types.is_timestamp(field.type):
            ms = data.column(number).cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
            data = data.set_column(number, field.name, ms)
    return data.to_pylist()
