"""The snippet in a real browser on pages built by the real Jekyll, judged by what a real server stored."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from browsers import PRODUCTION_URL, QUEUED, SENT, WAIT_S, assert_each_once_and_no_gaps, clicks, ids, launch, serve

from clicklab import blog, bootstrap

SNIPPET = bootstrap.ROOT / "blog_snippet"

pytestmark = pytest.mark.browser


# --- What is recorded -------------------------------------------------------------------------------------------------

ELEMENTS = [
    pytest.param("#heart-drawing", {"tag": "path", "id": "heart-path"}, None, id="svg-in-button"),
    pytest.param("#theme svg", {"button": 0}, None, id="listener-that-stops-the-event"),
    pytest.param("#vote", {"tag": "BUTTON", "id": "vote"}, None, id="shadow-button"),
    pytest.param("#results-text", {"tag": "B", "id": "results-text", "outbound": False}, "/long/", id="shadow-link"),
    pytest.param(
        "#long-name",
        {
            "id": "long-name",
            "tag": ("DEMO-ELEMENT-WHOSE-NAME-IS-LONGER-THAN-ANY-NAME-THAT-ANYBODY-NEEDS-IN-A-PAGE")[:64],
        },
        None,
        id="long-tag",
    ),
    pytest.param("#late-long", {"tag": "A", "outbound": False}, "/long/", id="link-inserted-later"),
    pytest.param("#script-link code", {"tag": "CODE"}, None, id="javascript-link"),
    pytest.param("#mail-link", {"tag": "A", "id": "mail-link"}, None, id="mail-address"),
    pytest.param("#fragment-link", {"tag": "A", "outbound": False}, "/elements/#notes", id="fragment"),
    pytest.param("#svg-link-box", {"tag": "text", "outbound": False}, "/long/", id="link-in-svg"),
    pytest.param(
        "#outbound", {"tag": "A", "outbound": True}, "https://example.com/elsewhere?from=blog#there", id="outbound"
    ),
]


@pytest.mark.parametrize(("selector", "fields", "link"), ELEMENTS)
def test_click_names_the_element_and_its_link(page, url, collector, selector, fields, link):
    # Nothing may leave here; the page's own listener comes after the snippet's.
    page.evaluate("document.addEventListener('click', event => event.preventDefault())")
    page.locator(selector).click()
    [click] = clicks(collector.wait_for(clicks))
    assert {name: click.get(name) for name in fields} == fields
    assert click.get("link_url") == (link if link is None or "//" in link else url.rstrip("/") + link)
    assert ("outbound" in click) == ("link_url" in click)
    box = page.locator(selector).bounding_box()
    assert (click["x"], click["y"]) == pytest.approx(
        (box["x"] + box["width"] / 2, box["y"] + page.evaluate("scrollY") + box["height"] / 2), abs=2
    )


def test_middle_click_is_recorded_once_and_opens_its_tab(page, context, collector):
    with context.expect_page() as opened:
        page.locator("#late-long").click(button="middle")
    opened.value.wait_for_load_state()
    opened.value.bring_to_front()  # Firefox opens it behind: until somebody looks at it, it is no page view
    stored = collector.wait_for(
        lambda stored: {"/elements/", "/long/"} <= {event["path"] for event in stored} and clicks(stored)
    )
    [click] = clicks(stored)
    assert (click["button"], click["id"]) == (1, "late-long")


def test_page_view_describes_page_and_browser(context, url, collector):
    context.new_page().goto(url + quote("한글-주소/"))
    [view] = collector.wait_for(bool)
    assert view["path"] == quote("/한글-주소/")
    assert view["title"].startswith("한글 주소")
    assert (view["event_name"], view["tag"], view["seq"]) == ("page_view", "", 0)
    assert (view["language"], view["zone_offset_min"], view["is_webdriver"]) == ("ko-KR", 540, True)
    assert (view["hostname"], view["schema_version"], view["queue_dropped"]) == ("127.0.0.1", 1, 0)
    assert view["viewport_width"] > 0


def test_engagement_tells_the_deepest_point_and_the_time(context, url, collector):
    page = context.new_page()
    page.goto(url + "long/")
    for place in ("document.documentElement.scrollHeight", "0"):
        scroll = f"addEventListener('scroll', resolve, {{once: true}}); scrollTo(0, {place});"
        page.evaluate(f"new Promise(resolve => {{ {scroll} }})")
    page.goto("about:blank")
    stored = collector.wait_for(lambda stored: len(stored) == 2)
    engagement = next(event for event in stored if event["event_name"] == "engagement")
    assert engagement["scroll_pct"] == 100
    assert engagement["engaged_ms"] > 0
    assert_each_once_and_no_gaps(stored)


def test_unread_page_is_not_scrolled(context, url, collector):
    page = context.new_page()
    page.goto(url + "long/")
    page.goto("about:blank")
    stored = collector.wait_for(lambda stored: len(stored) == 2)
    assert 0 < next(event for event in stored if event["event_name"] == "engagement")["scroll_pct"] < 50


def test_referrer_of_another_site_loses_its_query(context, url, collector, tmp_path):
    (tmp_path / "search.html").write_text(f'<meta name="referrer" content="unsafe-url"><a href="{url}">found</a>')
    elsewhere = serve(tmp_path)
    page = context.new_page()
    page.goto(elsewhere + "search.html?q=my+illness")
    page.click("a")
    [view, *_] = collector.wait_for(bool)
    assert view["referrer"] == elsewhere + "search.html"


def test_strings_are_cut_to_what_the_contract_takes(page, collector):
    page.evaluate("""() => {
      history.replaceState(null, '', '/' + '가'.repeat(900));
      document.title = 'x' + '😀'.repeat(2000);
      document.body.id = 'i'.repeat(500);
      document.body.insertAdjacentHTML('afterbegin',
        '<form><input name="id"><button id="send" type="button">Send</button></form>');
    }""")
    page.click("#send")
    page.locator("form").click(position={"x": 1, "y": 1})
    page.evaluate("document.body.click()")
    stored = clicks(collector.wait_for(lambda stored: len(clicks(stored)) + len(collector.refused) >= 3))
    assert collector.refused == []
    assert {len(click["path"]) for click in stored} == {2000}
    assert {len(click["title"]) for click in stored} == {1000}  # 2,000 halves of an emoji, less one left alone
    assert [len(click["id"]) for click in stored if click["tag"] == "BODY"] == [128]


# --- Nothing lost, nothing doubled ------------------------------------------------------------------------------------


def test_request_is_simple_and_carries_no_cookie(page, collector):
    page.evaluate("document.cookie = 'a=b'")
    page.click("#vote")
    collector.wait_for(clicks)
    assert collector.preflights == 0
    assert {headers["Content-Type"] for headers in collector.headers} == {"text/plain;charset=UTF-8"}
    assert not any("Cookie" in headers for headers in collector.headers)


def test_collector_down_then_back_gets_every_event_once(page, collector):
    collector.wait_for(bool)
    collector.stop()
    page.click("#vote")
    page.click("#late-long")  # leaves the page
    page.wait_for_url("**/long/")
    page.click("#theme")
    page.click("header .name")
    page.wait_for_selector("#tabs")
    page.click("#theme")
    page.wait_for_function(
        f"{QUEUED} === 9 && {SENT} === 0"
    )  # three page views but the first, five clicks, two goodbyes
    collector.start()
    stored = collector.wait_for(lambda stored: len(stored) >= 10)
    page.wait_for_function(f"{QUEUED} === 0")
    assert_each_once_and_no_gaps(stored)
    assert len(clicks(stored)) == 5
    assert {event["queue_dropped"] for event in stored} == {0}
    late = max(stored, key=lambda event: event["sent_at"] - event["timestamp"])
    assert late["sent_at"] > late["timestamp"]


def test_click_of_a_closed_tab_is_sent_at_the_next_visit(page, context, url, collector):
    collector.stop()
    page.click("#vote")
    for _ in range(3):  # then the next attempt is a second away or more, and none is under way when the tab closes
        page.wait_for_event("requestfailed")
    page.wait_for_function(f"{QUEUED} > 0 && {SENT} === 0")
    page.close()
    collector.start()
    page = context.new_page()
    page.goto(url)
    stored = collector.wait_for(clicks)
    page.wait_for_function(f"{QUEUED} === 0")
    assert [click["id"] for click in clicks(collector.stored)] == ["vote"]
    assert len({event["session_id"] for event in stored + collector.stored}) == 2
    assert max(ids(collector.stored).values()) == 1


def test_last_click_before_the_tab_closes_arrives_at_a_slow_server(page, collector):
    collector.wait_for(bool)
    collector.delay_s = 0.5
    page.click("#vote")
    page.close()
    stored = collector.wait_for(clicks)
    assert_each_once_and_no_gaps(stored)


# As chirpy's: it takes the page over at once and answers every request, the snippet's too.
SERVICE_WORKER = """
addEventListener("install", () => skipWaiting());
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => event.respondWith(
    caches.match(event.request).then(kept => kept || fetch(event.request))));
