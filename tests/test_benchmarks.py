"""The benchmarks' writer: what it makes of measurements. The parts themselves are run by make bench."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from clicklab import Trouble, readme

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import results  # noqa: E402


@pytest.fixture
def page(monkeypatch, tmp_path) -> Path:
    file = tmp_path / "RESULTS.md"
    file.write_text("before\n<!-- produce:begin -->\nold\n<!-- produce:end -->\nafter\n")
    monkeypatch.setattr(results, "FILE", file)
    return file


def test_a_ratio_is_to_the_peer_of_the_same_round_and_size(page):
    rows = [{"size": size, "client": client, "round": round_, "per s": per_s}
            for size, round_, ours, theirs in ((10, 0, 50, 100), (10, 1, 100, 400), (2000, 0, 9, 3))
            for client, per_s in (("ours", ours), ("theirs", theirs))]
    results.write("produce", [*rows, {"size": 3, "client": "ours", "round": 0}], ["size", "client"], {"per s": ".0f"},
                  ("per s", "client", "theirs"), "A note.")
    told = readme.block(page.read_text(), "produce")
    assert "cores" in told and "2 rounds" in told and told.endswith("A note.")
    assert [line for line in told.splitlines() if line.startswith("| ") and "ours" in line] == [
        "| 3 | ours | - | - |",
        "| 10 | ours | 75 (50 to 100) | 0.38 (0.25 to 0.50) |",
        "| 2,000 | ours | 9 | 3.00 |",
    ]
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")


def test_a_part_without_a_place_is_refused(page):
    with pytest.raises(Trouble, match="no place for land"):
        results.text("land", "told")


def test_every_part_of_make_bench_has_its_place():
    root = Path(__file__).resolve().parents[1]
    parts = re.findall(r"^\t.* benchmarks/(\w+)\.py$", (root / "Makefile").read_text(), re.MULTILINE)
    assert {*parts, "results"} == {file.stem for file in (root / "benchmarks").glob("*.py")}
    for part in parts:
        readme.block((root / "benchmarks" / "RESULTS.md").read_text(), part)
