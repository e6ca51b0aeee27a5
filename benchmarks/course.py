"""Write down what the course weighs: the snippet's bytes, the servers' start and memory, and how long it takes, beside its limits.

    .venv/bin/python benchmarks/course.py

Measures the snippet as a published page has it, and the running servers; the seconds are those of the last `make run`.
"""

from __future__ import annotations

import gzip
import json
import re
import tempfile

import results

from clicklab import blog, course, servers


def snippet_bytes() -> int:
    """The snippet of a published page, gzipped."""
    with tempfile.TemporaryDirectory() as folder:
        page = blog.build(folder, production=True, endpoint="https://a1b2c3d4e5.execute-api.ap-northeast-2.amazonaws.com/ingest") / "index.html"
        return len(gzip.compress(re.search(r"<script data-endpoint.*?</script>", page.read_text(), re.DOTALL)[0].encode()))


def main() -> None:
    found, missing = [("snippet as published, gzipped, B", snippet_bytes(), 2048)], []
    if (started := servers.state_folder() / "run" / "up.json").exists():
        up = json.loads(started.read_text())
        how, limit_s = (" the first time, with formatting", 25) if up["first_time"] else ("", 10)
        memory_mb = sum(row["memory MB"] for row in servers.status() if row["server"] in ("namenode", "datanode", "kafka", "connect"))
        found += [(f"servers usable{how}, s", up["seconds"], limit_s), ("broker, Connect and HDFS together, MB", memory_mb, 1229)]
    else:
        missing.append("the servers (make up)")
    numbers = [notebook.number for notebook in course.manifest() if not notebook.is_further]
    run = json.loads(ran.read_text()) if (ran := course.build_folder() / "run.json").exists() else {"notebooks": {}}
    if set(numbers) <= set(run["notebooks"]):
        found.append((f"notebooks {numbers[0]} to {numbers[-1]}, s", sum(run["notebooks"][number]["seconds"] for number in numbers), 180))
    else:
        missing.append("the whole course (make run)")
    lines = ["| what | measured | limit | ratio to the limit |", "|---|---:|---:|---:|"]
    lines += [f"| {what} | {value:,.0f} | {limit:,} | {value / limit:.2f} |" for what, value, limit in found]
    print(results.text("course", f"{results.machine()}\n\n" + "\n".join(lines) + (f"\n\nNot measured: {', '.join(missing)}." if missing else "")))


if __name__ == "__main__":
    main()
