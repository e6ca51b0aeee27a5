"""HDFS as plain calls, and where the table lies on it. Loads in an instant: each start of the servers needs it, and no pandas."""

from __future__ import annotations

import os
import re

import hdfs_native

from clicklab import servers

WAREHOUSE = "/warehouse"
TABLE = f"{WAREHOUSE}/web/clickstream"
os.environ.setdefault("HADOOP_USER_NAME", "clickstream")


def client() -> hdfs_native.Client:
    """HDFS as plain calls: list, read, create."""
    return hdfs_native.Client(f"hdfs://{servers.address('namenode')}", {"dfs.replication": "1"})


def files(folder: str = TABLE) -> list[tuple[str, int]]:
    """(path, bytes) of each file below a folder of HDFS; [] when the folder is not there.

    Not all of them are landed: a file counts from the snapshot that names it.
    """
    try:
        return sorted((status.path, status.length) for status in client().list_status(folder, True) if not status.isdir)
    except FileNotFoundError:
        return []


def version(table: str = TABLE) -> int:
    """Number of a table's newest metadata file; 0 before the sink's first commit makes the table."""
    hdfs = client()
    try:
        with hdfs.read(f"{table}/metadata/version-hint.text") as hint:
            newest = int(hint.read())
    except FileNotFoundError:
        # Absent for a moment at each commit, and after a kill in that moment. Old metadata files are removed in time.
        there = (re.search(r"/v(\d+)\.metadata\.json$", path) for path, _ in files(f"{table}/metadata"))
        newest = max((int(found[1]) for found in there if found), default=0)
    # The hint is written after the commit, so it can be behind.
    while _exists(hdfs, f"{table}/metadata/v{newest + 1}.metadata.json"):
        newest += 1
    return newest


def _exists(hdfs: hdfs_native.Client, path: str) -> bool:
    try:
        hdfs.get_file_info(path)
    except FileNotFoundError:
        return False
    return True
