"""Run the notebooks with papermill, in order, in one process, and end with a table of hops and times."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import run_sync

from clicklab import Missing, Trouble, bootstrap, servers

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

NOTEBOOKS = servers.ROOT / "notebooks"
# The kernel tells that it speaks unencrypted TCP, which it does on 127.0.0.1 only, and that it was interrupted at its end.
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]
# Loaded under no name, so that a notebook that forgets an import fails here as it does in JupyterLab.
PRELOADED = ["__import__('clicklab.exercises')", "__import__('clicklab.charts')"]
NEIGHBORS = "neighbors"  # id of the cell that links to the notebooks before and after
CELL_TIMEOUT_S = 300  # and longer than a click may take to land, when the commit interval is long


@dataclass(frozen=True)
class Notebook:
    """One entry of notebooks/course.toml."""

    file: str
    title: str
    gets: str
    minutes: int
    needs: list[str] = field(default_factory=list)
    is_further: bool = False
    title_ko: str = ""
    gets_ko: str = ""

    @property
    def number(self) -> str:
        return self.file[:2]

    @property
    def path(self) -> Path:
        return NOTEBOOKS / self.file

    @property
    def slug(self) -> str:
        """Its post's address on the demo blog: /posts/SLUG/."""
        return self.file.removesuffix(".ipynb").replace("_", "-")


@dataclass
class Result:
    """What became of one notebook: `passed`, `failed` or `not executed`, and why."""

    notebook: Notebook
    state: str
    seconds: float = 0.0
    why: str = ""


def manifest() -> list[Notebook]:
    """The notebooks in their order."""
    entries = tomllib.loads((NOTEBOOKS / "course.toml").read_text())["notebook"]
    return [Notebook(**entry) for entry in entries]


def cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The notebook's cells as they are in its file."""
    return json.loads(notebook.path.read_text(encoding="utf-8"))["cells"]


def neighbors(notebook: Notebook, language: str = "en") -> str:
    """The links to the notebooks before and after, as the Markdown of a notebook's last cell."""
    every = manifest()
    place = every.index(notebook)

    def link(other: Notebook, form: str) -> str:
        return f"[{form.format(other.title_ko if language == 'ko' else other.title)}]({other.file})"

    before = [link(every[place - 1], "← {}")] if place else []
    after = [link(every[place + 1], "{} →")] if place + 1 < len(every) else []
    return " · ".join(before + after)


def build_folder() -> Path:
    """Where executed notebooks and their HTML go."""
    return servers.build_folder() / "notebooks"


class Kernels:
    """Starts the next notebook's kernel while one runs, and ends the last one while the next runs: seconds less for each.

    Parameters
    ----------
    wanted : int
        How many will be taken.
    """

    def __init__(self, wanted: int):
        self._left, self._next, self._ending = wanted, None, ThreadPoolExecutor(1)

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *_: object) -> None:
        if self._next:
            self._end(self._next)
        self._ending.shutdown()

    @contextmanager
    def take(self) -> Iterator[AsyncKernelManager]:
        """A kernel that has loaded what notebooks load; ended at the end of the block."""
        kernel, self._next = self._next or self._start(), None
        try:
            self._left -= 1
            if self._left > 0:
                self._next = self._start()
            yield kernel
        finally:
            self._ending.submit(self._end, kernel)

    @staticmethod
    def _start() -> AsyncKernelManager:
        from jupyter_client import AsyncKernelManager

        kernel = AsyncKernelManager(kernel_name="python3")
        preloading = [f"--IPKernelApp.exec_lines={line}" for line in PRELOADED]
        # The site shows these copies in English too; `korean.translate` has the Korean of it.
        run_sync(kernel.start_kernel)(cwd=str(NOTEBOOKS), env=os.environ | {"EXERCISES_LANG": "en"},
                                      extra_arguments=[*QUIET_KERNEL, *preloading])
        return kernel

    @staticmethod
    def _end(kernel: AsyncKernelManager) -> None:
        run_sync(kernel.shutdown_kernel)()


