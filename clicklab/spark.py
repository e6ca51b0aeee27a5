"""Start Spark on the same table, on this machine. Notebook 07 calls it; the SQL it teaches stays in its cells."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from clicklab import Missing, bootstrap, servers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = "lake.web.clickstream"
MEMORY = "1g"  # of the one JVM that is driver and executor here


def settings() -> dict[str, str]:
    """What Spark is told, key by key."""
    return {
        "spark.master": "local[2]",
        "spark.driver.memory": MEMORY,
        # As for the servers: compiling less starts sooner, and two cores have little to spare.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.jars": ",".join(str(jar) for jar in sorted((bootstrap.jars_folder() / "spark").glob("*.jar"))),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": f"hdfs://{servers.address('namenode')}/warehouse",
        # Else a query sees the table as this session first saw it, while the sink goes on.
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.hadoop.dfs.replication": "1",
        "spark.hadoop.dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
        # The same wait as the sink's: a closed file is asked for after 20 ms, not 400.
        "spark.hadoop.dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "20",
        "spark.hadoop.dfs.client.block.write.locateFollowingBlock.retries": "10",
        # 200 by default: 200 tasks for a table that two can sort.
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        # Tasks would wait for a machine with the DataNode's name; there is none, and some actions wait for ever.
        "spark.locality.wait": "0s",
        "spark.sql.iceberg.locality.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(servers.state_folder() / "spark"),
    }


def session(chosen: dict[str, str] | None = None) -> SparkSession:
    """A Spark of this process, or the one that it has already.

    Call it before anything that talks to HDFS: its JVM is started by a fork, and a fork of a process in which hdfs-native
    has its threads may hang.

    Parameters
    ----------
    chosen : dict
        Keys whose values are other ones than those of `settings`.

    Raises
    ------
    Missing
        A full Java, pyspark or the jar for the table is not there.
    """
    home = bootstrap.full_java()
    if not home:
        raise Missing("Spark needs a full Java 17 or 21, which is not on this machine.",
                      "the Java from pip lacks the module jdk.incubator.vector", bootstrap.install_command(["java"]))
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise Missing("Spark is not installed.", "it is in the further lock", "make prepare-further") from None
    if not settings()["spark.jars"]:
        raise Missing("Spark's jar for the table is not here.", "it is fetched for the further notebooks only", "make prepare-further")
    os.environ |= {"JAVA_HOME": home, "SPARK_LOCAL_IP": "127.0.0.1", "HADOOP_USER_NAME": "clickstream",
                   "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    builder = SparkSession.builder.appName("clickstream")
    for key, value in (settings() | (chosen or {})).items():
        builder = builder.config(key, value)
    with _quiet_start():
        found = builder.getOrCreate()
        found.sparkContext.setLogLevel("ERROR")
    return found


@contextlib.contextmanager
def _quiet_start():
    """Keep the JVM's greeting out of a notebook: it writes to the process's own stderr, past Python."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
