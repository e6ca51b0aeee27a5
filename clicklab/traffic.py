"""Make seeded readers, who send what browsers send: for figures that need more clicks than one person makes.

`readers` gives events of now, to be posted over HTTP. `history` puts days of them straight into Kafka. Both know what they
planted (`Truth`), so that an analysis can be held against it.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit
from zoneinfo import ZoneInfo

import pandas as pd
import requests
from clickstream_ingest import events
from kafka import KafkaProducer
from kafka.errors import KafkaError

from clicklab import Trouble, blog, bootstrap, connect, course, landed, ledger, servers, topics

HOSTNAME = "127.0.0.1"
BLOG = f"http://{HOSTNAME}"
USER_AGENT = "Mozilla/5.0 (simulated reader)"
BOT_AGENT = "Mozilla/5.0 (compatible; SimulatedBot/1.0)"
ASSUMED, CHOSEN = "assumption: looks like a small technical blog", "chosen to be seen in a figure"
BEFORE_PAUSE_MS = 25 * 60_000  # two pages of one visit are never farther apart, two visits of one tab never nearer than
AFTER_PAUSE_MS = 60 * 60_000  # this: so a time-out between the two finds the planted visits
# Two days of hourly table partitions a commit: each open Parquet file takes about 2 MB of the worker's 512 MB, and 300 are
# more than it has.
HOURS_A_COMMIT = 48
HISTORY_COMMIT_MS = 2000


def _habit(value: Any, meaning: str, source: str = ASSUMED) -> Any:
    return field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True)
class Habits:
    """How readers behave: the one table of parameters, each with its meaning and where it comes from (`table`)."""

    bounce_share: float = _habit(0.45, "of visits end after one page")
    comes_back_share: float = _habit(0.15, "of visits are followed by another in the same tab, hours later")
    new_tab_share: float = _habit(0.08, "of clicks on the blog's own links open a new tab, which is a new session")
    phone_share: float = _habit(0.4, "of visits are made with a phone")
    seoul_share: float = _habit(0.8, "of visits come from Asia/Seoul, the others from OTHER_ZONES, half each")
    entry_home_share: float = _habit(0.25, "of visits begin on the first page, the others on a post")
    outbound_share: float = _habit(0.1, "of visits leave through a link in the text", CHOSEN)
    reading_median_s: float = _habit(35.0, "half of the page views are looked at longer, s (log-normal, sigma 0.9)")
    scroll_mean_pct: float = _habit(65.0, "of a page is seen on average (normal, sigma 30, cut at 5 and 100)")
    bot_share: float = _habit(0.06, "of visits are bots: many pages, no click, no time", CHOSEN)
    bot_pages: int = _habit(12, "pages a bot opens", CHOSEN)
    wrong_clock_share: float = _habit(0.03, "of visits have a clock that is wrong by one of WRONG_CLOCKS_H", CHOSEN)
    gpc_share: float = _habit(0.08, "of visits ask not to be followed (GPC): they send nothing")
    loss_share: float = _habit(0.02, "of events never arrive", CHOSEN)
    late_share: float = _habit(0.02, "of events wait in the browser for about 20 min before they are sent", CHOSEN)
    twice_share: float = _habit(0.003, "of events are sent again although the first try arrived (history only)", CHOSEN)
    network_median_ms: float = _habit(120.0, "half of the events take longer from the browser to us, ms (log-normal)")


OTHER_ZONES = ("America/New_York", "Europe/Berlin")
WRONG_CLOCKS_H = (-3, -3, 9)  # three hours slow, or an hour hand set as if Seoul were Greenwich
# Visits by the reader's own hour 0 … 23 and weekday Monday … Sunday, relative: asleep at 4, most at work, a peak at night.
BY_HOUR = (3, 2, 1, 1, 1, 1, 2, 4, 7, 10, 11, 10, 7, 9, 11, 11, 10, 9, 7, 7, 8, 9, 8, 5)
BY_WEEKDAY = (11, 12, 12, 11, 10, 6, 6)
REFERRERS = {"": 35, "https://www.google.com/": 30, "https://search.naver.com/": 18, "https://github.com/": 10,
             "https://news.ycombinator.com/": 7}
SCREENS = {True: ((390, 844), (412, 915), (360, 780)), False: ((1440, 900), (1920, 1080), (1280, 720))}
LANGUAGES = {"Asia/Seoul": ("ko-KR", "ko-KR", "ko-KR", "en-US"), "America/New_York": ("en-US",), "Europe/Berlin": ("de-DE", "en-GB")}
# What people click besides links: (element, its id, relative).
IDLE_CLICKS = (("P", None, 5), ("CODE", None, 4), ("BUTTON", "theme", 2), ("SPAN", None, 2), ("IMG", None, 1))
HABITS = Habits()


def table(habits: Habits = HABITS) -> pd.DataFrame:
    """The parameters as a table: value, meaning, and where it comes from."""
    return pd.DataFrame([{"parameter": one.name, "value": getattr(habits, one.name), "meaning": one.metadata["meaning"],
                          "from": one.metadata["source"]} for one in fields(habits)]).set_index("parameter")


# --- The blog's link graph --------------------------------------------------------------------------------------------

class Link(NamedTuple):
    """A link of a page: where it leads, the elements inside it that can be clicked, and how far down it stands (0 to 1)."""

    target: str  # a path of the blog, or an address elsewhere
    tags: tuple[str, ...]
    place: float


# Few pages of a small blog have a link that leaves it; on the others the readers make one up.
ELSEWHERE = Link("https://example.com/kafka", ("A",), 0.5)


class _Links(HTMLParser):
    def __init__(self, path: str):
        super().__init__()
        self.path, self.read, self.found, self.open, self.is_text = path, 0, [], None, False

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag in ("body", "script", "style"):
            self.is_text = tag == "body"
        elif tag == "a":
            self.open = [dict(attributes).get("href") or "", [], self.read]
        elif self.open and tag in ("span", "h2", "p", "small", "img", "time", "code"):
            self.open[1].append(tag.upper())

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.is_text = True
        elif tag == "a" and self.open:
            target, tags, place = self.open
            self.open = None
            if target and not target.startswith(("#", "mailto:")):
                self.found.append((urljoin(f"{BLOG}{self.path}", target), tuple(tags) or ("A",), place))

    def handle_data(self, data: str) -> None:
        self.read += len(data.strip()) * self.is_text


def links() -> dict[str, list[Link]]:
    """Each page of the blog with the links on it: read from the built pages, or from the manifest when there are none."""
    site = servers.state_folder() / "blog" / "site"
    # Not the translations: their readers walk the same ways.
    built = tuple(sorted(page for page in site.rglob("*.html") if page.relative_to(site).parts[0] not in course.LANGUAGES)) if site.exists() else ()
    return _built_links(site, built, tuple(page.stat().st_mtime_ns for page in built)) if built else _listed_links()


@cache
def _built_links(site: Path, pages: tuple[Path, ...], _: tuple[int, ...]) -> dict[str, list[Link]]:
    paths = {page: f"/{page.relative_to(site)}".removesuffix("index.html") for page in pages}
    graph = {}
    for page, path in paths.items():
        parser = _Links(path)
        parser.feed(page.read_text(encoding="utf-8"))
        graph[path] = []
        for target, tags, place in parser.found:
            address = urlsplit(target)
            inside = unquote(address.path)
            if address.netloc != HOSTNAME:
                graph[path].append(Link(target, tags, place / max(1, parser.read)))
            elif inside in paths.values() and inside != path:
                graph[path].append(Link(inside, tags, place / max(1, parser.read)))
    # A page without a way on is no page to walk through.
    return {path: found for path, found in graph.items() if any(link.target.startswith("/") for link in found)}


@cache
def _layout(folder: Path, _: tuple[int, ...]) -> dict[str, Any]:
    """What `blog.measure` says of each page at each width of SCREENS, measured once for each build of the blog and kept."""
    kept = folder / "layout.json"
    if not kept.exists() or kept.stat().st_mtime < max(page.stat().st_mtime for page in folder.rglob("*.html")):
        widths = [width for screens in SCREENS.values() for width, _ in screens]
        kept.write_text(json.dumps(blog.measure(servers.url("blog"), links(), widths)))
    return json.loads(kept.read_text())


def layout() -> dict[str, Any]:
    """Where the links of each page stand (`blog.measure`); {} where the blog does not run, or there is no Chromium.

    Without it clicks lie about as far down a page as its text says, and no page is as long as the real one.
    """
    folder = servers.state_folder() / "blog"
    pages = sorted((folder / "site").rglob("*.html"))
    if not (pages and bootstrap.chromium() and servers.usable("blog")):
        return {}
    return _layout(folder, tuple(page.stat().st_mtime_ns for page in pages))


def _listed_links() -> dict[str, list[Link]]:
    posts = [f"/posts/{notebook.slug}/" for notebook in course.manifest()]
    top = [Link("/", ("A",), 0.0), Link("/elements/", ("A",), 0.0), Link("/long/", ("A",), 0.0)]
    graph = {"/": [*top[1:], *(Link(post, ("SPAN", "H2", "P"), 0.1 + 0.8 * n / len(posts)) for n, post in enumerate(posts))]}
    for number, post in enumerate(posts):
        near = [posts[n] for n in (number - 1, number + 1) if 0 <= n < len(posts)]
        graph[post] = [*top, *(Link(one, ("SPAN", "SMALL"), 0.97) for one in near)]
    return graph | {"/elements/": [top[0], top[2]], "/long/": top[:2]}


def pages() -> list[str]:
    """The blog's addresses, the first page first."""
    return sorted(links())


