"""Build the demo blog with Jekyll, open it in a real browser and click: for notebook 01 and `compose/serve blog`.

Its posts are the notebooks of this repository, so the blog that is measured teaches the measuring.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clicklab import Missing, Trouble, bootstrap, course, korean

ROOT = bootstrap.ROOT
JEKYLL_TIMEOUT_S = 120
PAGE_TIMEOUT_S = 15
FIRST_POST = date(2026, 1, 1)  # any fixed day: a post's date tells its number, not when it was written
PICTURES = "assets/posts"  # of the posts, a folder each
CHROMIUM_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# --- Building ---------------------------------------------------------------------------------------------------------


def assemble(destination: Path | str, executed: Path | None = None, language: str = "en") -> Path:
    """Put together what Jekyll builds: the demo blog, the snippet, and a post for each notebook.

    Parameters
    ----------
    destination : path
        Replaced, if it is there.
    executed : path
        Folder of executed notebooks and their run.json: posts show what came out, and when. Default: posts without outputs.
    language : str
        Of the posts' prose: `en`, or `ko` for what notebooks/ko/ holds.

    Returns
    -------
    Path
        `destination`.
    """
    destination = Path(destination)
    shutil.rmtree(destination, ignore_errors=True)
    shutil.copytree(ROOT / "demo_blog", destination)
    shutil.copytree(ROOT / "blog_snippet" / "_includes", destination / "_includes", dirs_exist_ok=True)
    posts = destination / "_posts"
    posts.mkdir(exist_ok=True)
    run = json.loads((executed / "run.json").read_text()) if executed else {}
    for notebook in course.manifest():
        day = FIRST_POST + timedelta(days=int(notebook.number))
        text, pictures = _post(notebook, day, executed, run, language)
        (posts / f"{day}-{notebook.slug}.md").write_text(text, encoding="utf-8")
        for picture, data in pictures.items():
            (destination / PICTURES / notebook.slug).mkdir(parents=True, exist_ok=True)
            (destination / PICTURES / notebook.slug / picture).write_bytes(data)
    return destination


# What the run stamp says: of the notebook, and of a count at a hop.
STAMPS = {
    "en": ("Executed {at} in {seconds:.0f} s", "{clicks:,} {hop}"),
    "ko": ("{at}에 실행, {seconds:.0f}초", "{hop} {clicks:,}"),
}


def _stamp(run: dict[str, Any], number: str, language: str) -> str:
    """When a notebook was executed and what was counted, as a line of Markdown; "" when it was not."""
    if not (mine := run.get("notebooks", {}).get(number)):
        return ""
    executed, counted = STAMPS[language]
    hops = run["clicks"].get(number, {})
    return "*" + " · ".join([executed.format(at=run["at"], seconds=mine["seconds"])]
                            + [counted.format(clicks=clicks, hop=hop) for hop, clicks in hops.items()]) + "*"


def _post(notebook: course.Notebook, day: date, executed: Path | None, run: dict[str, Any], language: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as a post: its text, and the pictures that it shows by their file names."""
    import nbformat  # with nbconvert half a second; only building needs them
    from nbconvert import MarkdownExporter

    was_executed = executed and (executed / notebook.file).exists()
    cells = nbformat.read(executed / notebook.file if was_executed else notebook.path, as_version=4)
    if language == "ko":
        cells = korean.translate(notebook, cells)
    cells.cells = [cell for cell in cells.cells if cell.get("id") != course.NEIGHBORS]  # the layout links them itself
    cells.metadata.setdefault("language_info", {"name": "python"})  # without it, which stripping may take, no colors
    # From /posts/SLUG/ up to the blog's root, wherever that is served.
    folder = f"../../{PICTURES}/{notebook.slug}"
    # Else each line that a cell printed as it went is a block of its own.
    exporter = MarkdownExporter(preprocessors=["nbconvert.preprocessors.CoalesceStreamsPreprocessor"])
    body, found = exporter.from_notebook_node(cells, resources={"output_files_dir": folder})
    pictures = {Path(name).name: data for name, data in found["outputs"].items()}

    def kept(match: re.Match) -> str:
        """`charts.show` carries a figure inside its HTML; a page that holds ten of them would be slow to open."""
        name = f"figure-{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(match[1])
        return f'src="{folder}/{name}"'

    body = re.sub(r'src="data:image/png;base64,([^"]+)"', kept, body)
    body = re.sub(r"\]\((\d\d_\w+)\.ipynb", lambda match: f"](../{match[1].replace('_', '-')}/", body)
    # Jekyll's Markdown leaves what is inside HTML as it is, unless told: a solution would show its backquotes.
    body = re.sub(r"^<details><summary>", '<details markdown="1"><summary>', body, flags=re.MULTILINE)
    body = re.sub(r"^# .+$", "", body, count=1, flags=re.MULTILINE)  # the layout has the title
    body = f"{body.strip()}\n\n{_stamp(run, notebook.number, language)}"
    front_matter = {
        "title": notebook.title_ko if language == "ko" else notebook.title,
        "description": _up_to_minutes(_plain(body.split("\n\n")[0])),
        "date": f"{day} 09:00:00 +0900",
        "categories": ["Data engineering", "Clickstream"],
        "tags": ["clickstream", "kafka", "hdfs"],
        "lang": language,
        "excerpt_separator": "",  # an excerpt would cut the body inside `raw`
    }
    # JSON is YAML, and quotes whatever a title holds.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front_matter.items()]
    return "---\n" + "\n".join(lines) + f"\n---\n\n{liquid_raw(body)}\n", pictures


