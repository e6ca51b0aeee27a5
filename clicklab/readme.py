"""Write the generated parts of README.md, the messages and the figures of docs/ (`make readme`, `make figures`)."""

from __future__ import annotations

import ast
import base64
import json
import math
import os
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from clicklab import Trouble, bootstrap, course, servers

README = servers.ROOT / "README.md"
KOREAN = servers.ROOT / "README.ko.md"
DOCS = servers.ROOT / "docs"
MESSAGES = DOCS / "MESSAGES.md"
WORDS = DOCS / "figures.json"  # the figures' alt texts: file name → what the figure says
PIPELINE_ALT = "The pipeline"  # how the alt text of each picture of the pipeline begins
# What the generated parts say in each language.
HEADINGS = {
    "en": "| notebook | you get | min | needs | a figure of it |",
    "ko": "| 노트북 | 얻는 것 | 분 | 필요한 것 | 그림 하나 |",
}
NEEDS_KO = {"java": "온전한 Java 17이나 21"}  # the other programs' names are names
EXECUTED = {
    "en": "Executed in one go on {day}, {cores} cores: {first} · together {together:.0f} s{further}.",
    "ko": "{day}에 한 번에 실행, 코어 {cores}개: {first} · 합계 {together:.0f} s{further}.",
}


def update(check: bool = False) -> None:
    """Write the blocks between the markers again: the notebooks from course.toml, the measures from the running servers.

    Parameters
    ----------
    check : bool
        Write nothing; raise when a table of notebooks is not what course.toml gives, or a message is not the code's.

    Raises
    ------
    Trouble
        With `check`: something differs. Else: a marker is not there.
    """
    for language, page in (("en", README), ("ko", KOREAN)):
        text = page.read_text(encoding="utf-8")
        old = block(text, "notebooks")
        if check:
            if notebooks_table(language) not in old:
                raise Trouble(f"{page.name}'s table of notebooks is not that of notebooks/course.toml.",
                              "course.toml, or a figure of docs/, was changed after it was written", "make readme")
            continue
        new = f"{notebooks_table(language)}\n\n{last_run(language) or old.splitlines()[-1]}"
        page.write_text(with_block(text, "notebooks", new), encoding="utf-8")
    if check:
        if MESSAGES.read_text(encoding="utf-8") != messages():
            raise Trouble(f"docs/{MESSAGES.name} does not list what the code says.", "a message was changed after it was written", "make readme")
        return
    MESSAGES.write_text(messages(), encoding="utf-8")
    note = "kept: the servers do not run, or were not started by make up"
    if is_measurable():
        text = README.read_text(encoding="utf-8")
        README.write_text(with_block(text, "measured", servers.measured(servers.status())), encoding="utf-8")
        note = "written from the running servers"
    print(f"{README.name}, {KOREAN.name}: table of notebooks written; docs/{MESSAGES.name} written; measures {note}")


# --- Messages ---------------------------------------------------------------------------------------------------------

MESSAGES_BEGIN = """# Messages

What the programs of this repository say when something is wrong, why, and the next command to try, by the module that says it. `…` stands for what differs from case to case. Generated from the code (`make readme`).
"""


