"""Make seeded readers, who send what browsers send, for figures that need more clicks than one person makes."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator

from clicklab import course

# Shares of readers, chosen to look like a small technical blog; notebook 05 finds them again in the table.
BOUNCE_SHARE = 0.45  # leave after one page
WRONG_CLOCK_SHARE = 0.03  # a clock three hours slow
BOT_SHARE = 0.06  # say so themselves
WRONG_CLOCK_MS = -3 * 3600 * 1000
TAGS = {"A": 0.62, "SPAN": 0.12, "CODE": 0.10, "BUTTON": 0.08, "IMG": 0.05, "svg": 0.03}
USER_AGENT = "Mozilla/5.0 (simulated reader)"
OUTBOUND = "https://example.com/kafka"


def pages() -> list[str]:
    """The blog's addresses, the first page first."""
    return ["/", *(f"/posts/{notebook.slug}/" for notebook in course.manifest()), "/elements/", "/long/"]


def readers(events: int, seed: int) -> list[dict]:
    """Events of simulated readers, as browsers would send them now.

    Parameters
    ----------
    events : int
        How many, exactly: page views, clicks and engagement together.
    seed : int
        The same seed gives the same readers, up to the clock.

    Returns
    -------
    list of dict, len `events`
        Client fields of the event contract, in the order in which they are sent. Ids are made from the seed and the time
        of the call, so that two calls make different clicks.
    """
    dice = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    names = random.Random(f"{seed}-{time.time_ns()}")
    made: list[dict] = []
    while len(made) < events:
        made.extend(_visit(dice, names, now_ms))
    return made[:events]


def _uuid(names: random.Random) -> str:
    return str(uuid.UUID(int=names.getrandbits(128), version=4))


def _visit(dice: random.Random, names: random.Random, now_ms: int) -> Iterator[dict]:
    all_pages = pages()
    is_phone = dice.random() < 0.4
    offset_ms = WRONG_CLOCK_MS if dice.random() < WRONG_CLOCK_SHARE else 0
    about = {
        "hostname": "127.0.0.1", "session_id": _uuid(names), "language": dice.choice(["ko-KR", "ko-KR", "en-US"]),
        "zone_offset_min": 540, "is_webdriver": dice.random() < BOT_SHARE, "schema_version": 1, "tracker_version": "traffic",
        "viewport_width": 390 if is_phone else 1440, "viewport_height": 844 if is_phone else 900,
        "page_width": 390 if is_phone else 1440,
    }
    path = dice.choices(all_pages, weights=[5, *[2] * (len(all_pages) - 3), 1, 1])[0]
    referrer = dice.choice(["", "https://example.com/search"])
    at_ms = now_ms + offset_ms
    while True:
        height = dice.randrange(1200, 6000)
        view = about | {"page_view_id": _uuid(names), "path": path, "title": f"{path} - 클릭스트림", "page_height": height}
        seq = 0

        def event(name: str, view: dict = view, **fields) -> dict:
            nonlocal seq, at_ms
            at_ms += 1
            made = view | {"event_id": _uuid(names), "event_name": name, "seq": seq, "tag": "", "timestamp": at_ms,
                           "sent_at": at_ms + 1} | fields
            seq += 1
            return made

        yield event("page_view", referrer=referrer)
        for _ in range(dice.choices([0, 1, 2, 3, 5], weights=[2, 4, 3, 2, 1])[0]):
            tag = dice.choices(list(TAGS), weights=list(TAGS.values()))[0]
            link = {}
            if tag in ("A", "SPAN", "IMG"):
                target = OUTBOUND if dice.random() < 0.1 else f"http://127.0.0.1{dice.choice(all_pages)}"
                link = {"link_url": target, "outbound": target == OUTBOUND}
            yield event("click", tag=tag, id="theme-toggle" if tag == "BUTTON" else None, button=int(dice.random() < 0.05),
                        x=dice.randrange(0, view["page_width"]), y=dice.randrange(0, height), **link)
        yield event("engagement", scroll_pct=min(100, max(5, int(dice.gauss(65, 30)))),
                    engaged_ms=int(dice.lognormvariate(9.5, 1.0)))
        if dice.random() < BOUNCE_SHARE:
            return
        referrer, path = f"http://127.0.0.1{path}", dice.choice(all_pages)