"""


@pytest.mark.parametrize("leave", [pytest.param("link", id="by-a-link"), pytest.param("close", id="by-closing-the-tab")])
def test_last_click_under_a_service_worker_arrives_once(context, site, collector, tmp_path, leave):
    served = tmp_path / "site"
    shutil.copytree(site, served)
    (served / "sw.js").write_text(SERVICE_WORKER)
    page = context.new_page()
    page.goto(serve(served))
    page.evaluate("navigator.serviceWorker.register('/sw.js').then(() => navigator.serviceWorker.ready)")
    page.reload()
    assert page.evaluate("navigator.serviceWorker.controller !== null")
    collector.wait_for(lambda stored: len({event["page_view_id"] for event in stored}) == 2)
    collector.delay_s = 0.5
    if leave == "link":
        page.click("a[href='/long/'][data-kind=tab]")
        page.wait_for_url("**/long/")
        collector.wait_for(lambda stored: stored and stored[-1]["path"] == "/long/")
    else:
        page.click(".intro p")
        page.close()
    stored = collector.wait_for(clicks)
    assert len(clicks(stored)) == 1
    assert_each_once_and_no_gaps(stored)


def test_clicks_made_offline_are_sent_once_online(page, context, collector):
    collector.wait_for(bool)
    context.set_offline(True)
    page.click("#vote")
    page.click("#heart")
    page.wait_for_function(f"{QUEUED} === 2 && {SENT} === 0")
    assert clicks(collector.stored) == []
    context.set_offline(False)
    stored = collector.wait_for(lambda stored: len(clicks(stored)) >= 2)
    page.wait_for_function(f"{QUEUED} === 0")
    assert_each_once_and_no_gaps(stored)


@pytest.mark.parametrize("host", [pytest.param("127.0.0.1", id="web-locks"), pytest.param("blog.test", id="lease")])
def test_two_tabs_neither_lose_nor_double(context, url, collector, host):
    first, second = context.new_page(), context.new_page()
    for tab in (first, second):
        tab.goto(url.replace("127.0.0.1", host) + "elements/")
    assert first.evaluate("'locks' in navigator") == (host == "127.0.0.1")
    collector.wait_for(lambda stored: len(stored) == 2)
    collector.stop()
    for _ in range(3):
        for tab in (first, second):
            tab.click("#heart")
    first.wait_for_function(f"{QUEUED} === 6")
    collector.start()
    stored = collector.wait_for(lambda stored: len(stored) >= 8)
    for tab in (first, second):
        tab.wait_for_function(f"{QUEUED} === 0 && {SENT} === 0")
    assert len(clicks(stored)) == 6
    assert_each_once_and_no_gaps(collector.stored)


def test_full_queue_drops_the_oldest_and_counts_them(context, url, collector):
    collector.stop()
    page = context.new_page()
    page.goto(url + "elements/")
    page.evaluate("for (let i = 0; i < 60; i++) { document.getElementById('notes').click(); }")
    page.wait_for_function(f"{QUEUED} === 50 && {SENT} === 0")
    collector.start()
    stored = collector.wait_for(lambda stored: len(stored) >= 50)
    page.wait_for_function(f"{QUEUED} === 0")
    page.click("#vote")
    stored = collector.wait_for(lambda stored: len(stored) > 50)
    lost = {*range(62)} - {event["seq"] for event in stored}  # a page view, sixty clicks, one more
    assert len(lost) == 11
    assert next(event for event in stored if event["id"] == "vote")["queue_dropped"] == 11
    assert max(ids(stored).values()) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_answer_that_means_later_is_retried(page, collector, status):
    collector.wait_for(bool)
    collector.status = status
    page.click("#vote")
    page.wait_for_function(f"{QUEUED} === 1")
    collector.status = 200
    assert len(clicks(collector.wait_for(clicks))) == 1
    page.wait_for_function(f"{QUEUED} === 0")
    assert_each_once_and_no_gaps(collector.stored)


@pytest.mark.parametrize("status", [400, 413])
def test_answer_that_means_never_is_not_retried(page, collector, status):
    collector.wait_for(bool)
    collector.status = status
    page.click("#heart")
    page.wait_for_function(f"{SENT} === 0")
    assert page.evaluate(QUEUED) == 0
    collector.status = 200
    page.click("#vote")
    assert [click["id"] for click in clicks(collector.wait_for(clicks))] == ["vote"]


def test_more_than_the_browser_takes_at_once_is_stored_once(page, collector):
    collector.delay_s = 0.1
    page.evaluate(
        "document.title = 'x'.repeat(1900); for (let i = 0; i < 45; i++) { document.getElementById('notes').click(); }"
    )
    page.wait_for_function(f"{QUEUED} + {SENT} === 0")
    stored = collector.wait_for(lambda stored: len(clicks(stored)) >= 45)
    assert_each_once_and_no_gaps(stored)


def test_page_from_the_back_forward_cache_begins_another_view(page, collector):
    collector.delay_s = 0.5
    page.evaluate("addEventListener('pageshow', event => { window.cameBack = event.persisted; })")
    page.click("#late-long")
    page.wait_for_url("**/long/")
    page.evaluate("history.back()")
    page.wait_for_function("window.cameBack")
    # Clicked by script: Playwright does not hear of it when Firefox brings a page back, and would wait for it to load.
    page.evaluate("document.getElementById('heart').click()")
    stored = collector.wait_for(lambda stored: len(stored) == 7)  # three views, two goodbyes, two clicks
    page.wait_for_function(f"{QUEUED} === 0")
    views = [event for event in collector.stored if event["event_name"] == "page_view"]
    assert sorted(view["path"] for view in views) == ["/elements/", "/elements/", "/long/"]
    assert len({view["page_view_id"] for view in views}) == 3
    assert_each_once_and_no_gaps(stored)


def test_prerendered_page_is_viewed_once_and_only_when_it_is_seen(site, collector, tmp_path):
    """Without Playwright: a browser that is driven prerenders a page, but then loads it anew."""
    collector.clear()
    served = tmp_path / "site"
    shutil.copytree(site, served)
    home, long = served / "index.html", served / "long" / "index.html"
    rules = '{"prerender": [{"source": "list", "urls": ["/long/"], "eagerness": "immediate"}]}'
    follow = "addEventListener('storage', () => { location.href = '/long/'; });"
    prerendered = "if (document.prerendering) { document.title = 'prerendered'; localStorage.isReady = 1; }"
    scripts = f'<script type="speculationrules">{rules}</script><script>{follow}</script>'
    home.write_text(home.read_text().replace("<head>", f"<head>{scripts}"))
    long.write_text(long.read_text().replace("</body>", f"<script>{prerendered}</script></body>"))
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    chromium = subprocess.Popen(
        [
            bootstrap.chromium(),
            "--headless=new",
            *blog.CHROMIUM_FLAGS,
            *as_root,
            f"--user-data-dir={tmp_path / 'profile'}",
            serve(served),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        stored = collector.wait_for(lambda stored: len(stored) == 3)
    finally:
        chromium.terminate()
        chromium.wait(WAIT_S)
    # The title at the end of the page: had it been recorded while prerendered, it would be the one in the head.
    views = [(event["path"], event["title"]) for event in stored if event["event_name"] == "page_view"]
    assert views == [("/", "Clickstream notes"), ("/long/", "prerendered")]
    assert_each_once_and_no_gaps(stored)


# --- Where it has to be quiet, and where it has to manage -------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})", id="gpc"),
        pytest.param("Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})", id="dnt"),
    ],
)
def test_reader_who_asks_not_to_be_tracked_is_not(context, browser, url, collector, script):
    context.add_init_script(script)
    page = context.new_page()
    requests = []
    context.on("request", lambda request: requests.append(request.url))
    page.goto(url + "elements/")
    page.click("#vote")
    page.goto("about:blank")
    assert requests and collector.url not in requests
    assert_only_another_reader_was_stored(browser, url, collector)


@pytest.mark.browsers
def test_the_switch_in_firefox_is_the_signal(url, collector, tmp_path_factory):
    collector.clear()
    with launch("firefox", tmp_path_factory, **{"privacy.globalprivacycontrol.enabled": True}) as firefox:
        page = firefox.new_page()
        page.goto(url + "elements/")
        assert page.evaluate("navigator.globalPrivacyControl") is True
        page.click("#vote")
        page.goto("about:blank")
    with launch("firefox", tmp_path_factory) as firefox:
        assert_only_another_reader_was_stored(firefox, url, collector)


@pytest.mark.parametrize("endpoint", ["INGEST_API_GATEWAY_URL", "", "/ingest"])
def test_endpoint_that_is_no_url_switches_the_snippet_off(context, browser, site, url, collector, tmp_path, endpoint):
    page_text = (site / "index.html").read_text(encoding="utf-8")
    assert page_text.count(collector.url) == 1
    (tmp_path / "index.html").write_text(page_text.replace(collector.url, endpoint), encoding="utf-8")
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("console", lambda message: errors.append(message.text) if "clickstream" in message.text else None)
    page.on("request", lambda request: requests.append(request.method))
    page.goto(serve(tmp_path))
    page.click(".intro")
    page.goto("about:blank")
    assert errors == []
    assert set(requests) == {"GET"}
    assert_only_another_reader_was_stored(browser, url, collector)


def assert_only_another_reader_was_stored(browser, url, collector):
    """What came before would be there by now: another reader's page view, sent later, is."""
    other = browser.new_context()
    other.new_page().goto(url)
    stored = collector.wait_for(bool)
    other.close()
    assert [(event["event_name"], event["path"]) for event in stored] == [("page_view", "/")]


