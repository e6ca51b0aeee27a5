"""What readers do to a snippet over minutes: a thousand clicks, and a collector that is gone; in every browser."""

from __future__ import annotations

import ast
import json
import time
from collections import Counter

import pytest
from browsers import QUEUED, SENT, Collector, assert_each_once_and_no_gaps, clicks, ids

from clicklab import blog, bootstrap

pytestmark = pytest.mark.browser

OUTAGES = [pytest.param(10, id="10-s"), pytest.param(60, id="60-s", marks=pytest.mark.browsers)]


def first_snippet(endpoint: str) -> str:
    """The script with which the series began, as notebook 01 shows it."""
    notebook = json.loads((bootstrap.ROOT / "notebooks" / "01_record_clicks.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    [assignment] = [source for source in sources if source.startswith("FIRST_SNIPPET = ")]
    return ast.literal_eval(assignment.removeprefix("FIRST_SNIPPET = ").strip()).replace("ENDPOINT", endpoint)


def test_thousand_clicks_half_of_them_leaving_are_stored_once(browser, url, collector, capsys):
    """Both scripts see the same clicks in the same pages, each with a collector of its own."""
    collector.clear()
    first = Collector()
    collector.delay_s = first.delay_s = 0.5
    readers = 4
    visit = blog.visit(
        url, clicks=1000, seed=11, readers=readers, script=first_snippet(first.url), using=browser, timeout_s=120,
        progress=lambda made, of: None,
    )
    stored = collector.wait_for(
        lambda stored: (
            len(clicks(stored)) >= 1000
            # Closing a reader's profile may cut off the goodbye of the last page, and of no other.
            and Counter(event["event_name"] for event in stored)["engagement"]
            >= len({event["page_view_id"] for event in stored}) - readers
        ),
    )
    first.stop()
    assert (len(visit.clicks), visit.leaving, visit.unsent) == (1000, 500, 0)
    assert len(clicks(stored)) == 1000
    assert_each_once_and_no_gaps(stored)
    assert collector.refused == []
    assert {event["queue_dropped"] for event in stored} == {0}
    ours, kept = len(clicks(stored)), len(clicks(first.stored))
    with capsys.disabled():
        print(
            f"\n{browser.browser_type.name} {browser.version}: "
            f"1,000 clicks, 500 of them leaving the page, answers 0.5 s late\n"
            f"  this snippet             {ours:5,} stored, each once, {1000 - ours} lost\n"
            f"  the series' first script {kept:5,} stored, {1000 - kept} lost"
        )
    assert kept < 1000


@pytest.mark.parametrize("outage_s", OUTAGES)
def test_outage_loses_nothing_up_to_the_cap_and_counts_what_is_beyond(browser, url, collector, outage_s, capsys):
    collector.clear()
    pages = []
    for _ in range(2):  # two readers: each has a queue of his own
        context = browser.new_context()
        context.set_default_timeout(120_000)
        pages.append(context.new_page())
        pages[-1].goto(url + "elements/")
    within, beyond = pages
    collector.wait_for(lambda stored: len(stored) == 2)
    collector.stop()
    back_at = time.monotonic() + outage_s
    # 10 clicks that leave, each with the goodbye of its page and the view of the next, and 15 that stay: 45 events.
    for _ in range(5):
        for _ in range(3):
            within.click("#heart")
        within.click("#late-long")
        within.wait_for_url("**/long/")
        within.click("#to-elements")
        within.wait_for_url("**/elements/")
    for _ in range(80):
        beyond.click("#heart")
    within.wait_for_function(f"{QUEUED} === 45 && {SENT} === 0")
    beyond.wait_for_function(f"{QUEUED} === 50 && {SENT} === 0")
    time.sleep(max(0, back_at - time.monotonic()))  # the outage itself
    collector.start()
    for page in pages:
        page.wait_for_function(f"{QUEUED} + {SENT} === 0")
        page.click("#vote")
    stored = collector.wait_for(lambda stored: Counter(event.get("id") for event in stored)["vote"] == 2)
    sessions = [page.evaluate("sessionStorage.clickstream") for page in pages]
    for page in pages:
        page.context.close()

    events_within, events_beyond = ([event for event in stored if event["session_id"] == one] for one in sessions)
    assert max(ids(stored).values()) == 1
    assert_each_once_and_no_gaps(events_within)
    assert (len(events_within), {event["queue_dropped"] for event in events_within}) == (47, {0})
    last = max(events_beyond, key=lambda event: event["seq"])
    lost = {*range(82)} - {event["seq"] for event in events_beyond}  # the view, 80 clicks, the click afterwards
    assert len(lost) == last["queue_dropped"] == 30
    with capsys.disabled():
        print(
            f"\n{browser.browser_type.name} {browser.version}: collector down for {outage_s} s\n"
            f"  45 events meanwhile, cap 50: {len(events_within) - 2} stored, each once\n"
            f"  80 events meanwhile, cap 50: {len(events_beyond) - 2} stored, each once, {len(lost)} dropped, "
            f"{last['queue_dropped']} counted in queue_dropped"
        )