def _plain(markdown: str) -> str:
    """Take links and emphasis out of a line of Markdown."""
    return re.sub(r"[*`]+|\[|\]\([^)]*\)", "", " ".join(markdown.split()))


def _up_to_minutes(text: str) -> str:
    """What a notebook leads to and how long it takes; what it leaves running is of no use on a card."""
    found = re.match(r".*?\d+(?: minutes|분)\.", text)
    return found[0] if found else text


def liquid_raw(text: str) -> str:
    """Wrap text so that Liquid leaves it as it is, even where it shows `{% endraw %}` itself."""
    spelled_out = re.sub(r"\{(%-?\s*endraw)", r'{% endraw %}{{ "{" }}{% raw %}\1', text)
    return "{% raw %}\n" + spelled_out + "\n{% endraw %}"


def build(
    destination: Path | str,
    *,
    production: bool = False,
    endpoint: str | None = None,
    executed: Path | None = None,
    files: dict[str, str] | None = None,
    language: str = "en",
    settings: dict[str, Any] | None = None,
) -> Path:
    """Build the demo blog with the real Jekyll.

    Parameters
    ----------
    destination : path
        Gets two folders, `source` and `site`, which are replaced.
    production : bool
        As for publishing: every page on one line, and the endpoint injected as the workflow does it.
    endpoint : str
        Where the pages report to. In production an https address, or None, which leaves the placeholder in;
        else None means the snippet's default, http://localhost:8000/ingest.
    executed : path
        As for `assemble`.
    files : dict
        Path in the blog → text, put there before Jekyll builds.
    language : str
        As for `assemble`.
    settings : dict
        Keys of _config.yml that are other ones in this build.

    Returns
    -------
    Path
        The folder `site`.

    Raises
    ------
    Missing
        There is no Jekyll on this machine.
    Trouble
        Jekyll, or the injection, failed; holds the last lines it printed.
    """
    jekyll = shutil.which("jekyll")
    if jekyll is None:
        raise Missing(
            "The blog needs Jekyll, which is not on this machine.",
            "it is built by the real one",
            bootstrap.install_command(["jekyll"]),
        )
    destination = Path(destination)
    source, site = assemble(destination / "source", executed, language), destination / "site"
    shutil.rmtree(site, ignore_errors=True)
    for name, text in (files or {}).items():
        (source / name).write_text(text, encoding="utf-8")
    command = [
        jekyll,
        "build",
        "--source",
        str(source),
        "--destination",
        str(site),
        "--disable-disk-cache",
        "--config",
        str(source / "_config.yml"),
    ]
    # Without UTF-8 Ruby stumbles over Hangul; it goes by the locale, which may be C.
    environment = os.environ | {"JEKYLL_ENV": "production" if production else "development", "RUBYOPT": "-EUTF-8:UTF-8"}
    settings = {"language": language} | (settings or {})
    inject = ["bash", str(ROOT / "blog_snippet" / "tools" / "inject-ingest-url.sh")]
    if production and endpoint:
        environment["INGEST_API_GATEWAY_URL"] = endpoint
        _run([*inject, str(source)], environment)
    elif endpoint:
        settings["clickstream_endpoint"] = endpoint
    chosen = destination / "chosen.yml"
    chosen.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    command[-1] += f",{chosen}"
    _run(command, environment)
    if production and endpoint:
        _run([*inject, "--check", str(site)], environment)
    return site