WRONG_CLOCK = """
const right = Date;
window.Date = class extends right {
  constructor(...given) { if (given.length) { super(...given); } else { super(Date.now()); } }
  static now() { return right.now() + HOURS * 3600000; }
};
"""


@pytest.mark.parametrize("hours", [-30, 3])
def test_wrong_clock_is_kept_and_corrected(context, url, collector, hours):
    context.add_init_script(WRONG_CLOCK.replace("HOURS", str(hours)))
    page = context.new_page()
    page.goto(url + "elements/")
    page.click("#vote")
    [click] = clicks(collector.wait_for(clicks))
    assert click["timestamp"] - click["received_at"] == pytest.approx(hours * 3_600_000, abs=60_000)
    assert click["corrected_at"] - click["received_at"] == pytest.approx(0, abs=60_000)


def test_clock_days_ahead_is_refused_with_its_reason_and_not_retried(context, url, collector):
    context.add_init_script(WRONG_CLOCK.replace("HOURS", "48"))
    page = context.new_page()
    page.goto(url + "elements/")
    page.click("#vote")
    page.wait_for_function(f"{SENT} === 0")
    assert page.evaluate(QUEUED) == 0
    assert collector.stored == []
    assert len(collector.refused) == 2 and all("timestamp" in reason for reason in collector.refused)


