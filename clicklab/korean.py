"""The notebooks' prose in Korean: `notebooks/ko/`, a file a notebook, each piece under the hash of the English cell it translates.

A cell that is edited has another hash, so its translation is reported as out of date instead of telling the old lesson.
What the exercises' checkers say is in `notebooks/ko/exercises.toml`, under the English itself: `words` looks it up.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import string
import tomllib
from pathlib import Path
from typing import Any

from clicklab import course, servers

FOLDER = course.NOTEBOOKS / "ko"
MESSAGES = FOLDER / "exercises.toml"
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


def words(english: str, *values: object) -> str:
    """A message of the exercises with its values, as str.format puts them in; in Korean with SITE_LANG=ko, if it is translated."""
    korean = os.environ.get("EXERCISES_LANG", servers.setting("SITE_LANG")) == "ko"
    text = messages().get(english, english) if korean else english
    return text.format(*values) if values else text


@functools.cache
def messages() -> dict[str, str]:
    """English → Korean of what the checkers say; empty when there is no file."""
    return tomllib.loads(MESSAGES.read_text(encoding="utf-8")) if MESSAGES.exists() else {}


def said_in_english() -> set[str]:
    """The messages that clicklab/exercises.py gives to `words`."""
    calls = ast.walk(ast.parse(Path(__file__).with_name("exercises.py").read_text(encoding="utf-8")))
    return {node.args[0].value for node in calls if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "words"}


def fields(message: str) -> list[str]:
    """What a message shows of its values and how, in the values' order: `{1:,} of {0}` gives the same as `{} in {:,}`."""
    found = [(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(message) if name is not None]
    return [f"{name or number}!{conversion}:{form}" for number, (name, form, conversion) in
            sorted(enumerate(found), key=lambda one: int(one[1][0] or one[0]))]


def report_messages() -> list[str]:
    """A line for each message of a checker that is missing or out of date, or whose Korean shows other values."""
    english, korean = said_in_english(), messages()
    lines = [f"{MESSAGES.name}: not translated: {text!r}" for text in sorted(english - korean.keys())]
    lines += [f"{MESSAGES.name}: out of date: {text!r}, which no checker says" for text in korean if text not in english]
    # Without values nothing is put in, and braces are braces.
    return lines + [f"{MESSAGES.name}: other values than in {text!r}" for text, other in korean.items()
                    if "{%" not in text and fields(text) != fields(other)]


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
    return lines + report_messages()


def translate(notebook: course.Notebook, content: Any) -> Any:
    """Put the Korean in place of the English in a notebook (nbformat's, executed or not); what has none stays English."""
    korean = pieces(notebook)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            # An executed notebook's exercises are untouched, and all that they print is a hint.
            untouched, yet, hint = output.get("text", "").partition("Not answered yet. ")
            if yet and not untouched:
                output.text = messages().get("Not answered yet. {}", yet + "{}").format(messages().get(hint.strip(), hint.strip())) + "\n"
        if cell.cell_type != "markdown":
            continue
        if cell.get("id") == course.NEIGHBORS:
            cell.source = course.neighbors(notebook, "ko")
        else:
            cell.source = korean.get(key(cell.source), cell.source)
    return content
