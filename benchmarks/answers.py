"""Time all questions of notebook 05 against the size, for pandas, polars, DuckDB and Spark; writes answers.csv and RESULTS.md.

    .venv/bin/python benchmarks/answers.py [--largest 10000000] [--rounds 3] [--engines pandas polars duckdb spark]

Each measurement is a process of its own, so that its peak memory is its own. The clicks are simulated ones, copied with other
ids, in local Parquet files: reading over HDFS is measured in notebook 07.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import results

from clicklab import questions, servers, traffic

HERE = Path(__file__).parent
ENGINES = ("pandas", "polars", "duckdb", "spark")
BASE = 100_000
LARGE = 1_000_000
# Above that, the memory that the others may have, and both of Java's compilers: the notebook's Spark is one for its own sizes,
# and would do little but collect garbage.
LARGE_SPARK = {"spark.driver.memory": "3g", "spark.driver.extraJavaOptions": "-XX:+UseSerialGC"}
TIMEOUT_S = 1200
# pandas takes about 2 GB a million clicks: where that is more than the machine has free, it is left out and said so.
PANDAS_BYTES_A_ROW = 2000


def folder(rows: int) -> Path:
    return servers.build_folder() / "bench" / str(rows)


def make(rows: int) -> Path:
    """Write `rows` clicks as Parquet: `BASE` simulated ones, again and again with other ids."""
    place = folder(rows)
    if not (place / "done").exists():
        questions.write_copies(simulated().slice(0, min(rows, BASE)), rows, place / "files")
        (place / "done").touch()
    return place / "files"


def simulated() -> pa.Table:
    """`BASE` clicks of simulated readers with the table's types; their place in Kafka is made up."""
    sent, _ = traffic.simulate(28, 9000, seed=1)
    made = pa.Table.from_pylist([{"_kafka_partition": number % 3, "_kafka_offset": number}
                                 | {name: getattr(click, name) for name in questions.COLUMNS if hasattr(click, name)}
                                 for number, click in enumerate(traffic.click_of(one, "bench") for one in sent[:BASE])])
    for name in ("timestamp", "received_at", "corrected_at"):
        made = made.set_column(made.schema.get_field_index(name), name, made[name].cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("us", tz="UTC")))
    return made


def measure(engine: str, place: Path) -> dict[str, float]:
    """Answer all questions once, in this process: start-up, wall and CPU seconds, peak MB."""
    started = time.monotonic()
    pattern = str(place / "*.parquet")
    if engine == "spark":
        from clicklab import spark

        session = spark.session(LARGE_SPARK if int(place.parent.name) > LARGE else None)
        session.sql("select 1").collect()
    elif engine == "polars":
        import polars as pl
    elif engine == "duckdb":
        import duckdb

        connection = duckdb.connect(config={"threads": 2})
    ready = time.monotonic()
    used_s = questions.cpu_s()
    if engine == "pandas":
        questions.by_pandas(pq.read_table(place, columns=questions.COLUMNS).to_pandas())
    elif engine == "polars":
        questions.by_polars(pl.scan_parquet(pattern))
    elif engine == "duckdb":
        questions.by_duckdb(connection, f"read_parquet('{pattern}')")
    else:
        questions.by_spark(session, f"parquet.`{place}`")
    done = time.monotonic()
    used_s = questions.cpu_s() - used_s
    # Not getrusage: its peak is inherited from the process that started this one.
    peak_bytes = sum(_peak_bytes(pid) for pid in (os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))))
    return {"start_s": ready - started, "wall_s": done - ready, "cpu_s": used_s, "peak_mb": peak_bytes / 2**20}


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=1_000_000, help="rows; sizes are 10,000 and ten times more, up to it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FOLDER"), help="measure once and print JSON (used by itself)")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one[0], Path(chosen.one[1]))))
        return
    sizes = [10**power for power in range(4, 9) if 10**power <= chosen.largest]
    rows, left_out = [], []
    for size in sizes:
        place = make(size)
        for round_ in range(chosen.rounds):
            for engine in chosen.engines:
                if engine == "pandas" and size * PANDAS_BYTES_A_ROW > psutil.virtual_memory().available * 0.7:
                    left_out.append(f"pandas at {size:,} is left out: it would need about {size * PANDAS_BYTES_A_ROW / 1e9:.0f} GB.")
                    continue
                # In turns, so that a busy minute does not meet one of them only.
                ran = subprocess.run([sys.executable, __file__, "--one", engine, str(place)], capture_output=True, text=True,
                                     timeout=TIMEOUT_S)
                if ran.returncode:
                    sys.exit(f"{engine} at {size:,} rows failed:\n{ran.stderr[-2000:]}")
                found = json.loads(ran.stdout.splitlines()[-1])
                rows.append({"rows": size, "engine": engine, "round": round_, **{k: round(v, 3) for k, v in found.items()}})
                print(rows[-1], flush=True)
                write_results(rows, left_out)  # after each: the largest takes longest, and may be given up


def write_results(rows: list[dict], left_out: list[str]) -> None:
    """Write all measurements to answers.csv, which notebook 07 draws, and their medians into RESULTS.md."""
    with open(HERE / "answers.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    named = [{"clicks": row["rows"], "engine": row["engine"], "round": row["round"], "wall s": row["wall_s"], "CPU s": row["cpu_s"],
              "peak MB": row["peak_mb"], "start-up s": row["start_s"]} for row in rows]
    costs = pd.DataFrame(rows).groupby(["rows", "engine"])["cpu_s"].median().unstack()
    if BASE in costs.index and (largest := costs.index[-1]) > BASE:
        grown = (costs.loc[largest] / costs.loc[BASE]).dropna()
        left_out = [*left_out, f"From {BASE:,} clicks to {largest:,}, {largest // BASE:,} times as many, CPU seconds grow: "
                    + ", ".join(f"{engine} {times:.0f} times" for engine, times in grown.items()) + "."]
    results.write("answers", named, ["clicks", "engine"], {"wall s": ".1f", "CPU s": ".2f", "peak MB": ",.0f", "start-up s": ".1f"},
                  ("CPU s", "engine", "duckdb"), " ".join(dict.fromkeys(left_out)))


if __name__ == "__main__":
    main()