def execute(notebook: Notebook, parameters: dict[str, Any], folder: Path, kernel: AsyncKernelManager | None = None) -> Path:
    """Execute one notebook; returns the executed copy, which is written also when a cell fails.

    Parameters
    ----------
    kernel : AsyncKernelManager
        One of `Kernels`. Default: one of its own.

    Raises
    ------
    Trouble
        A failing cell, with its last words. Parameters are judged by `run`, before anything is executed.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from clicklab import ledger

    output = folder / notebook.file
    logging.getLogger("papermill").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(str(notebook.path), str(output), parameters=parameters, progress_bar=False,
                                       cwd=str(NOTEBOOKS), kernel_name="python3",
                                       extra_arguments=QUIET_KERNEL, km=kernel,
                                       execution_timeout=CELL_TIMEOUT_S + int(ledger.default_timeout_s()))
        except PapermillExecutionError as error:
            cause = "\n".join(error.traceback) if isinstance(error.traceback, list) else str(error.traceback)
            raise Trouble(f"{notebook.file}: cell {error.exec_count} fails.", _plain(cause),
                          f"open {output} and look at that cell") from None
        except Exception as error:
            # nbclient's own: the time-out of a cell, or a kernel that died.
            raise Trouble(f"{notebook.file} could not be executed to its end.",
                          f"{type(error).__name__}: {_plain(str(error))}", "make doctor") from None
    return output


def _plain(text: str) -> str:
    """Text without the terminal's color codes, its last lines."""
    import re

    return "\n      ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()[-12:])


def to_html(executed: Path) -> Path:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="classic").from_filename(str(executed))
    output = executed.with_suffix(".html")
    output.write_text(page, encoding="utf-8")
    return output


def run(numbers: Iterable[str] = (), parameters: dict[str, Any] | None = None, *, further: bool = False) -> list[Result]:
    """Execute notebooks in order, show progress, end with the table of hops; stops at the first that fails.

    Parameters
    ----------
    numbers : iterable of str
        Two digits each ("04"); default: the course, and with `further` all there are.
    parameters : dict
        Passed to the notebooks that have them. A name that none of them has is refused before anything runs.
    """
    import papermill

    chosen = [n for n in manifest() if (n.number in numbers if numbers else further or not n.is_further)]
    if absent := set(numbers) - {n.number for n in chosen}:
        raise Trouble(f"There is no notebook {', '.join(sorted(absent))}.",
                      f"there are {', '.join(n.number for n in manifest())}", "correct the number")
    parameters = parameters or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {n.number: set(papermill.inspect_notebook(str(n.path))) for n in chosen}
    if unknown := set(parameters) - set().union(*known.values()):
        raise Trouble(f"No chosen notebook has the parameter {', '.join(sorted(unknown))}.",
                      f"they have {', '.join(sorted(set().union(*known.values())))}", "correct the name")
    if interval := os.environ.get("COMMIT_INTERVAL_MS"):
        # make run COMMIT_INTERVAL_MS=300000: for the notebooks that have it, and none is refused for lacking it.
        parameters = {"COMMIT_INTERVAL_MS": int(interval)} | parameters
    folder = build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    started_at = time.time_ns() // 1_000_000
    results = []
    missing = set(bootstrap.missing_programs(bootstrap.programs(further=True)))
    # One loop for all kernels: starting papermill anew for each notebook would cost seconds every time.
    asyncio.set_event_loop(asyncio.new_event_loop())
    printer, pages = ThreadPoolExecutor(1), []  # a notebook becomes a page while the next one runs
    with Kernels(sum(not missing & set(notebook.needs) for notebook in chosen)) as kernels:
        for place, notebook in enumerate(chosen, 1):
            print(f"[{place}/{len(chosen)}] {notebook.number} {notebook.title}", flush=True)
            if lacking := sorted(missing & set(notebook.needs)):
                results.append(Result(notebook, "not executed", why=f"{' and '.join(bootstrap.NAMES[name] for name in lacking)} not on this machine"))
                print(f"      not executed: {results[-1].why}. Next: {bootstrap.install_command(lacking)}", flush=True)
                continue
            started = time.monotonic()
            try:
                with kernels.take() as kernel:
                    executed = execute(notebook, {k: v for k, v in parameters.items() if k in known[notebook.number]}, folder, kernel)
                pages.append(printer.submit(to_html, executed))
                results.append(Result(notebook, "passed", time.monotonic() - started))
                for line in check_lines(executed):
                    print(f"      {line}", flush=True)
            except Missing as trouble:
                results.append(Result(notebook, "not executed", time.monotonic() - started, trouble.what))
            except Trouble as trouble:
                results.append(Result(notebook, "failed", time.monotonic() - started, str(trouble)))
                print(f"      failed\n{trouble}", flush=True)
                break
    for page in pages:
        page.result()
    clicks = hop_counts(started_at)
    show_table(results, clicks)
    write_record(results, clicks)
    if not numbers and not missing & {"jekyll"} and exit_status(results) != 1:
        site()
        print(f"The course as a blog: {servers.url('blog')}, or build/site/")
    return results


