"""The notebooks' prose in Korean: `notebooks/ko/`, a file a notebook, each piece under the hash of the English cell it translates.

A cell that is edited has another hash, so its translation is reported as out of date instead of telling the old lesson.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from clicklab import course

FOLDER = course.NOTEBOOKS / "ko"
MARKER = re.compile(r"^<!-- cell ([0-9a-f]{10}) -->\n", re.MULTILINE)


def key(source: str) -> str:
    """What a translation is kept under: the first ten digits of the SHA-256 of the cell's English text."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:10]


def pieces(notebook: course.Notebook) -> dict[str, str]:
    """Hash of the English cell → its Korean, in the file's order; empty when there is no file yet."""
    file = file_of(notebook)
    if not file.exists():
        return {}
    _, *parts = MARKER.split(file.read_text(encoding="utf-8"))
    return {digits: text.strip() for digits, text in zip(parts[::2], parts[1::2], strict=True)}


def file_of(notebook: course.Notebook) -> Path:
    return FOLDER / notebook.path.with_suffix(".md").name


def prose(cells: list[Any]) -> list[str]:
    """The English texts that need a translation, in their order. The links to the neighbors come from course.toml."""
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown" and cell.get("id") != course.NEIGHBORS]


def report() -> list[str]:
    """A line for each piece that is missing, out of date or out of order; empty when the Korean course is complete."""
    lines = []
    for notebook in course.manifest():
        english, korean = prose(course.cells(notebook)), pieces(notebook)
        wanted = [key(text) for text in english]
        found = [f"{file_of(notebook).name}: not translated: cell {digits}, {text.strip().splitlines()[0][:60]!r}"
                  for digits, text in zip(wanted, english, strict=True) if digits not in korean]
        found += [f"{file_of(notebook).name}: out of date: cell {digits}, which no English cell has" for digits in korean if digits not in wanted]
        if not found and list(korean) != list(dict.fromkeys(wanted)):
            found.append(f"{file_of(notebook).name}: its pieces are in another order than the notebook's cells")
        lines += found
    return lines


def translate(notebook: course.Notebook, content: Any) -> Any:
    """Put the Korean in place of the English in a notebook (nbformat's, executed or not); what has none stays English."""
    korean = pieces(notebook)
    for cell in content.cells:
        if cell.cell_type != "markdown":
            continue
        if cell.get("id") == course.NEIGHBORS:
            cell.source = course.neighbors(notebook, "ko")
        else:
            cell.source = korean.get(key(cell.source), cell.source)
    return content
