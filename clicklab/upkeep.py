"""Keep the landed table in order while the sink goes on: forget a session, expire snapshots, sweep, compact.

Each change is one commit of the Hadoop catalog, as the sink makes them: a new metadata file, renamed to the next version only
where nobody was first. Killed at any moment, the table is the old one or the new one, and the same command again finishes.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import hdfs_native
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, write_file
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import FileScanTask, Table, Transaction, WriteTask
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import RemoveSnapshotsUpdate, TableUpdate, update_table_metadata
from pyiceberg.table.update.snapshot import _SnapshotProducer

from clicklab import Trouble, connect, hdfs, landed, ledger, servers, topics

OFFSETS = "kafka.connect.offsets."  # what the sink writes into a snapshot's summary: how far its control topic is committed
UNFINISHED = "/clickstream-upkeep"  # in HDFS: which files an expire was about to remove, until they are
COMMIT_TRIES = 20
KEPT_SNAPSHOTS = 10
KEPT_VERSIONS = 20  # metadata files: a reader that took the hint just now has to find the file it names
SWEEP_AGE_H = 24
LEAST_SWEEP_AGE_H = 1
SMALL_FILE_BYTES = 64 << 20  # some two million clicks; with its rows unpacked it still fits into memory
BOUND_CHARS = 16  # Iceberg keeps so much of the smallest and the largest string of a file


# --- Forget --------------------------------------------------------------------------------------------------------------

def forget(session_id: str) -> None:
    """Erase one session from the table and from every file on HDFS, and say what Kafka still holds of it.

    Readers see the table before or after, never half. Clicks go on arriving meanwhile. A reader who began before may have to
    begin again, because the files he was reading are gone.

    Parameters
    ----------
    session_id : str
        The `session_id` of the clicks, a uuid.

    Raises
    ------
    Trouble
        It is no uuid; the sink does not land what the topic has of the session; a file holds the session after all.
    """
    try:
        session = str(uuid.UUID(session_id))
    except ValueError:
        raise Trouble(f"{session_id} is no session_id.", "a session_id is a uuid, as the column session_id holds it",
                      "look it up:  landed.clicks(['session_id', 'path'])") from None
    _need_servers()
    records = [(record, click) for record in topics.records(topics.CLICKS)
               if (click := topics.decoded(record.value)).get("session_id") == session]
    ends = Counter()
    for record, _ in records:
        ends[record.partition] = max(ends[record.partition], record.offset + 1)
    _wait_until_landed(ends)
    # The ledger first: killed after this line, it names the rows that are still there instead of missing those that are not.
    ids = {click["event_id"] for _, click in records if "event_id" in click}
    _note_removed(ids | _ids_in_table(session))
    finish()
    erased = _erase_rows(session)
    expired, removed, freed_bytes = _expire(lambda table: _snapshots_with(table, session))
    strays = _strays_with(session)
    for path, size_bytes in strays:
        hdfs.client().delete(path)
        freed_bytes += size_bytes
    if held := files_with(session):
        raise Trouble(f"{len(held):,} files on HDFS still hold the session.", ", ".join(held[:10]),
                      f"the session may still be sending. Again: python -m clicklab forget {session}")
    print(f"forgot {session}: {erased:,} rows erased · {len(expired):,} snapshots expired · {removed + len(strays):,} files removed, "
          f"{freed_bytes:,} bytes · no file on HDFS holds it")
    _say_what_kafka_holds(session, records)


def files_with(session: str) -> list[str]:
    """Every file of the table on HDFS, named by a snapshot or not, that holds rows or bounds of a session: read, not believed."""
    held = [path for path, _ in hdfs.files(f"{hdfs.TABLE}/data") if path.endswith(".parquet") and _holds(path, session)]
    found = landed.table()
    # A bound is cut to its first characters, still enough to tell one session from another.
    return held + sorted({manifest.manifest_path for snapshot in found.snapshots() for manifest in snapshot.manifests(found.io)
                          if any(_bounds_name(entry.data_file, found, session)
                                 for entry in manifest.fetch_manifest_entry(found.io, discard_deleted=False))}
                         if found else ())


def _wait_until_landed(ends: dict[int, int]) -> None:
    """Wait until the table holds what the sink had read up to these offsets: what lands later would bring the session back."""
    def behind() -> str:
        read = topics.group_offsets(f"connect-{connect.SINK}")
        late = [f"partition {p} is read to {read.get(p, 0):,} of {end:,}" for p, end in ends.items() if read.get(p, 0) < end]
        return ", ".join(late)

    timeout_s, next = ledger.default_timeout_s(), "make status, then the same command again. Nothing is erased yet"
    servers.wait_for("the sink to read all of the session", behind, timeout_s, next=next)
    # Its offsets and the names of its files are written to the control topic in one transaction.
    written = max(_uncommitted(landed.table()), default=-1)

    def uncommitted() -> str:
        found = landed.table()
        if written < _committed(found):
            return ""
        if found and not sink_offsets(found):
            return "no snapshot says any more what the sink committed, another program's expire let go of it: post a click, its commit says it again"
        return f"files written and not committed: {len(_uncommitted(found)):,} announcements"

    servers.wait_for("the table to take what the sink wrote", uncommitted, timeout_s, next=next)


def _ids_in_table(session: str) -> set[str]:
    found = landed.table()
    if found is None:
        return set()
    rows = found.scan(row_filter=f"session_id == '{session}'", selected_fields=("event_id",)).to_arrow()
    return set(rows.column("event_id").to_pylist())


def _note_removed(ids: set[str]) -> None:
    for run in ledger.runs():
        if new := (ids & set(run.posted)) - run.removed:
            ledger.write(run.name, "removed", sorted(new), source="forget")


def _erase_rows(session: str) -> int:
    """Write the files of the newest snapshot that hold the session again without it, and commit them in their place."""
    erased = 0

    def plan(table: Table) -> Swaps:
        nonlocal erased
        erased, swaps = 0, []
        for old in live_files(table):
            if not (_bounds_admit(old, table, session) and _holds(old.file_path, session)):
                continue
            rows = _rows_of(table, [old])
            is_session = pc.fill_null(pc.equal(rows.column("session_id"), session), False)
            kept = rows.filter(pc.invert(is_session))
            erased += rows.num_rows - kept.num_rows
            swaps.append(([old], _write_rows(table, kept, old) if kept.num_rows else None))
        return swaps

    _swap(plan, Operation.OVERWRITE)
    return erased


def _snapshots_with(table: Table, session: str) -> list[int]:
    """Snapshots, the newest excepted, that name a file with the session or keep its bounds."""
    manifests: dict[str, bool] = {}
    files: dict[str, bool] = {}

    def names(manifest: ManifestFile) -> bool:
        if manifest.manifest_path not in manifests:
            manifests[manifest.manifest_path] = any(holds(entry) for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False))
        return manifests[manifest.manifest_path]

    def holds(entry: ManifestEntry) -> bool:
        path = entry.data_file.file_path
        if path not in files:
            files[path] = _bounds_admit(entry.data_file, table, session) and _holds(path, session)
        return files[path] or _bounds_name(entry.data_file, table, session)

    newest = table.metadata.current_snapshot_id
    return [s.snapshot_id for s in table.snapshots() if s.snapshot_id != newest and any(names(m) for m in s.manifests(table.io))]


def _strays_with(session: str) -> list[tuple[str, int]]:
    """(path, bytes) of files that no snapshot names, that hold the session and that nobody can commit any more.

    All rows of such a file were read by the sink before its last transaction, so they landed with a file that transaction
    announced; when this one is not announced, a killed worker, compaction or expire has left it.
    """
    read = topics.group_offsets(f"connect-{connect.SINK}")
    present = hdfs.files(f"{hdfs.TABLE}/data")
    found = landed.table()
    kept, announced = named(found), _announced(found)
    strays = []
    for path, size_bytes in present:
        if path in kept or path.rsplit("/", 1)[1] in announced or not path.endswith(".parquet") or not _holds(path, session):
            continue
        places = pq.read_table(path, columns=["_kafka_partition", "_kafka_offset"], filesystem=landed.filesystem())
        last = places.group_by("_kafka_partition").aggregate([("_kafka_offset", "max")]).to_pylist()
        if all(each["_kafka_offset_max"] < read.get(each["_kafka_partition"], 0) for each in last):
            strays.append((path, size_bytes))
    return strays


def _say_what_kafka_holds(session: str, records: list) -> None:
    """How many records of the session each topic still has, how to cut them off, and what that costs."""
    places = defaultdict(list)
    for record, _ in records:
        places[record.partition].append(record.offset)
    starts = topics.start_offsets(topics.CLICKS)
    print(f"topic {topics.CLICKS} still holds {len(records):,} of its records" + (":" if records else ""))
    for partition, offsets in sorted(places.items()):
        others = max(offsets) + 1 - starts.get(partition, 0) - len(offsets)
        print(f"  partition {partition}, offsets {min(offsets):,} to {max(offsets):,}; cut off with "
              f"delete_records({{TopicPartition('{topics.CLICKS}', {partition}): {max(offsets) + 1}}}): {others:,} other records go too")
    for topic in (topics.REJECTED, topics.DEAD_LETTERS):
        count = sum(session.encode() in (record.value or b"").lower() for record in topics.records(topic))
        if count:
            print(f"topic {topic} still holds {count:,} records that name it; they go with their segment, 7 to 14 days after they came")
    # What the sink announces of a file holds the smallest and the largest value of each column, strings cut.
    if count := sum(session[: BOUND_CHARS - 1].encode() in (record.value or b"") for record in topics.records(topics.CONTROL)):
        print(f"topic {topics.CONTROL} holds the first {BOUND_CHARS - 1} characters of the id in {count:,} records, as a bound of a file; it is kept forever")
    if records:
        print("Kafka cuts a partition only from its beginning: KafkaAdminClient.delete_records up to an offset, or retention.ms for all; the bytes go with the segment.\n"
              "The cost: what is cut off can be neither landed again, when the table is lost, nor counted by the ledger any more.")


# --- Expire and sweep ----------------------------------------------------------------------------------------------------

def expire(keep: int = KEPT_SNAPSHOTS) -> None:
    """Let go of old snapshots, the files only they name, and old metadata files.

    The newest `keep` stay, and every one back to the newest that carries the sink's offsets: without those a sink
    that was killed between a commit and its group's offset would commit its last files again: rows twice, or files that are gone.

    Parameters
    ----------
    keep : int
        Snapshots to keep, at least 1.
    """
    if keep < 1:
        raise Trouble(f"Keep {keep} snapshots?", "without a snapshot there is no table", "python -m clicklab expire --keep 1")
    _need_servers()
    finish()
    expired, removed, freed_bytes = _expire(lambda table: old_snapshots(table, keep))
    old = _old_versions()
    if old:
        # A hint that a killed writer left behind may name one of them.
        _put(hdfs.client(), f"{hdfs.TABLE}/metadata/version-hint.text", str(hdfs.version()).encode())
    for path, size_bytes in old:
        hdfs.client().delete(path)
        freed_bytes += size_bytes
    found = landed.table()
    print(f"{len(expired):,} snapshots expired, {len(found.snapshots()) if found else 0:,} kept · {removed:,} files only they named and "
          f"{len(old):,} old metadata files removed · {freed_bytes:,} bytes")


def old_snapshots(table: Table, keep: int) -> list[int]:
    """Ids of the snapshots that `expire` lets go."""
    # By number, not by parent: a forget lets go of parents, and their children stand alone.
    kept = {s.snapshot_id for s in sorted(table.snapshots(), key=lambda s: s.sequence_number or 0)[-keep:]}
    for snapshot in _ancestors(table):
        kept.add(snapshot.snapshot_id)
        if _offsets(snapshot):
            break
    kept |= {ref.snapshot_id for ref in table.refs().values()}
    return [s.snapshot_id for s in table.snapshots() if s.snapshot_id not in kept]


def _expire(choose: Callable[[Table], list[int]]) -> tuple[list[int], int, int]:
    """Expire snapshots; gives their ids, and how many files were removed, of how many bytes.

    What is to be removed is noted in HDFS before the commit: whoever is killed after it leaves the note, and the next one
    finishes.
    """
    chosen: list[int] = []
    note = f"{UNFINISHED}/{uuid.uuid4()}.json"

    def updates(table: Table) -> tuple[TableUpdate, ...]:
        nonlocal chosen
        chosen = choose(table)
        if not chosen:
            return ()
        kept = named(table, set(chosen))
        doomed = sorted(named(table) - kept)
        _put(hdfs.client(), note, json.dumps(doomed).encode())
        return (RemoveSnapshotsUpdate(snapshot_ids=chosen),)

    _commit(updates)
    return chosen, *finish()


def finish() -> tuple[int, int]:
    """Remove the files that expired snapshots named and no kept one does, also those of an expire that was killed.

    Returns
    -------
    (int, int)
        Files and bytes removed.
    """
    client, removed, freed_bytes = hdfs.client(), 0, 0
    for note, _ in hdfs.files(UNFINISHED):
        if not note.endswith(".json"):
            continue
        with client.read(note) as file:
            doomed = json.loads(file.read())
        # Noted, but killed before the commit: the snapshots are there, so all the files are named, and nothing goes.
        kept, sizes = named(landed.table()), dict(hdfs.files())
        for path in doomed:
            if path not in kept and path in sizes:
                client.delete(path)
                removed, freed_bytes = removed + 1, freed_bytes + sizes[path]
        client.delete(note)
    return removed, freed_bytes


def sweep(older_than_h: float = SWEEP_AGE_H) -> None:
    """Remove files that nothing names: what killed workers, compactions and expires of other programs have left.

    Never a file that the sink has announced on its control topic and not committed yet, however old; and never a young one,
    which somebody may be about to announce.

    Parameters
    ----------
    older_than_h : float
        Hours since the file was last written to, at least 1.
    """
    if older_than_h < LEAST_SWEEP_AGE_H:
        raise Trouble(f"Sweep files of {older_than_h} h?", "a younger file may belong to a commit that is under way, and the table would "
                      "name a file that is not there", f"python -m clicklab sweep --older-than-h {LEAST_SWEEP_AGE_H}")
    _need_servers()
    removed, freed_bytes = finish()
    client, oldest_ms = hdfs.client(), time.time() * 1000 - older_than_h * 3_600_000
    # In this order: what is committed after the listing is named, what is not is announced.
    present = [status for folder in (hdfs.TABLE, UNFINISHED) if hdfs.files(folder)
               for status in client.list_status(folder, True) if not status.isdir]
    found = landed.table()
    kept, announced = named(found), _announced(found)
    waiting = 0
    for status in present:
        name = status.path.rsplit("/", 1)[1]
        if status.path in kept or re.fullmatch(r"v\d+\.metadata\.json|version-hint\.text", name):
            continue
        if status.modification_time > oldest_ms or name in announced:
            waiting += 1
            continue
        client.delete(status.path)
        removed, freed_bytes = removed + 1, freed_bytes + status.length
    print(f"{removed:,} files removed that no snapshot names · {freed_bytes:,} bytes · {waiting:,} left alone: younger than "
          f"{older_than_h:g} h, or announced by the sink and not committed yet")


def _old_versions() -> list[tuple[str, int]]:
    """(path, bytes) of the metadata files that no reader can still be about to open."""
    newest, found = hdfs.version(), []
    for path, size_bytes in hdfs.files(f"{hdfs.TABLE}/metadata"):
        number = re.search(r"/v(\d+)\.metadata\.json$", path)
        if number and int(number[1]) <= newest - KEPT_VERSIONS:
            found.append((path, size_bytes))
    return found


# --- Compact -------------------------------------------------------------------------------------------------------------

def compact() -> None:
    """Write the small files of each hour into one; rows, contents and offset columns stay as they are.

    The sink goes on meanwhile. The old files stay for the snapshots that name them, until `expire`.
    """
    _need_servers()
    before = after = rows = 0

    def plan(table: Table) -> Swaps:
        nonlocal before, after, rows
        before = after = rows = 0
        swaps = []
        for group in small_files(table):
            together = _rows_of(table, group)
            swaps.append((group, _write_rows(table, together, group[0])))
            before, after, rows = before + len(group), after + 1, rows + together.num_rows
        return swaps

    _swap(plan, Operation.REPLACE)
    print(f"{before:,} small files became {after:,} · {rows:,} rows, unchanged" if after else "no hour has two small files")


def small_files(table: Table) -> list[list[DataFile]]:
    """Groups of two or more files of one hour that fit into one of SMALL_FILE_BYTES."""
    hours = defaultdict(list)
    for file in live_files(table):
        if file.file_size_in_bytes < SMALL_FILE_BYTES / 2:
            hours[tuple(file.partition)].append(file)
    groups = []
    for files in hours.values():
        group: list[DataFile] = []
        for file in files:
            if sum(f.file_size_in_bytes for f in group) + file.file_size_in_bytes > SMALL_FILE_BYTES:
                groups.append(group)
                group = []
            group.append(file)
        groups.append(group)
    return [group for group in groups if len(group) > 1]


# --- What the table names --------------------------------------------------------------------------------------------------

def live_files(table: Table) -> list[DataFile]:
    """The data files of the newest snapshot."""
    return [entry.data_file for manifest in table.current_snapshot().manifests(table.io)
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)]


def named(table: Table, without: Iterable[int] = ()) -> set[str]:
    """Every file that the table's snapshots, some left out, name: lists of manifests, manifests, data files, statistics."""
    without, paths = set(without), set()
    for snapshot in table.snapshots():
        if snapshot.snapshot_id in without:
            continue
        paths.add(_path(snapshot.manifest_list))
        for manifest in snapshot.manifests(table.io):
            if _path(manifest.manifest_path) not in paths:  # snapshots share most of them
                paths.add(_path(manifest.manifest_path))
                paths |= {_path(e.data_file.file_path) for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    return paths | {_path(each.statistics_path) for each in (*table.metadata.statistics, *table.metadata.partition_statistics)
                    if each.snapshot_id not in without}


def _path(address: str) -> str:
    return re.sub(r"^hdfs://[^/]*", "", address)


def _ancestors(table: Table) -> Iterator[Snapshot]:
    """The newest snapshot, its parent, and so on: the way the sink looks for its offsets."""
    snapshot = table.current_snapshot()
    while snapshot:
        yield snapshot
        snapshot = table.snapshot_by_id(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id else None


def _offsets(snapshot: Snapshot) -> dict[str, str]:
    """The sink's offsets that a snapshot carries; {} for one that another program made."""
    return {key: value for key, value in snapshot.summary.additional_properties.items() if key.startswith(OFFSETS)}


def sink_offsets(table: Table) -> dict[str, str]:
    """The sink's offsets as the sink finds them: those of the newest snapshot that carries some."""
    return next((found for snapshot in _ancestors(table) if (found := _offsets(snapshot))), {})


def _committed(table: Table | None) -> int:
    """The next offset of the control topic that the table does not know yet."""
    read = [json.loads(value).get("0", 0) for value in sink_offsets(table).values()] if table else []
    return max(read, default=0)


def _uncommitted(table: Table | None) -> dict[int, set[str]]:
    """Announcements of the sink's workers that the table has not taken yet: offset in the control topic → names of data files."""
    first = _committed(table)
    found = {}
    for record in topics.records(topics.CONTROL):
        # Avro keeps a string as its UTF-8 bytes, so a file's name stands in the record as it is.
        names = {name.decode() for name in re.findall(rb"[\w-]+\.parquet", record.value or b"")}
        if record.offset >= first and names:
            found[record.offset] = names
    return found


def _announced(table: Table | None) -> set[str]:
    return set().union(*_uncommitted(table).values())


# --- Rows and files --------------------------------------------------------------------------------------------------------

def _holds(path: str, session: str) -> bool:
    """Read a Parquet file's column session_id; a file without its end (still being written, or left so) has no rows yet."""
    try:
        file = pq.ParquetFile(landed.filesystem().open(_path(path)))
    except FileNotFoundError:
        return False
    except pa.ArrowInvalid:
        return False
    with file:
        if "session_id" not in file.schema_arrow.names:
            return False
        return pc.any(pc.equal(file.read(columns=["session_id"]).column(0), session)).as_py() is True


def _bounds(file: DataFile, table: Table) -> tuple[str | None, str | None]:
    """The first characters of the smallest and of the largest session_id of a file, as its manifest keeps them."""
    column = table.schema().find_field("session_id").field_id
    low, high = (bounds.get(column) if bounds else None for bounds in (file.lower_bounds, file.upper_bounds))
    return low.decode() if low is not None else None, high.decode() if high is not None else None


def _bounds_admit(file: DataFile, table: Table, session: str) -> bool:
    low, high = _bounds(file, table)
    # The upper bound was cut too and its last character raised, so it still is not below any session of the file.
    return (low is None or low <= session) and (high is None or high >= session[:len(high)])


def _bounds_name(file: DataFile, table: Table, session: str) -> bool:
    return any(bound is not None and bound[:BOUND_CHARS - 1] == session[:BOUND_CHARS - 1] for bound in _bounds(file, table))


def _rows_of(table: Table, files: list[DataFile]) -> pa.Table:
    """All rows of some data files in today's columns."""
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    rows = scan.to_table([FileScanTask(file) for file in files])
    if rows.num_rows != sum(file.record_count for file in files):
        raise Trouble("A data file does not hold the rows its manifest counts.", ", ".join(f.file_path for f in files), "make doctor")
    return rows


def _write_rows(table: Table, rows: pa.Table, like: DataFile) -> DataFile:
    """Write rows into a new data file of the same hour as another."""
    spec = table.spec()
    values = [PartitionFieldValue(field, like.partition[n]) for n, field in enumerate(spec.fields)]
    key = PartitionKey(values, spec, table.schema())
    task = WriteTask(uuid.uuid4(), 0, table.schema(), rows.to_batches(), partition_key=key)
    return next(write_file(table.io, table.metadata, iter([task])))


# --- Commit ----------------------------------------------------------------------------------------------------------------

Swaps = list[tuple[list[DataFile], DataFile | None]]  # old files, and the new one in their place; None where no row is left


def _fit(swaps: Swaps, table: Table) -> bool:
    """Whether what was written for an earlier try can be committed: all the old files are still the table's."""
    live = set(live_files(table))
    return bool(swaps) and all(live.issuperset(old) for old, _ in swaps)


def _swap(plan: Callable[[Table], Swaps], operation: Operation) -> None:
    """Commit new data files in the place of old ones.

    Parameters
    ----------
    plan : callable (table) -> Swaps
        Writes the new files. Called again when somebody else has replaced one of the old ones meanwhile.
    operation : Operation
        REPLACE where the rows stay the same, else OVERWRITE.
    """
    swaps: Swaps = []

    def updates(table: Table) -> tuple[TableUpdate, ...]:
        nonlocal swaps
        specs = {manifest.partition_spec_id for manifest in table.current_snapshot().manifests(table.io)}
        if specs != {table.spec().spec_id} or any(int(m.content) for m in table.current_snapshot().manifests(table.io)):
            raise Trouble("The table is not one that only the sink has written.", "it has delete files, or files of an earlier partitioning",
                          "compact it with Spark first: notebook 07")
        if not _fit(swaps, table):
            swaps = plan(table)
        # Without a swap there is still one to make when the newest snapshot is another program's: the older ones may have to go.
        if not swaps and (operation == Operation.REPLACE or _offsets(table.current_snapshot()) == sink_offsets(table)):
            return ()
        swap = _Swap(operation, Transaction(table), table.io, swaps)
        made, _ = swap._commit()
        return made

    _commit(updates)


class _Swap(_SnapshotProducer["_Swap"]):
    """pyiceberg's way to make a snapshot, with two differences: it carries the sink's offsets on, and keeps no value of old files."""

    def __init__(self, operation: Operation, transaction: Transaction, io: FileIO, swaps: Swaps):
        super().__init__(Operation.OVERWRITE, transaction, io)
        self._meant = operation  # pyiceberg adds up no summary for REPLACE
        for old, new in swaps:
            for file in old:
                self.delete_data_file(file)
            if new:
                self.append_data_file(new)

    def _summary(self, snapshot_properties: dict[str, str] | None = None) -> Summary:
        # The sink skips what lies before these. Copied from the parent of this very try: older ones could land clicks again.
        summary = super()._summary({**(snapshot_properties or {}), **sink_offsets(self._transaction._table)})
        return Summary(self._meant, **summary.additional_properties)

    def _existing_manifests(self) -> list[ManifestFile]:
        kept = []
        for manifest in self._transaction.table_metadata.current_snapshot().manifests(self._io):
            entries = manifest.fetch_manifest_entry(self._io, discard_deleted=False)
            live = [e for e in entries if e.status != ManifestEntryStatus.DELETED and e.data_file not in self._deleted_data_files]
            if len(live) == len(entries):
                kept.append(manifest)
            elif live:
                with self.new_manifest_writer(self.spec(manifest.partition_spec_id)) as writer:
                    for e in live:
                        writer.add_entry(ManifestEntry.from_args(
                            status=ManifestEntryStatus.EXISTING, snapshot_id=e.snapshot_id, sequence_number=e.sequence_number,
                            file_sequence_number=e.file_sequence_number, data_file=e.data_file))
                kept.append(writer.to_manifest_file())
        return kept

    def _deleted_entries(self) -> list[ManifestEntry]:
        # Named once more, so that other programs' expire finds them, but without their smallest and largest values.
        parent = self._transaction.table_metadata.current_snapshot()
        gone = [e for manifest in parent.manifests(self._io) for e in manifest.fetch_manifest_entry(self._io, discard_deleted=True)
                if e.data_file in self._deleted_data_files]
        return [ManifestEntry.from_args(
            status=ManifestEntryStatus.DELETED, snapshot_id=self.snapshot_id, sequence_number=e.sequence_number,
            file_sequence_number=e.file_sequence_number, data_file=_without_bounds(e.data_file)) for e in gone]


def _without_bounds(file: DataFile) -> DataFile:
    kept = ("content", "file_path", "file_format", "partition", "record_count", "file_size_in_bytes", "sort_order_id")
    bare = DataFile.from_args(**{name: getattr(file, name) for name in kept})
    bare.spec_id = file.spec_id
    return bare


def _commit(updates: Callable[[Table], tuple[TableUpdate, ...]]) -> None:
    """Make the next version of the table, from the newest one, until nobody else was first.

    Parameters
    ----------
    updates : callable (table) -> updates
        What to change in this version; () for nothing. Called again for each try.
    """
    client = hdfs.client()
    for attempt in range(COMMIT_TRIES):
        table = landed.table()
        if table is None:
            return
        changes = updates(table)
        if not changes:
            return
        number = int(re.search(r"v(\d+)\.metadata\.json$", table.metadata_location)[1])
        made = update_table_metadata(table.metadata, changes, metadata_location=table.metadata_location)
        if _publish(client, number + 1, made.model_dump_json().encode()):
            return
        # The sink was first. It commits every few seconds at most, so a little later there is room.
        time.sleep(0.05 * attempt)
    raise Trouble(f"The table could not be changed in {COMMIT_TRIES} tries.", "somebody else commits all the time",
                  "stop what rewrites the table, or make status, then the same command again")


def _publish(client: hdfs_native.Client, number: int, metadata: bytes) -> bool:
    """Put a metadata file in place as version `number`; False when there is one already. The hint comes after."""
    folder = f"{hdfs.TABLE}/metadata"
    draft, final = f"{folder}/{uuid.uuid4()}.metadata.json", f"{folder}/v{number}.metadata.json"
    with client.create(draft) as file:
        file.write(metadata)
    try:
        client.rename(draft, final)
    except (FileExistsError, FileNotFoundError):
        # Asked twice after a restart of the NameNode, the second answer is no although the first one was carried out.
        with client.read(final) as file:
            if file.read() != metadata:
                client.delete(draft)
                return False
    _put(client, f"{folder}/version-hint.text", str(number).encode())
    return True


def _put(client: hdfs_native.Client, path: str, data: bytes) -> None:
    """Write a small file of HDFS whole: nobody sees half of it."""
    draft = f"{path}.{uuid.uuid4()}.draft"
    with client.create(draft) as file:
        file.write(data)
    client.rename(draft, path, overwrite=True)


def _need_servers() -> None:
    for name in ("kafka", "datanode"):
        if reason := servers.reason_not_usable(name):
            raise Trouble(f"{name} is not usable.", reason, "make up")
    if landed.table() is None:
        raise Trouble("There is no table yet.", "the sink has not committed a snapshot", "run notebook 04, which registers the sink")