def check_lines(executed: Path) -> list[str]:
    """The ledger's sentences that a notebook printed: they show that the run is more than green."""
    cells = json.loads(executed.read_text())["cells"]
    text = "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))
    return [line for line in text.splitlines() if "no record twice, contents as posted" in line or "offset by offset" in line]


def hop_counts(started_at: int) -> dict[str, dict[str, int]]:
    """Notebook number → clicks posted, acknowledged, in the topic and landed, of the runs made since `started_at` (ms)."""
    from clicklab import landed, ledger, topics

    recent = [run for run in ledger.runs() if run.lines and max(line.at for line in run.lines) >= started_at]
    if not recent or not servers.usable("kafka"):
        return {}
    since = min(run.since_ms for run in recent)
    in_topic = {s.event_id for s in topics.sightings(since)}
    in_table = landed.event_ids(since) if servers.usable("datanode") else set()
    counts: dict[str, dict[str, int]] = {}
    told: set[str] = set()
    # The notebooks' runs first: what they adopted from the dev server's is theirs, and counted once.
    for run_ in sorted(recent, key=lambda run: not run.name[:2].isdigit()):
        row = counts.setdefault(run_.name[:2] if run_.name[:2].isdigit() else run_.name,
                                {"posted": 0, "acknowledged": 0, "in topic": 0, "landed": 0})
        # History is noted as posted at its simulated time, so what was acknowledged just now counts as well.
        posted = {line.event_id for line in run_.lines if line.at >= started_at and line.state in ("posted", "acknowledged")} - told
        mine = posted & run_.acknowledged
        told |= posted
        row["posted"] += len(posted)
        row["acknowledged"] += len(mine)
        row["in topic"] += len(mine & in_topic)
        row["landed"] += len(mine & in_table)
        if erased := len(posted & run_.removed):
            row["erased"] = row.get("erased", 0) + erased
    return counts