def messages() -> str:
    """Every `Trouble` that clicklab raises, as Markdown: what, why, next."""
    parts = [MESSAGES_BEGIN]
    for file in sorted(Path(__file__).parent.glob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        # The ledger's error puts its words together itself and hands them to Trouble's `__init__`.
        found = [node for node in ast.walk(module) if isinstance(node, ast.Call)
                 and ast.unparse(node.func) in ("Trouble", "Missing", "super().__init__") and file.stem != "__init__"]
        if not found:
            continue
        parts += [f"\n## {file.stem}\n", f"{(ast.get_docstring(module) or '').splitlines()[0]}\n", "| what you read | why | what to do |", "|---|---|---|"]
        for call in sorted(found, key=lambda node: node.lineno):
            given = dict(zip(("what", "why", "next"), call.args, strict=False)) | {one.arg: one.value for one in call.keywords}
            parts.append("| " + " | ".join(_cell(given[name]) if name in given else "" for name in ("what", "why", "next")) + " |")
    return "\n".join(parts) + "\n"


def _told(node: ast.expr) -> str:
    """The text that an expression makes, with `…` where it is known only when the program runs."""
    match node:
        case ast.Constant(value=str(text)):
            told = text
        case ast.JoinedStr(values=values):
            told = "".join(_told(value) if isinstance(value, ast.Constant) else "…" for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            told = _told(left) + _told(right)
        case ast.BoolOp(values=values):
            told = " or ".join(dict.fromkeys(_told(value) for value in values))
        case ast.IfExp(body=body, orelse=orelse):
            told = " or ".join(filter(None, (_told(body), _told(orelse))))
        case _:
            told = "…"
    return told


def _cell(node: ast.expr) -> str:
    """What `_told` gives, as a cell of a Markdown table."""
    return re.sub(r"…(?:\s*…)+", "…", " ".join(_told(node).split())).replace("|", "\\|").replace("<", "&lt;")


# --- The blocks of the front pages ------------------------------------------------------------------------------------


def block(text: str, name: str) -> str:
    """What is between the two markers of a name."""
    found = re.search(f"<!-- {name}:begin -->\n(.*?)\n?<!-- {name}:end -->", text, re.DOTALL)
    if not found:
        raise Trouble(f"README.md has no place for {name}.", f"the markers {name}:begin and {name}:end frame it",
                      "git checkout README.md")
    return found[1]


def with_block(text: str, name: str, content: str) -> str:
    """The text with new content between the two markers of a name."""
    block(text, name)
    before, after = text.split(f"<!-- {name}:begin -->")[0], text.split(f"<!-- {name}:end -->")[1]
    return f"{before}<!-- {name}:begin -->\n{content.strip()}\n<!-- {name}:end -->{after}"


def notebooks_table(language: str) -> str:
    """A row a notebook: its title as a link, what you get, minutes, needs, and its figure of docs/."""
    words = json.loads(WORDS.read_text(encoding="utf-8")) if WORDS.exists() else {}
    lines = [HEADINGS[language], "|---|---|---:|---|---|"]
    for notebook in course.manifest():
        title, gets = (notebook.title, notebook.gets) if language == "en" else (notebook.title_ko, notebook.gets_ko)
        names = bootstrap.NAMES | (NEEDS_KO if language == "ko" else {})
        needs = ", ".join(names[name] for name in notebook.needs) or "-"
        picture = f"{notebook.number}.png"
        # A bar would begin a new cell of the table.
        alt = escape(words.get(picture, ""), quote=True).replace("|", "&#124;")
        shown = f'<a href="docs/{picture}"><img src="docs/{picture}" width="240" alt="{alt}"></a>' if alt else ""
        lines.append(f"| [{notebook.number} {title}](notebooks/{notebook.file}) | {gets} | {notebook.minutes} | {needs} | {shown} |")
    return "\n".join(lines)


# Reading speeds: of technical prose, about two thirds of a novel's; and of code that is followed, not skimmed.
WORDS_A_MINUTE = 150
CODE_LINES_A_MINUTE = 15
UNKNOWN_RUN_S = 110  # of a further notebook that the last run left out


def minutes(notebook: course.Notebook) -> int:
    """What course.toml has to state: to read a notebook and run it once, its exercises apart, rounded up to five minutes."""
    cells = [cell for cell in course.cells(notebook) if "exercise" not in cell["id"] and cell["id"] != course.NEIGHBORS]
    words = sum(len("".join(cell["source"]).split()) for cell in cells if cell["cell_type"] == "markdown")
    lines = sum(bool(line.strip()) for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    seconds = dict(re.findall(r"\b(\d\d) (\d+) s\b", block(README.read_text(encoding="utf-8"), "notebooks")))
    return math.ceil((words / WORDS_A_MINUTE + lines / CODE_LINES_A_MINUTE + int(seconds.get(notebook.number, UNKNOWN_RUN_S)) / 60) / 5) * 5


def last_run(language: str) -> str:
    """A line on the last run of the whole course, "" when it was not executed here from start to end."""
    record_file = course.build_folder() / "run.json"
    if not record_file.exists():
        return ""
    record = json.loads(record_file.read_text())
    seconds = {number: each["seconds"] for number, each in record["notebooks"].items() if each["state"] == "passed"}
    first = [notebook.number for notebook in course.manifest() if not notebook.is_further]
    if set(first) - set(seconds):
        return ""

    def listed(numbers: list[str]) -> str:
        return " · ".join(f"{number} {seconds[number]:.0f} s" for number in numbers)

    further = listed([number for number in seconds if number not in first])
    return EXECUTED[language].format(day=record["at"][:10], cores=os.cpu_count(), first=listed(first),
                                 together=sum(seconds[number] for number in first), further=further and f"; {further}")


def is_measurable() -> bool:
    """Whether `make up` started all servers of this state, and all are usable now."""
    if servers.IN_DOCKER or not (servers.state_folder() / "run" / "up.json").exists() or not servers.is_supervised():
        return False
    return all(row["state"] == "usable" for row in servers.status())


# --- Figures ---------------------------------------------------------------------------------------------------------

class Figure(NamedTuple):
    """A figure that `charts.show` put into an executed notebook."""

    alt: str
    png: bytes


class _Images(HTMLParser):
    """Collects the PNG images that are embedded in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Figure] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        image = dict(attrs)
        start, comma, data = (image.get("src") or "").partition(",")
        if tag == "img" and start == "data:image/png;base64" and comma:
            self.found.append(Figure(image.get("alt") or "", base64.b64decode(data)))


def figures_of(executed: Path) -> list[Figure]:
    """All figures of an executed notebook, in their order."""
    images = _Images()
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            images.feed("".join(output.get("data", {}).get("text/html", "")))
    return images.found


def choose(found: list[Figure]) -> Figure:
    """The figure that stands for a notebook: its last one that is not the picture of the pipeline, else its first."""
    own = [figure for figure in found if not figure.alt.startswith(PIPELINE_ALT)]
    return own[-1] if own else found[0]


def figures() -> None:
    """Write docs/pipeline.png and a figure of each notebook last executed, then the table that shows them.

    Raises
    ------
    Trouble
        No notebook has been executed here.
    """
    from clicklab import charts

    executed = {notebook.number: course.build_folder() / notebook.file for notebook in course.manifest()}
    present = {number: figures_of(path) for number, path in executed.items() if path.exists()}
    if not any(present.values()):
        raise Trouble("There is no executed notebook to take figures from.", f"{course.build_folder()} holds none", "make run")
    DOCS.mkdir(exist_ok=True)
    picture = charts.pipeline("")
    picture.savefig(DOCS / "pipeline.png", dpi=110)
    charts.plt.close(picture)
    words = json.loads(WORDS.read_text(encoding="utf-8")) if WORDS.exists() else {}
    words["pipeline.png"] = f"{PIPELINE_ALT}, left to right: {' → '.join(charts.HOPS)}."
    for number, found in present.items():
        if found:
            chosen = choose(found)
            (DOCS / f"{number}.png").write_bytes(chosen.png)
            words[f"{number}.png"] = chosen.alt
    WORDS.write_text(json.dumps(dict(sorted(words.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = [number for number in executed if not present.get(number)]
    print(f"docs/: pipeline, {', '.join(n for n in executed if present.get(n))}"
          + (f"; left as they were: {', '.join(kept)}, which have no figure in {course.build_folder()}" if kept else ""))
    update()