def test_blog_the_collector_does_not_know_is_stored_as_repeats_of_the_same_events(page, collector):
    """It may not read the answer, so it takes it for a failure and sends again; the ids tell that nothing is new."""
    collector.wait_for(bool)
    collector.allowed_origin = None
    page.click("#vote")
    collector.wait_for(lambda stored: len(clicks(stored)) >= 2)
    collector.allowed_origin = "*"  # the day its operator notices
    page.wait_for_function(f"{QUEUED} === 0")
    assert len(ids(collector.stored)) == 2
    assert {click["id"] for click in clicks(collector.stored)} == {"vote"}


def test_page_where_storage_is_forbidden_still_reports_and_retries(context, url, site, collector):
    # A sandboxed frame has an origin of its own: the browser forbids both storages and Web Locks there.
    (site / "frame.html").write_text(
        '<iframe sandbox="allow-scripts" src="/elements/" width="900" height="900"></iframe>'
    )
    page = context.new_page()
    page.goto(url + "frame.html")
    frame = page.frame_locator("iframe")
    collector.wait_for(bool)
    collector.status = 503
    frame.locator("#vote").click()
    with collector.changed:
        assert collector.changed.wait_for(lambda: len(collector.headers) >= 2, WAIT_S)
    assert clicks(collector.stored) == []
    collector.status = 200
    assert_each_once_and_no_gaps(collector.wait_for(clicks))