def _run(command: list[str], environment: dict[str, str]) -> None:
    name = Path(command[1] if command[0] == "bash" else command[0]).name
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=JEKYLL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"{name} did not finish in {JEKYLL_TIMEOUT_S} s.", next=" ".join(command)) from error
    if done.returncode:
        # Jekyll writes errors in red, and Ruby's stack after them.
        plain = re.sub(r"\x1b\[\d*m", "", done.stdout)
        lines = [line for line in plain.splitlines() if line.strip() and not line.startswith("\tfrom ")]
        raise Trouble(f"{name} failed (exit code {done.returncode}).", "\n".join(lines[-12:]), " ".join(command))


# --- The browser ------------------------------------------------------------------------------------------------------


class _Held:
    """A Playwright object held by the one thread that may touch it.

    Playwright's plain functions refuse to run where an asyncio loop runs, as in every notebook cell.
    """

    def __init__(self, thread: ThreadPoolExecutor, thing: Any):
        self._thread, self._thing = thread, thing

    def _reach(self, work: Callable[[], Any]) -> Any:
        return self._hold(self._thread.submit(work).result())

    def _hold(self, thing: Any) -> Any:
        if isinstance(thing, list):
            return [self._hold(one) for one in thing]
        if callable(thing) or type(thing).__module__.startswith("playwright"):
            return _Held(self._thread, thing)
        return thing

    def __getattr__(self, name: str) -> Any:
        return self._reach(lambda: getattr(self._thing, name))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        arguments = [_held(one) for one in arguments]
        options = {name: _held(one) for name, one in options.items()}
        return self._reach(lambda: self._thing(*arguments, **options))

    def __enter__(self) -> Any:
        return self._reach(self._thing.__enter__)

    def __exit__(self, *error: Any) -> Any:
        return self._reach(lambda: self._thing.__exit__(*error))

    def __repr__(self) -> str:
        return repr(self._thing)


def _held(thing: Any) -> Any:
    return thing._thing if isinstance(thing, _Held) else thing


@contextlib.contextmanager
def browser(**options: Any) -> Iterator[Any]:
    """Start Chromium without a window and with a fresh profile; stop it at the end.

    What you get is Playwright's `Browser` (its plain, synchronous functions), usable in a notebook cell too:
    `page = chromium.new_page()`, `page.goto(url)`, `page.click("#vote")`.

    Parameters
    ----------
    **options
        Passed on to Playwright's `chromium.launch`.

    Raises
    ------
    Missing
        There is no Chromium or Chrome on this machine.
    """
    program = bootstrap.chromium()
    if program is None:
        raise Missing(
            "A browser is needed, and there is no Chromium on this machine.",
            "the clicks are made in a real one",
            bootstrap.install_command(["chromium"]),
        )
    flags = [*CHROMIUM_FLAGS, *options.pop("args", [])]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")
    with launched("chromium", executable_path=program, args=flags, **options) as chromium:
        yield chromium


@contextlib.contextmanager
def launched(kind: str, **options: Any) -> Iterator[Any]:
    """Start Playwright's browser of a kind (`chromium`, `firefox`) with options of its `launch`; stop it at the end."""
    from playwright.sync_api import sync_playwright

    with ThreadPoolExecutor(1, "playwright") as thread:
        playwright = thread.submit(lambda: sync_playwright().start()).result()
        try:
            started = thread.submit(getattr(playwright, kind).launch, **options).result()
            yield _Held(thread, started)
            thread.submit(started.close).result()
        finally:
            thread.submit(playwright.stop).result()


# Who takes a picture is no reader: the snippet is silent for who asks not to be tracked.
NO_READER = "Object.defineProperty(navigator, 'globalPrivacyControl', {value: true});"


def screenshot(url: str, path: Path | str, *, width: int = 1100, height: int = 800, dark: bool = False, full_page: bool = False) -> Path:
    """Save a picture of a page, as wide as asked for; the page does not report that it was opened.

    Parameters
    ----------
    path : path
        A `.png` file; its folder is made.
    width, height : int
        Size of the window, CSS px; 390 wide is a phone.
    full_page : bool
        Down to the page's end, not only to the window's.

    Raises
    ------
    Missing
        There is no Chromium, or the page does not answer.
    """
    from playwright.sync_api import Error

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        page.add_init_script(NO_READER)
        try:
            page.goto(url, timeout=PAGE_TIMEOUT_S * 1000)
        except Error as error:
            raise Missing(f"There is no picture of {url}.", error.message.splitlines()[0], f"open {url} in a browser") from error
        page.screenshot(path=str(path), full_page=full_page)
    return path