# --- Readers --------------------------------------------------------------------------------------------------------------

@dataclass
class Truth:
    """What was planted, for an analysis to find again.

    Attributes
    ----------
    visits, bot_visits, silent_visits : int
        Of people, of bots, and of people with GPC, who send nothing.
    bounces, wrong_clocks, phones : int
        Visits of people that end after one page; with a wrong clock; with a phone.
    events, lost, late, twice : int
        Events that happened; that never arrived; that were sent late; that were sent again.
    page_views : int
        Of people, lost ones included.
    moves : dict
        (from path, to path) → how often a reader went that way by a link.
    """

    visits: int = 0
    bot_visits: int = 0
    silent_visits: int = 0
    bounces: int = 0
    wrong_clocks: int = 0
    phones: int = 0
    events: int = 0
    lost: int = 0
    late: int = 0
    twice: int = 0
    page_views: int = 0
    moves: dict[tuple[str, str], int] = field(default_factory=dict)


class Sent(NamedTuple):
    """One event as it reaches the collector: when (ms since 1970 UTC), from which program, what it says, by what clock."""

    received_at: int
    user_agent: str
    event: dict
    clock_error_ms: int = 0


class _Maker:
    """Makes the visits of one seed; `truth` counts what it planted."""

    def __init__(self, seed: int, habits: Habits):
        self.dice, self.habits, self.truth, self.graph, self.layout = random.Random(seed), habits, Truth(), links(), layout()
        # Ids of the moment, too: the same readers come again tomorrow, but as other events.
        self.names = random.Random(f"{seed}-{time.time_ns()}")
        self.posts = [path for path in sorted(self.graph) if path.startswith("/posts/")]
        # The newest post is read most, each older one less.
        self.fame = [1 / (1 + age) for age in reversed(range(len(self.posts)))]

    def id(self) -> str:
        return str(uuid.UUID(int=self.names.getrandbits(128), version=4))

    def visit(self, at_ms: int, zone: str, end_ms: float) -> Iterator[Sent]:
        """All that one tab sends that is opened at `at_ms`, with the tabs opened from it; nothing happens after `end_ms`."""
        dice, habits, truth = self.dice, self.habits, self.truth
        if dice.random() < habits.gpc_share:
            truth.silent_visits += 1
            return
        is_bot, is_phone = dice.random() < habits.bot_share, dice.random() < habits.phone_share
        hides_webdriver = is_bot and dice.random() < 0.5
        wrong_ms = dice.choice(WRONG_CLOCKS_H) * 3_600_000 if dice.random() < habits.wrong_clock_share and not is_bot else 0
        width, height = dice.choice(SCREENS[is_phone])
        utc_offset = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).utcoffset() or timedelta()
        about = {
            "hostname": HOSTNAME, "language": dice.choice(LANGUAGES[zone]), "zone_offset_min": int(utc_offset.total_seconds() // 60),
            "is_webdriver": is_bot and not hides_webdriver, "schema_version": events.SCHEMA_VERSION, "tracker_version": "traffic",
            "viewport_width": width, "viewport_height": height,
        }
        agent = BOT_AGENT if hides_webdriver else USER_AGENT
        referrer = dice.choices(list(REFERRERS), weights=list(REFERRERS.values()))[0]
        tabs = [(at_ms, self.id(), self.entry(), referrer)]
        while tabs:
            start_ms, session, path, referrer = tabs.pop()
            if start_ms > end_ms:
                continue
            about["session_id"] = session
            if is_bot:
                truth.bot_visits += 1
            else:
                truth.visits += 1
                truth.phones += is_phone
                truth.wrong_clocks += wrong_ms != 0
            now_ms, seen, bounces = start_ms, 0, dice.random() < habits.bounce_share
            while True:
                seen += 1
                stay_ms = 900 if is_bot else min(int(dice.lognormvariate(math.log(habits.reading_median_s), 0.9) * 1000),
                                                 BEFORE_PAUSE_MS)
                # Who does not bounce sees a second page, and each further one with a chance of 62 %.
                goes_on = seen < habits.bot_pages if is_bot else not bounces and (seen == 1 or dice.random() < 0.62)
                # A link in the text is clicked four times as often as one in the header.
                own = self.own_links(path)
                link = dice.choices(own, weights=[4 if one.place > 0.05 else 1 for one in own])[0]
                outside = [one for one in self.graph[path] if one.target.startswith("http")] or [ELSEWHERE]
                leaves = None if is_bot or goes_on or dice.random() >= habits.outbound_share else dice.choice(outside)
                truth.page_views += not is_bot
                made, new_tabs = self.page_view(about, path, referrer, now_ms, stay_ms, is_bot, link if goes_on else leaves)
                yield from self.send(made, wrong_ms, agent)
                tabs += [(opened_ms, self.id(), target, f"{BLOG}{path}") for opened_ms, target in new_tabs]
                now_ms += stay_ms
                if not goes_on or now_ms > end_ms:
                    break
                if not is_bot:
                    truth.moves[path, link.target] = truth.moves.get((path, link.target), 0) + 1
                referrer, path = f"{BLOG}{path}", link.target
            if not is_bot:
                truth.bounces += seen == 1
                if dice.random() < habits.comes_back_share:
                    pause_ms = AFTER_PAUSE_MS + int(dice.expovariate(1 / (5 * 3_600_000)))
                    tabs.append((now_ms + pause_ms, session, path, referrer))

    def own_links(self, path: str) -> list[Link]:
        return [link for link in self.graph[path] if link.target in self.graph]

    def entry(self) -> str:
        if not self.posts or self.dice.random() < self.habits.entry_home_share:
            return "/"
        return self.dice.choices(self.posts, weights=self.fame)[0]

    def page_view(self, about: dict, path: str, referrer: str, at_ms: int, stay_ms: int, is_bot: bool,
                  link: Link | None) -> tuple[list[dict], list[tuple[int, str]]]:
        """The events of one page view, and (when, target) of the tabs it opened."""
        dice, width = self.dice, about["viewport_width"]
        made_up = {"width": width, "height": (1800 + 37 * (sum(map(ord, path)) % 90)) * (2 if width < 500 else 1), "parts": {}}
        page = self.layout.get(f"{path} {width}", made_up)
        view = about | {"page_view_id": self.id(), "path": quote(path), "title": f"{path} - Clickstream notes",
                        "page_width": page["width"], "page_height": page["height"]}
        made, new_tabs = [], []

        def event(name: str, happens_ms: int, **told: Any) -> None:
            made.append(view | {"event_id": self.id(), "event_name": name, "seq": len(made), "tag": "", "timestamp": happens_ms} | told)

        event("page_view", at_ms, referrer=referrer)
        if is_bot:
            event("engagement", at_ms + stay_ms, scroll_pct=100, engaged_ms=0)
            return made, []
        moments = sorted(dice.randrange(stay_ms) for _ in range(dice.choices([0, 1, 2, 3], weights=[5, 3, 2, 1])[0]))
        for moment in moments:
            if dice.random() < self.habits.new_tab_share:
                chosen = dice.choice(self.own_links(path))
                event("click", at_ms + moment, button=1, **self.on_link(chosen, page))
                new_tabs.append((at_ms + moment + 500, chosen.target))
                continue
            there = [one for one in IDLE_CLICKS if one[0] in page["parts"]] or IDLE_CLICKS
            tag, name, _ = dice.choices(there, weights=[weight for *_, weight in there])[0]
            event("click", at_ms + moment, tag=tag, id=name, button=0, **self.on_part(
                page, tag, (int(width * 0.93), 40) if tag == "BUTTON" else (self.near(width / 2, width / 6, width), dice.randrange(80, page["height"]))))
        if link:
            event("click", at_ms + stay_ms, button=0, **self.on_link(link, page))
        event("engagement", at_ms + stay_ms, scroll_pct=min(100, max(5, int(dice.gauss(self.habits.scroll_mean_pct, 30)))),
              engaged_ms=int(stay_ms * dice.uniform(0.7, 1)))
        return made, new_tabs

    def near(self, middle: float, spread: float, limit: int) -> int:
        return int(min(limit - 1, max(0, self.dice.gauss(middle, spread))))

    def on_part(self, page: dict[str, Any], name: str, else_at: tuple[int, int]) -> dict[str, int]:
        """A point on a part of the page, or the given one where that is not known."""
        if not (boxes := page["parts"].get(name)):
            return dict(zip("xy", else_at, strict=True))
        x, y, width, height = self.dice.choice(boxes)
        return {"x": x + self.dice.randrange(width), "y": y + self.dice.randrange(height)}

    def on_link(self, link: Link, page: dict[str, Any]) -> dict:
        is_own, width, height = link.target.startswith("/"), page["width"], page["height"]
        in_header = link.place < 0.01
        return {"tag": self.dice.choice(link.tags), "link_url": f"{BLOG}{quote(link.target)}" if is_own else link.target, "outbound": not is_own,
                **self.on_part(page, link.target, (self.near(width * (0.7 if in_header else 0.4), width * 0.1, width),
                                                   self.near(40 if in_header else 100 + link.place * (height - 180), 12, height)))}

    def send(self, made: list[dict], wrong_ms: int, agent: str) -> Iterator[Sent]:
        """What arrives of a page view's events, and when: some are lost, some late, some twice."""
        dice, habits, truth = self.dice, self.habits, self.truth
        for event in made:
            truth.events += 1
            if dice.random() < habits.loss_share:
                truth.lost += 1
                continue
            wait_ms = 1
            if dice.random() < habits.late_share:
                truth.late += 1
                wait_ms = int(dice.expovariate(1 / (20 * 60_000))) + 1
            sent_ms = event["timestamp"] + wait_ms
            arrives_ms = sent_ms + int(dice.lognormvariate(math.log(habits.network_median_ms), 0.6))
            told = event | {"timestamp": event["timestamp"] + wrong_ms, "sent_at": sent_ms + wrong_ms}
            yield Sent(arrives_ms, agent, told, wrong_ms)
            if dice.random() < habits.twice_share:
                truth.twice += 1
                again_ms = int(dice.uniform(1000, 8000))
                yield Sent(arrives_ms + again_ms, agent, told | {"sent_at": told["sent_at"] + again_ms}, wrong_ms)


def readers(events: int, seed: int) -> list[dict]:
    """Events of simulated readers, as browsers would send them now.

    Their visits happen in fast forward: the events of a visit are milliseconds apart, so that all of them are of now.

    Parameters
    ----------
    events : int
        How many, exactly: page views, clicks and engagement together.
    seed : int
        The same seed gives the same readers on the same blog, up to the clock.

    Returns
    -------
    list of dict, len `events`
        Client fields of the event contract, in the order in which they are sent. Ids are made from the seed and the time
        of the call, so that two calls make different clicks.
    """
    maker = _Maker(seed, replace(HABITS, gpc_share=0, late_share=0, twice_share=0, comes_back_share=0))
    now_ms = time.time_ns() // 1_000_000
    made: list[dict] = []
    while len(made) < events:
        zone = _zone(maker)
        for number, sent in enumerate(maker.visit(now_ms, zone, math.inf)):
            at_ms = now_ms + sent.clock_error_ms + number
            made.append(sent.event | {"timestamp": at_ms, "sent_at": at_ms + 1})
    return made[:events]


def _zone(maker: _Maker) -> str:
    return "Asia/Seoul" if maker.dice.random() < maker.habits.seoul_share else maker.dice.choice(OTHER_ZONES)


def simulate(days: int, visits: int, seed: int, habits: Habits = HABITS, end_ms: int | None = None) -> tuple[list[Sent], Truth]:
    """Days of readers, in the order in which their events reach the collector, and what was planted.

    Parameters
    ----------
    visits : int
        First visits in all, those with GPC included; new tabs and later visits in the same tab come on top.
    end_ms : int
        The last moment, ms since 1970 UTC. Default: now.
    """
    maker = _Maker(seed, habits)
    end_ms = end_ms or time.time_ns() // 1_000_000
    hour_ms = 3_600_000
    begin_ms = end_ms - days * 24 * hour_ms
    # Hours of the clock, the first and the last cut off: an hour's weight must not move with the minute of `end_ms`.
    edges = [begin_ms, *range(begin_ms - begin_ms % hour_ms + hour_ms, end_ms, hour_ms), end_ms]
    spans = list(itertools.pairwise(edges))
    heights = {}
    for zone in ("Asia/Seoul", *OTHER_ZONES):
        local = [datetime.fromtimestamp(start / 1000, ZoneInfo(zone)) for start, _ in spans]
        heights[zone] = [BY_HOUR[moment.hour] * BY_WEEKDAY[moment.weekday()] * (end - start)
                         for moment, (start, end) in zip(local, spans, strict=True)]
    found: list[Sent] = []
    for _ in range(visits):
        zone = _zone(maker)
        found.extend(maker.visit(maker.dice.randrange(*maker.dice.choices(spans, weights=heights[zone])[0]), zone, end_ms))
    # What is still on its way when the time is over has not arrived.
    return sorted((one for one in found if one.received_at <= end_ms), key=lambda one: one.received_at), maker.truth


# --- History ----------------------------------------------------------------------------------------------------------------

def history(days: int, visits: int, seed: int, run: str, habits: Habits = HABITS) -> Truth:
    """Put days of simulated readers into the topic, as if the collector had been up all the time, and wait until they land.

    The clicks go straight to Kafka, through the contract's own `normalize` with the simulated `received_at` (`collector` is
    `replay`), and into the ledger. They go in slices of two days, each landed before the next is sent: a commit that sees
    weeks of hourly table partitions exhausts the worker. Meanwhile the sink commits every 2 s.

    Parameters
    ----------
    days, visits, seed
        As for `simulate`; the period ends now.
    run : str
        The ledger's run to enter them into.

    Returns
    -------
    Truth
        What was planted.
    """
    sent, truth = simulate(days, visits, seed, habits)
    present = requests.get(f"{servers.url('connect')}/connectors/{connect.SINK}/config", timeout=10)
    before_ms = int(present.json()["iceberg.control.commit.interval-ms"]) if present.ok else None
    connect.register(HISTORY_COMMIT_MS)
    producer = KafkaProducer(bootstrap_servers=servers.address("kafka"), acks="all", linger_ms=5)
    try:
        for part in _slices(sent):
            clicks = [click_of(one, run) for one in part]
            _deliver(producer, clicks, run)
            servers.wait_for(f"history to {datetime.fromtimestamp(part[-1].received_at / 1000, UTC):%Y-%m-%d %H:%M} UTC",
                             _to_land(clicks), ledger.default_timeout_s(), next="make status")
    finally:
        producer.close()
        connect.register(before_ms)
    return truth


def _slices(sent: list[Sent]) -> Iterator[list[Sent]]:
    """Cut at full hours, so that no hour's table partition gets files from two commits."""
    hour_ms, part, first = 3_600_000, [], 0
    for one in sent:
        hour = one.received_at // hour_ms
        if part and hour - first >= HOURS_A_COMMIT:
            yield part
            part = []
        first = first if part else hour
        part.append(one)
    if part:
        yield part


def click_of(sent: Sent, run: str) -> events.Click:
    """What the collector would have made of it at the simulated moment."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=sent.received_at)
    return events.normalize(sent.event, at, request_id=run, collector="replay", user_agent=sent.user_agent)


def _deliver(producer: KafkaProducer, clicks: list[events.Click], run: str) -> None:
    # Noted at the simulated time: the ledger reads each hop from the earliest line of a run on.
    ledger_file = ledger.file(run)
    events.append(ledger_file, [events.LedgerLine(event_id=click.event_id, source="traffic.history", state="posted",
                                                  at=click.received_at, fingerprint=events.fingerprint(click)) for click in clicks])
    futures = [producer.send(topics.CLICKS, events.encode(click), key=events.key(click), headers=events.headers(click),
                             timestamp_ms=click.received_at) for click in clicks]
    acknowledged = []
    for click, sending in zip(clicks, futures, strict=True):
        try:
            sending.get(timeout=30)
            acknowledged.append(click.event_id)
        except KafkaError as cause:
            ledger.write(run, "acknowledged", acknowledged, source="traffic.history")
            raise Trouble(f"History stopped after {len(acknowledged):,} of {len(clicks):,} clicks of a slice.", str(cause),
                          "make status, then run this cell again: it makes a new run") from cause
    ledger.write(run, "acknowledged", acknowledged, source="traffic.history")


def _to_land(clicks: list[events.Click]) -> Callable[[], str]:
    """What to wait for: "" when the newest snapshot has all of a slice, else how many of its events it lacks."""
    # Ids, not a number of rows: others land and erase rows meanwhile.
    wanted = {click.event_id for click in clicks}
    since_ms, until_ms = min(click.received_at for click in clicks), max(click.received_at for click in clicks)
    looked_at, said = None, "no snapshot yet"

    def told() -> str:
        nonlocal looked_at, said
        found = landed.table()
        newest = found.current_snapshot() if found else None
        if newest and newest.snapshot_id != looked_at:
            missing = wanted - landed.event_ids(since_ms, until_ms)
            looked_at, said = newest.snapshot_id, f"{len(missing):,} events to land" if missing else ""
        return said

    return told


def found(what: str, answer: float, low: float, high: float, planted: float) -> None:
    """Say that what was planted lies in the interval of an answer, or raise.

    Parameters
    ----------
    what : str
        For the sentence: "share of visits that end after one page".
    answer, low, high : float
        The answer from the data, and the interval that it claims.
    planted : float
        From `Truth` or `Habits`.

    Raises
    ------
    Trouble
        It lies outside.
    """
    said = f"{what}: {answer:,.4g}, between {low:,.4g} and {high:,.4g}; planted {planted:,.4g}"
    if not low <= planted <= high:
        raise Trouble(f"What was planted is not found again. {said}.", "the question is asked wrongly, or clicks are missing",
                      "compare with  traffic.table()  and run  ledger.audit()")
    print(said)