def test_full_storage_does_not_stop_reports(page, collector):
    page.evaluate("""() => {
      for (const store of [localStorage, sessionStorage]) {
        for (let size = 1 << 22; size; size >>= 1) { try { store['x' + size] = 'x'.repeat(size); } catch {} }
        for (let i = 0; i < 99; i++) { try { store['y' + i] = ''; } catch {} }
      }
    }""")
    page.click("#vote")
    assert_each_once_and_no_gaps(collector.wait_for(clicks))


def test_snippet_included_twice_reports_once(context, site, collector, tmp_path):
    text = (site / "index.html").read_text(encoding="utf-8")
    snippet = re.search(r"<script data-endpoint.*?</script>", text, re.DOTALL)[0]
    (tmp_path / "index.html").write_text(text.replace("</body>", f"{snippet}</body>"), encoding="utf-8")
    page = context.new_page()
    page.goto(serve(tmp_path))
    page.click(".intro p")
    stored = collector.wait_for(clicks)
    assert Counter(event["event_name"] for event in stored) == {"page_view": 1, "click": 1}


# --- The production page ----------------------------------------------------------------------------------------------


def inline_scripts(text):
    return re.findall(r"<script(?![^>]*\b(?:src|type)=)[^>]*>(.*?)</script>", text, re.DOTALL)


def test_every_inline_script_of_the_production_site_parses(production, context):
    page = context.new_page()
    pages = sorted(production.rglob("*.html"))
    assert len(pages) >= 4
    for file in pages:
        text = file.read_text(encoding="utf-8")
        outside_pre = re.sub(r"<pre.*?</pre>", "", text.strip(), flags=re.DOTALL)
        assert "\n" not in outside_pre and "<!--" not in outside_pre, file
        scripts = inline_scripts(text)
        assert len(scripts) == 1, file
        page.evaluate("code => { new Function(code); }", scripts[0])


def test_production_page_reports(production, context, collector, tmp_path):
    # The scripts as compressed; only the address is that of the collector here.
    served = tmp_path / "site"
    shutil.copytree(production, served)
    for file in served.rglob("*.html"):
        file.write_text(file.read_text(encoding="utf-8").replace(PRODUCTION_URL, collector.url), encoding="utf-8")
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(serve(served) + "elements/")
    page.click("#vote")
    collector.wait_for(clicks)
    assert errors == []


def test_a_line_comment_would_kill_a_script_of_the_production_page(tmp_path, context):
    hook = "{% include clickstream.html %}<script>// why\nwindow.works = true;</script>"
    page = context.new_page()
    works = {}
    for production in (False, True):
        folder = tmp_path / str(production)
        site = blog.build(folder, production=production, files={"_includes/metadata-hook.html": hook})
        page.goto(serve(site))
        works[production] = page.evaluate("Boolean(window.works)")
    assert works == {False: True, True: False}