def show_table(results: list[Result], clicks: dict[str, dict[str, int]]) -> None:
    """Print notebook, seconds, and clicks at each hop (as `hop_counts` has them)."""
    from rich.console import Console
    from rich.table import Table

    counts = dict(clicks)
    erasures = {name: row["erased"] for name, row in counts.items() if "erased" in row}
    table = Table(title="The course, hop by hop", title_justify="left")
    for heading, side in (("notebook", "left"), ("state", "left"), ("seconds", "right"), ("posted", "right"),
                          ("acknowledged", "right"), ("in topic", "right"), ("landed", "right")):
        table.add_column(heading, justify=side, no_wrap=heading != "notebook")

    def cells(row: dict[str, int]) -> list[str]:
        return [f"{row[hop]:,}" for hop in ("posted", "acknowledged", "in topic", "landed")] if row else ["", "", "", ""]

    for result in results:
        table.add_row(f"{result.notebook.number} {result.notebook.title}", result.state,
                      f"{result.seconds:.1f}" if result.state != "not executed" else "",
                      *cells(counts.pop(result.notebook.number, {})))
    for name, row in counts.items():
        table.add_row(f"other clicks of a {name}" if name == "browser" else f"single clicks ({name})", "", "", *cells(row))
    Console(width=max(116, shutil.get_terminal_size().columns)).print(table)
    for name, erased in erasures.items():
        print(f"{name}: {erased:,} clicks more were acknowledged and then erased on purpose, to show how a reader is forgotten")
    for result in results:
        if result.state == "not executed":
            print(f"not executed: {result.notebook.number} {result.notebook.title}: {result.why}")


def write_record(results: list[Result], clicks: dict[str, dict[str, int]]) -> None:
    """Write the run's figures to build/notebooks/run.json, for the README and the site."""
    record = {
        "at": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z}",
        "versions": versions(),
        "notebooks": {r.notebook.number: {"state": r.state, "seconds": round(r.seconds, 1)} for r in results},
        "clicks": clicks,
    }
    (build_folder() / "run.json").write_text(json.dumps(record, indent=1))


def versions() -> dict[str, str]:
    """Of what the course runs on: Python, the packages it teaches, and the servers' jars."""
    found = {"python": platform.python_version()}
    found |= {name: metadata.version(name) for name in ("kafka-python", "pandas", "matplotlib", "pyiceberg", "papermill")}
    for lock in (servers.ROOT / "compose" / "jars").rglob("jgo.lock.toml"):
        jars = {jar["artifactId"]: jar["version"] for jar in tomllib.loads(lock.read_text())["dependencies"]}
        found |= {name: jars[name] for name in ("kafka_2.13", "hadoop-hdfs", "iceberg-kafka-connect") if name in jars}
    return found


# What the blog says of itself where its course is in another language, and where that lies.
LANGUAGES: dict[str, dict[str, Any]] = {
    "en": {"baseurl": "", "language_name": "English"},
    "ko": {"baseurl": "/ko", "language_name": "한국어", "title": "클릭스트림 노트", "tagline": "클릭 한 번, 페이지에서 그래프까지",
           "description": "이 블로그는 글에서 설명하는 바로 그 파이프라인으로 측정한다."},
}


def build_blog(destination: Path | None = None, *, publish_to: str | None = None) -> Path:
    """Build the demo blog, with what the notebooks last gave, if anything; with SITE_LANG=ko the Korean one too, under /ko/.

    Parameters
    ----------
    destination : path
        Default: the state folder, where the blog's server finds it; there it is built only when something has changed.
    publish_to : str
        The collector's address: build as for publishing.

    Returns
    -------
    Path
        The folder of the pages.

    Raises
    ------
    Trouble
        SITE_LANG is no language of the course, or Jekyll failed. `Missing` without Jekyll.
    """
    from clicklab import blog

    wanted = servers.setting("SITE_LANG")
    if wanted not in LANGUAGES:
        raise Trouble(f"The course is not there in SITE_LANG={wanted}.", f"there are {' and '.join(LANGUAGES)}", "make site SITE_LANG=ko")
    served = servers.state_folder() / "blog"
    # Without a word from us the pages report to the series' address, port 8000.
    endpoint = publish_to or (f"{servers.url('ingest')}/ingest" if servers.setting("INGEST_PORT") != "8000" else None)
    executed = build_folder() if (build_folder() / "run.json").exists() else None
    built_from = _blog_digest(executed, wanted, endpoint)
    note = (destination or served) / "built-from"
    if destination is None and note.exists() and note.read_text() == built_from:
        return served / "site"
    note.unlink(missing_ok=True)  # a build that fails is none

    def build(language: str, folder: Path) -> Path:
        # A page and its translation have the same path under the two roots.
        others = [{"lang": other, "name": LANGUAGES[other]["language_name"], "root": LANGUAGES[other]["baseurl"]}
                  for other in dict.fromkeys(("en", wanted)) if other != language]
        return blog.build(folder, production=bool(publish_to), endpoint=endpoint, executed=executed, language=language,
                          settings=LANGUAGES[language] | {"other_languages": others})

    made = build("en", destination or served)
    if wanted != "en":
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(build(wanted, Path(folder)), made / wanted)
    note.write_text(built_from)
    return made


