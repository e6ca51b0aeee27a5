"""The notebooks' exercises as a test runs them: untouched, with a wrong answer, and with the solution that the notebook shows."""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat

from clicklab import course

WRONG = Path(__file__).with_name("wrong_answers.toml")
# The block of Python in the text above the exercise's cell.
SHOWN = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n.*</details>", re.DOTALL)
TAG = "exercise"


@dataclass
class Exercise:
    """One exercise: its text, its cell, and where they are in the notebook (`04.2`)."""

    name: str
    text: str
    cell: str

    @property
    def solution(self) -> str | None:
        """The code in the text's collapsed solution."""
        shown = SHOWN.search(self.text)
        return shown[1] if shown else None

    @property
    def checker(self) -> str:
        """The last line of the cell, which judges the answer above it."""
        return self.cell.strip().splitlines()[-1]


@dataclass
class Judgment:
    """What the checker said to each of the three, and what it has to tell about the wrong one."""

    name: str
    hint: str
    untouched: str
    wrong: str
    solution: str


def exercises(notebook: course.Notebook) -> list[Exercise]:
    """Those of a notebook in their order."""
    found, before = [], ""
    for cell in course.cells(notebook):
        source = "".join(cell["source"])
        if TAG in cell["metadata"].get("tags", []):
            found.append(Exercise(f"{notebook.number}.{len(found) + 1}", before, source))
        before = source
    return found


def wrong_answers() -> dict[str, dict[str, str]]:
    """Exercise name → `code`, a plausible wrong answer, and `hint`, words that the refusal has to hold."""
    return tomllib.loads(WRONG.read_text(encoding="utf-8"))


def answered(notebook: course.Notebook, output: Path) -> None:
    """Write a copy of a notebook in which each exercise is followed by its wrong answer and by its solution."""
    content, wrong, todo = nbformat.read(notebook.path, as_version=4), wrong_answers(), exercises(notebook)
    cells = []
    for cell in content.cells:
        cells.append(cell)
        if TAG in cell.metadata.get("tags", []):
            one = todo.pop(0)
            cell.metadata["exercise"] = one.name
            for kind, code in (("wrong", wrong[one.name]["code"]), ("solution", one.solution)):
                made = copy.deepcopy(cell)
                made.update(id=f"{cell.id}-{kind}", source=f"{code.strip()}\n{one.checker}")
                made.metadata = nbformat.from_dict({"tags": [], "exercise": one.name, "answer": kind})
                cells.append(made)
    content.cells = cells
    nbformat.write(content, output)


def judgments(executed: Path) -> list[Judgment]:
    """What the checkers said in an executed copy that `answered` wrote: the last lines that each cell printed."""
    said: dict[str, dict[str, str]] = {}
    for cell in nbformat.read(executed, as_version=4).cells:
        if name := cell.metadata.get("exercise"):
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
            verdicts = re.findall(r"^(?:Not answered yet\. |Not yet: |Right\. ).*", printed, re.MULTILINE | re.DOTALL)
            said.setdefault(name, {})[cell.metadata.get("answer", "untouched")] = verdicts[-1] if verdicts else printed
    return [Judgment(name, wrong_answers()[name]["hint"], **three) for name, three in said.items()]