def test_snippet_is_small(production, capsys):
    text = (production / "index.html").read_text(encoding="utf-8")
    snippet = re.search(r"<script data-endpoint.*?</script>", text, re.DOTALL)[0]
    size = len(gzip.compress(snippet.encode()))
    readme = (SNIPPET / "README.md").read_text(encoding="utf-8")
    others = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|.*\|\n", readme, re.MULTILINE)
    table = others[next(at for at, row in enumerate(others) if row[0] == "tracker") :]
    with capsys.disabled():
        print("\nas served, on one line")
        for row in (table[0], ("this snippet", f"{len(snippet):,}", f"{size:,} B"), *table[1:]):
            print(f"  {row[0].replace('`', ''):29} {row[1]:>10}  {row[2]:>23}")
    assert len(table) == 9
    assert size <= 2048


# --- The tools --------------------------------------------------------------------------------------------------------


def run(tool, *arguments, **environment):
    return subprocess.run(
        ["bash", SNIPPET / "tools" / tool, *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.fixture
def includes(tmp_path):
    shutil.copytree(SNIPPET / "_includes", tmp_path / "my blog" / "_includes")
    return tmp_path / "my blog" / "_includes" / "clickstream.html"


GOOD_URLS = [
    "https://abc.execute-api.ap-northeast-2.amazonaws.com/ingest",
    "https://collector.example/a/b?x=1&y=2&copy=3#part",
    "https://collector.example:8443/i|n",
    r"https://collector.example/a\b\1\&",
    "https://collector.example/$HOME/$(id)/'quoted'/*",
    "https://한글.example/수집",
    "https://collector.example/%7Bid%7D",
]


@pytest.mark.parametrize("ingest_url", GOOD_URLS)
def test_inject_puts_in_any_url_and_only_there(includes, ingest_url):
    before = includes.read_text(encoding="utf-8")
    done = run("inject-ingest-url.sh", includes.parent.parent, INGEST_API_GATEWAY_URL=ingest_url)
    assert done.returncode == 0, done.stderr
    after = includes.read_text(encoding="utf-8")
    assert after == before.replace("INGEST_API_GATEWAY_URL", ingest_url.replace("&", "&amp;"))
    again = run("inject-ingest-url.sh", includes.parent.parent, INGEST_API_GATEWAY_URL=ingest_url)
    assert (again.returncode, includes.read_text(encoding="utf-8")) == (0, after)


@pytest.mark.parametrize(
    ("ingest_url", "why"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("INGEST_API_GATEWAY_URL", "still the placeholder", id="placeholder"),
        pytest.param("https://INGEST_API_GATEWAY_URL/ingest", "still the placeholder", id="placeholder-inside"),
        pytest.param("http://collector.example/ingest", "does not begin with https://", id="http"),
        pytest.param("collector.example/ingest", "does not begin with https://", id="no-scheme"),
        pytest.param("https:///ingest", "and a host", id="no-host"),
        pytest.param("https://collector.example/in gest", "a blank", id="blank"),
        pytest.param("https://collector.example/ingest\n", "a blank", id="line-break"),
        pytest.param('https://collector.example/"onload="x', "a quote", id="quote"),
        pytest.param("https://collector.example/{{ site }}", "a blank", id="liquid"),
        pytest.param("https://{host}.example/", "a brace", id="brace"),
        pytest.param("https://collector.example/<script>", "a bracket", id="bracket"),
    ],
)
def test_inject_refuses_what_is_no_https_url(includes, ingest_url, why):
    before = includes.read_bytes()
    done = run("inject-ingest-url.sh", includes.parent.parent, INGEST_API_GATEWAY_URL=ingest_url)
    assert done.returncode == 1
    assert why in done.stderr and "Next:" in done.stderr
    assert includes.read_bytes() == before


def test_inject_refuses_a_second_url_and_a_folder_without_snippet(includes, tmp_path):
    run("inject-ingest-url.sh", includes.parent.parent, INGEST_API_GATEWAY_URL=GOOD_URLS[0])
    other = run("inject-ingest-url.sh", includes.parent.parent, INGEST_API_GATEWAY_URL=GOOD_URLS[1])
    assert other.returncode == 1 and "no placeholder" in other.stderr
    assert run("inject-ingest-url.sh", tmp_path, INGEST_API_GATEWAY_URL=GOOD_URLS[0]).returncode == 1
    assert run("inject-ingest-url.sh").returncode == 64


def test_check_reads_the_endpoints_of_the_built_site(production, tmp_path):
    checked = run("inject-ingest-url.sh", "--check", production, INGEST_API_GATEWAY_URL=PRODUCTION_URL)
    assert checked.returncode == 0 and f"pages report to {PRODUCTION_URL}" in checked.stdout
    other = run("inject-ingest-url.sh", "--check", production, INGEST_API_GATEWAY_URL=PRODUCTION_URL + "2")
    assert other.returncode == 1 and PRODUCTION_URL in other.stderr
    empty = run("inject-ingest-url.sh", "--check", tmp_path, INGEST_API_GATEWAY_URL=PRODUCTION_URL)
    assert empty.returncode == 1 and "no page" in empty.stderr


@pytest.mark.only_checked("the GitHub workflows: read and linted, not run by GitHub")
@pytest.mark.parametrize("folder", ["blog_snippet/.github/workflows", ".github/workflows"])
def test_the_workflows_pass_their_linter(folder):
    linter = Path(sys.executable).with_name("zizmor")
    done = subprocess.run([linter, "--offline", "--quiet", bootstrap.ROOT / folder], capture_output=True, text=True)
    assert (done.returncode, "No findings to report" in done.stdout) == (0, True), done.stdout + done.stderr


WORKFLOW = """jobs:
  build:
    steps:
      - name: Checkout
        uses: actions/checkout@v5

      - name: Build site
        run: |
          bundle exec jekyll b -d _site
"""
TEST_STEP = """
      # The links too.
      - name: Test site
        run: bundle exec htmlproofer _site
"""


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({}, id="empty-blog"),
        pytest.param(
            {"_includes/metadata-hook.html": "<meta name=a>\n", ".github/workflows/pages-deploy.yml": WORKFLOW},
            id="own-hook",
        ),
        pytest.param(
            {"_includes/metadata-hook.html": "<meta name=a>", ".github/workflows/site.yaml": WORKFLOW.rstrip()},
            id="no-last-line-break",
        ),
        pytest.param({".github/workflows/site.yml": WORKFLOW + TEST_STEP}, id="a-step-after-the-build"),
        pytest.param({".github/workflows/site.yml": (WORKFLOW + TEST_STEP).replace("\n", "\r\n")}, id="lines-end-as-in-windows"),
        pytest.param(
            {
                "_includes/metadata-hook.html": "<meta name=a>\r\n",
                "_includes/clickstream.html": "<script>/* the seed's */</script>\n",
            },
            id="own-snippet",
        ),
        pytest.param({"_includes/metadata-hook.html": ""}, id="empty-hook"),
    ],
)
def test_install_repeats_safely_and_undo_restores_every_byte(tmp_path, files):
    for name, text in ({"_config.yml": "title: mine\n"} | files).items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
    before = contents(tmp_path)

    tried = run("install.sh", "--dry-run", tmp_path)
    assert (tried.returncode, contents(tmp_path)) == (0, before)
    first = run("install.sh", tmp_path)
    assert first.returncode == 0, first.stderr
    changes, told, _ = tried.stdout.partition("Nothing was changed. Next: the same without --dry-run.\n")
    assert told and changes and first.stdout.startswith(changes)
    installed = contents(tmp_path)
    assert installed["_includes/clickstream.html"] == (SNIPPET / "_includes" / "clickstream.html").read_bytes()
    assert installed["_includes/metadata-hook.html"].count(b"{% include clickstream.html %}") == 1
    [workflow] = [text for name, text in installed.items() if name.startswith(".github")]
    assert workflow.count(b"run: bash tools/inject-ingest-url.sh .\n") == 1
    assert workflow.index(b"inject-ingest-url.sh .") < workflow.index(b"jekyll b") < workflow.index(b"inject-ingest-url.sh --check _site\n")
    steps = yaml.safe_load(workflow)["jobs"]["build"]["steps"]
    named = [step["name"] for step in steps if "run" in step]
    assert named[:3] == ["Inject the ingest URL", "Build site", "Check the ingest URL"]
    assert all("INGEST_API_GATEWAY_URL" in str(step.get("env") or yaml.safe_load(workflow).get("env"))
               for step in steps if "inject-ingest-url.sh" in step.get("run", ""))
    if files.get("_includes/metadata-hook.html"):
        assert "+{% include clickstream.html %}" in first.stdout

    second = run("install.sh", tmp_path)
    assert (second.returncode, second.stdout) == (0, "nothing to change\n")
    assert contents(tmp_path) == installed

    tried = run("install.sh", "--undo", "--dry-run", tmp_path)
    assert contents(tmp_path) == installed
    undone = run("install.sh", "--undo", tmp_path)
    assert undone.returncode == 0 and tried.stdout == undone.stdout + "Nothing was changed. Next: the same without --dry-run.\n"
    assert contents(tmp_path) == before
    assert run("install.sh", "--undo", "--dry-run", tmp_path).stdout == "nothing to change\n"