# The parts of a page that can be clicked, by what they are: a link by where it leads, all else by its element's name.
_PARTS = """() => {
    const parts = {};
    for (const element of document.querySelectorAll('a[href], :is(p, code, img, button, span):not(a *)')) {
        const {x, y, width, height} = element.getClientRects()[0] || {};
        const name = element.href ? element.href.baseVal || element.href : element.tagName;
        if (width && height) (parts[name] ||= []).push([x + scrollX, y + scrollY, width, height].map(Math.round));
    }
    // Code is made of spans by the thousand: some, from all along the page, stand for all.
    const some = list => list.filter((_, place) => place % Math.ceil(list.length / 40) === 0);
    const {scrollWidth, scrollHeight} = document.documentElement;
    return {width: scrollWidth, height: scrollHeight,
            parts: Object.fromEntries(Object.entries(parts).map(([name, list]) => [name, some(list)]))};
}"""


def measure(url: str, paths: Iterable[str], widths: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Lay out pages in Chromium, at each width of the window, and say how large they are and where their parts stand.

    Parameters
    ----------
    url : str
        Where the blog is served; `paths` are below it.

    Returns
    -------
    dict
        `PATH WIDTH` → `width` and `height` of the page, CSS px, and its `parts`: a link by its target (a path of the blog,
        or an address elsewhere), other elements by their name → their boxes, as x, y, width, height.
    """
    found = {}
    with browser() as chromium:
        page = chromium.new_page()
        page.add_init_script(NO_READER)
        for path in paths:
            page.goto(f"{url}{path}", timeout=PAGE_TIMEOUT_S * 1000)
            for width in widths:
                page.set_viewport_size({"width": width, "height": 800})
                laid = page.evaluate(_PARTS)
                laid["parts"] = {unquote(name.removeprefix(url)): boxes for name, boxes in laid["parts"].items()}
                found[f"{path} {width}"] = laid
    return found


# --- Clicking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Click:
    """One real click: where, on what, and whether it made the page go away."""

    page: str
    what: str
    leaves: bool


@dataclass
class Visit:
    """What a reader did, and what the pages said they sent.

    The events are the browser's view: they tell which ids belong to this visit, never that one of them arrived.
    What a page sends in its last moment it does not show; that has the `page_view_id` of the page's other events.
    """

    clicks: list[Click] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    unsent: int = 0  # events still waiting in the browser at the end, because the collector did not take them

    @property
    def page_view_ids(self) -> list[str]:
        """One for each page that was seen, in that order."""
        return list(dict.fromkeys(event["page_view_id"] for event in self.events))

    @property
    def event_ids(self) -> set[str]:
        """Of all events the browser showed."""
        return {event["event_id"] for event in self.events}

    @property
    def leaving(self) -> int:
        """How many clicks made their page go away."""
        return sum(click.leaves for click in self.clicks)

    def __str__(self) -> str:
        views = len(self.page_view_ids)
        text = f"{len(self.clicks)} clicks, {self.leaving} of them leaving the page, in {views} page views"
        return text + (f"; {self.unsent} events still wait in the browser" if self.unsent else "")


@dataclass(frozen=True)
class _Target:
    what: str
    selector: str
    page: str | None = None  # path of the page it is on; None: every page
    leaves: bool = False
    opens: bool = False  # a tab
    button: str = "left"


STAYING = [
    _Target("svg in a button", "#theme svg"),
    _Target("link to the top", "#to-top"),
    _Target("svg in a button", "#heart-drawing", "/elements/"),
    _Target("button in a shadow tree", "#vote", "/elements/"),
    _Target("custom element", "#long-name", "/elements/"),
    _Target("javascript: link", "#script-link", "/elements/"),
    _Target("# link", "#fragment-link", "/elements/"),
    _Target("paragraph", "#notes + p", "/elements/"),
    _Target("link to a new tab", "#new-tab", "/elements/", opens=True),
    _Target("middle click", "#late-long", "/elements/", opens=True, button="middle"),
    _Target("Hangul # link", "#hangul-fragment", "/한글-주소/"),
]
LEAVING = [
    _Target("card", ".card p span", "/", leaves=True),
    _Target("link inserted later", "#late-home", "/elements/", leaves=True),
    _Target("link in a shadow tree", "#results-text", "/elements/", leaves=True),
    _Target("link in an svg", "#svg-link-box", "/elements/", leaves=True),
    _Target("link in a post or page", "#to-elements", "/long/", leaves=True),
    _Target("link in a post or page", "#to-elements", "/한글-주소/", leaves=True),
    _Target("tab in the header", "header nav a", leaves=True),
    _Target("title of the blog", "header .name", leaves=True),
]


def visit(
    url: str,
    clicks: int = 40,
    seed: int = 1,
    *,
    leaving: float = 0.5,
    readers: int = 1,
    script: str = "",
    using: Any = None,
    progress: Callable[[int, int], None] | None = None,
    timeout_s: float = 30,
) -> Visit:
    """Read the demo blog in a real browser and click; wait until the browser has handed over what it recorded.

    Parameters
    ----------
    url : str
        Where the blog is served.
    clicks : int
        How many real mouse clicks to make.
    seed : int
        The same seed makes the same clicks.
    leaving : float
        Share of clicks, 0 to 1, on links that make the page go away.
    readers : int
        How many readers take turns, each with a fresh profile and so with connections of his own.
    script : str
        JavaScript that runs in each page before its own.
    using : browser
        One that `browser` or `launched` gave; the default starts a Chromium. Firefox shows no bodies: `Visit.events`
        stays empty there.
    progress : callable
        Called with the clicks made and the clicks asked for, after each; the default prints one line at the end.
    timeout_s : float
        Seconds to wait at the end for the collector's answers. What it did not take by then is in `Visit.unsent`.

    Raises
    ------
    Trouble
        The blog does not answer, or its pages report to nowhere.
    """
    from playwright.sync_api import Error

    choose = random.Random(seed)
    plan = [index < round(clicks * leaving) for index in range(clicks)]
    choose.shuffle(plan)
    done = Visit()
    with contextlib.nullcontext(using) if using else browser() as chosen:
        pages = []
        for _ in range(readers):
            context = chosen.new_context(
                viewport={"width": 1100, "height": 800}, locale="ko-KR", timezone_id="Asia/Seoul"
            )
            context.set_default_timeout(PAGE_TIMEOUT_S * 1000)
            context.on("request", lambda request: done.events.extend(_events_of(request)))
            context.add_init_script(script)
            page = context.new_page()
            try:
                page.goto(url, wait_until="load")
            except Error as error:
                why = error.message.splitlines()[0]
                raise Trouble(f"The blog does not answer at {url}.", why, "make up") from error
            if not page.evaluate("window.clickstream"):
                why = "they were built without an endpoint"
                raise Trouble(f"The pages at {url} report to nowhere.", why, "make up")
            pages.append(page)
        for made, leaves in enumerate(plan, start=1):
            page = pages[made % readers]
            path = unquote(urlsplit(page.url).path)
            targets = [one for one in (LEAVING if leaves else STAYING) if one.page in (None, path)]
            done.clicks.append(_click(page, path, choose.choice(targets), choose))
            if progress:
                progress(made, clicks)
        done.unsent = sum(_settle(page, timeout_s) for page in pages)
        for page in pages:
            page.goto("about:blank")  # the last page says goodbye
            page.context.close()
    if not progress:
        print(done)
    return done


def _click(page: Any, path: str, target: _Target, choose: random.Random) -> Click:
    elements = page.locator(target.selector)
    element = elements.nth(choose.randrange(elements.count()))
    if target.opens:
        with page.context.expect_page() as opened:
            element.click(button=target.button)
        tab = opened.value
        tab.wait_for_load_state()
        _settle(tab, PAGE_TIMEOUT_S)
        tab.close(run_before_unload=False)
    elif target.leaves:
        with page.expect_navigation(wait_until="load"):
            element.click(no_wait_after=True)
    else:
        element.click()
    return Click(path, target.what, target.leaves)


def _events_of(request: Any) -> list[dict[str, Any]]:
    if request.method != "POST" or not request.post_data:
        return []
    body = json.loads(request.post_data)
    return body if isinstance(body, list) else [body]


def _settle(page: Any, timeout_s: float) -> int:
    """Wait until the snippet keeps nothing that is unanswered; return how many events it has to send again."""
    from playwright.sync_api import TimeoutError

    count = "Object.keys({}).filter(key => key.startsWith('clickstream ')).length"
    sent, queue = count.format("sessionStorage"), count.format("localStorage")
    with contextlib.suppress(TimeoutError):
        page.wait_for_function(f"{sent} + {queue} === 0", timeout=timeout_s * 1000)
    return page.evaluate(queue)
