"""Write what a benchmark has measured into RESULTS.md, between the markers of its name. All parts share this writer."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median

import psutil

from clicklab import readme

FILE = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    """What the figures were measured on, and how busy it was; more than one process a core blurs all but ratios."""
    return (f"{date.today()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()} "
            f"{platform.machine()}, Python {platform.python_version()}; load {psutil.getloadavg()[2]:.1f} in the last 15 min.")


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and the largest when there are several; "-" for what was not measured."""
    if len(values) < 2:
        return format(values[0], form) if values else "-"
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def write(part: str, rows: list[dict], keys: Sequence[str], measures: dict[str, str], ratio: tuple[str, str, str], note: str = "") -> None:
    """Write a part's table: a line for each combination of `keys`, each measure as the median of its rounds and their spread.

    Parameters
    ----------
    rows : list of dict
        What was measured: `keys`, `round`, and those of the measures that it has.
    measures : dict
        Name, which is the column's heading too → how a number is written, such as ",.0f".
    ratio : (measure, key, peer)
        The last column: that measure, divided by that of the row of the same round whose key is the peer.
    note : str
        A sentence for below the table.
    """
    measure, key, peer = ratio
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in keys), []).append(row)
    peers = {tuple(row[name] for name in ("round", *keys) if name != key): row[measure] for row in rows if row[key] == peer and measure in row}
    headings = [*keys, *measures, f"{measure}, ratio to {peer}"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(keys) + "---:|" * (len(measures) + 1)]
    for group, mine in sorted(groups.items()):
        ratios = [row[measure] / there for row in mine
                  if measure in row and (there := peers.get(tuple(row[name] for name in ("round", *keys) if name != key)))]
        lines.append("| " + " | ".join([*(f"{value:,}" if isinstance(value, int) else value for value in group),
                                        *(spread([row[name] for row in mine if name in row], form) for name, form in measures.items()),
                                        spread(ratios, ".2f")]) + " |")
    rounds = len({row["round"] for row in rows})
    text(part, f"{machine()} {rounds} round{'s' * (rounds > 1)}: the median" + (" (smallest to largest)" * (rounds > 1))
         + ".\n\n" + "\n".join(lines) + (f"\n\n{note}" if note else ""))


def text(part: str, told: str) -> str:
    """Put Markdown between the markers of a part; returns it."""
    FILE.write_text(readme.with_block(FILE.read_text(), part, told))
    return told