@pytest.mark.parametrize(
    ("command", "config", "folder"),
    [
        pytest.param("jekyll b", "", "_site", id="default"),
        pytest.param('jekyll b -d "_site${{ steps.pages.outputs.base_path }}"', "", "_site", id="chirpy-starter"),
        pytest.param("jekyll build --destination=public && test -d other", "", "public", id="long-option"),
        pytest.param("|\n          jekyll build \\\n            -d './built'\n          mkdir -d other", "", "./built", id="on-the-next-line"),
        pytest.param("jekyll build", "destination: 'docs'  # for Pages\n", "docs", id="config"),
        pytest.param('jekyll build -d "$OUT"', "", None, id="only-GitHub-knows"),
    ],
)
def test_the_pages_are_checked_in_the_folder_that_the_workflow_builds_into(tmp_path, command, config, folder):
    workflow = tmp_path / ".github" / "workflows" / "site.yml"
    workflow.parent.mkdir(parents=True)
    (tmp_path / "_config.yml").write_text(config)
    workflow.write_text(f"jobs:\n  build:\n    steps:\n      - run: {command}\n  deploy:\n    steps: []\n")
    before = workflow.read_text()
    installed = run("install.sh", tmp_path)
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    checks = [step["run"] for step in jobs["build"]["steps"] if "--check" in step["run"]]
    assert checks == ([f"bash tools/inject-ingest-url.sh --check {folder}"] if folder else [])
    assert ("by hand" in installed.stderr) == (folder is None) and jobs["deploy"] == {"steps": []}
    run("install.sh", "--undo", tmp_path)
    assert workflow.read_text() == before