def _blog_digest(executed: Path | None, *chosen: str | None) -> str:
    """Changes with everything that the blog is built from: sources, notebooks, their outputs, settings, and the code that builds."""
    places = [NOTEBOOKS, servers.ROOT / "demo_blog", servers.ROOT / "blog_snippet" / "_includes", servers.ROOT / "requirements.lock",
              *(Path(__file__).with_name(f"{module}.py") for module in ("blog", "course", "korean"))]
    if executed:  # not the pages beside them, which are no part of the blog
        places += [executed / "run.json", *sorted(executed.glob("*.ipynb"))]
    digest = hashlib.sha256(json.dumps(chosen).encode())
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                digest.update(f"{place.name}/{file.relative_to(place)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def site() -> Path:
    """Build the executed course as a blog into build/site, with the run's figures beside it (run.json).

    With INGEST_API_GATEWAY_URL in the environment it is built for publishing and reports there. Else it is the demo blog,
    which the server `blog` shows from then on. With SITE_LANG=ko the course in Korean is under ko/, each page linked with its own
    translation.

    Raises
    ------
    Trouble
        No notebook has been executed yet, or Jekyll failed. `Missing` without Jekyll.
    """
    record, made = build_folder() / "run.json", servers.build_folder() / "site"
    if not record.exists():
        raise Trouble("There is nothing to build the site from.", "no notebook has been executed", "make run")
    with tempfile.TemporaryDirectory() as folder:
        url = os.environ.get("INGEST_API_GATEWAY_URL")
        built = build_blog(Path(folder), publish_to=url) if url else build_blog()
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(built, made)
    shutil.copy(record, made)
    return made


def lab_folder() -> Path:
    """The notebooks that JupyterLab opens: our own, or with SITE_LANG=ko copies whose prose is Korean, in build/notebooks-ko.

    A copy is made anew when the course has changed and nobody has typed into it. One with a learner's words in it stays, and
    a line on the standard error says so: the standard output is the Makefile's.
    """
    import nbformat

    from clicklab import korean

    if servers.setting("SITE_LANG") != "ko":
        return NOTEBOOKS
    folder = servers.build_folder() / "notebooks-ko"
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in manifest():
        copy = folder / notebook.file
        content = korean.translate(notebook, nbformat.read(notebook.path, as_version=4))
        content.metadata["clicklab"] = {"written": _digest(content)}
        try:
            old = nbformat.read(copy, as_version=4)
            is_now, was = _digest(old), old.metadata.get("clicklab", {}).get("written")
        except FileNotFoundError:
            is_now = was = None
        except ValueError:  # cut off, or no notebook any more
            is_now, was = "unreadable", None
        if _digest(content) in (is_now, was):
            continue
        if is_now == was:
            nbformat.write(content, copy)
        else:
            print(f"{copy.name} is kept: there are words of yours in it. The course has a newer one; to get it, rename yours in {folder}.",
                  file=sys.stderr)
    return folder


def _digest(content: Any) -> str:
    """Of what a notebook's cells say. What they printed does not count: it comes back."""
    return hashlib.sha256(json.dumps([cell.source for cell in content.cells]).encode()).hexdigest()


def exit_status(results: list[Result]) -> int:
    """0 when all were executed, 1 when one failed, 3 when one was not executed for want of a program."""
    states = {result.state for result in results}
    return 1 if "failed" in states else 3 if "not executed" in states else 0