def test_a_blog_that_has_the_first_step_gets_the_check_too(tmp_path):
    workflow = tmp_path / ".github" / "workflows" / "site.yml"
    workflow.parent.mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    workflow.write_text(WORKFLOW.replace("      - name: Build", "      - run: bash tools/inject-ingest-url.sh .\n\n      - name: Build"))
    run("install.sh", tmp_path)
    assert workflow.read_text().count("inject-ingest-url.sh .\n") == workflow.read_text().count("inject-ingest-url.sh --check _site") == 1


def test_undo_leaves_a_step_that_was_changed(tmp_path):
    workflow = tmp_path / ".github" / "workflows" / "site.yml"
    workflow.parent.mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    workflow.write_text(WORKFLOW)
    run("install.sh", tmp_path)
    workflow.write_text(workflow.read_text() + "      - run: echo mine\n")
    changed = workflow.read_text().replace("secrets.INGEST_API_GATEWAY_URL || vars.", "vars.", 1)
    workflow.write_text(changed)
    undone = run("install.sh", "--undo", tmp_path)
    assert 'the step "Inject the ingest URL"' in undone.stderr and "by hand" in undone.stderr
    left = workflow.read_text()
    assert "--check" not in left and "inject-ingest-url.sh ." in left and left.endswith("jekyll b -d _site\n      - run: echo mine\n")


def test_dry_run_changes_nothing_through_a_link(tmp_path):
    shared = tmp_path / "shared.html"
    shared.write_text("<meta name=a>\n")
    (tmp_path / "blog" / "_includes").mkdir(parents=True)
    (tmp_path / "blog" / "_config.yml").touch()
    (tmp_path / "blog" / "_includes" / "metadata-hook.html").symlink_to(shared)
    tried = run("install.sh", "--dry-run", tmp_path / "blog")
    assert "+{% include clickstream.html %}" in tried.stdout and shared.read_text() == "<meta name=a>\n"


@pytest.mark.parametrize("arguments", [[], ["--dryrun", "."], [".", "."]], ids=" ".join)
def test_install_shows_its_usage(arguments):
    refused, asked = run("install.sh", *arguments), run("install.sh", "--help")
    assert (refused.returncode, asked.returncode) == (64, 0)
    assert asked.stdout == refused.stderr and asked.stdout.startswith("usage: install.sh [--dry-run] [--undo] BLOG\n")


def test_of_two_workflows_that_build_the_publishing_one_is_changed_and_the_other_is_named(tmp_path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    (folder / "ci.yml").write_text(WORKFLOW)
    (folder / "pages-deploy.yml").write_text(WORKFLOW + "      - uses: actions/deploy-pages@v4\n")
    said = run("install.sh", tmp_path).stdout
    assert "inject-ingest-url.sh" in (folder / "pages-deploy.yml").read_text()
    assert (folder / "ci.yml").read_text() == WORKFLOW and "ci.yml builds with jekyll too" in said
    assert "set INGEST_API_GATEWAY_URL on GitHub" in said


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_install_leaves_what_was_changed_since(tmp_path):
    (tmp_path / "_config.yml").touch()
    run("install.sh", tmp_path)
    snippet = tmp_path / "_includes" / "clickstream.html"
    snippet.write_text("mine now")
    undone = run("install.sh", "--undo", tmp_path)
    assert "left as it is" in undone.stderr
    assert contents(tmp_path) == {"_config.yml": b"", "_includes/clickstream.html": b"mine now"}


def test_install_refuses_a_folder_that_is_no_blog(tmp_path):
    refused = run("install.sh", tmp_path)
    assert refused.returncode == 1 and "_config.yml" in refused.stderr
    assert list(tmp_path.iterdir()) == []
