"""The demo blog: built and served by the real Jekyll, clicked in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections import Counter
from html import unescape
from urllib.parse import quote, unquote

import nbformat
import psutil
import pytest
import requests
import yaml
from browsers import WAIT_S, assert_each_once_and_no_gaps, clicks, ids, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from clicklab import Missing, Trouble, blog, bootstrap, course, traffic

pytestmark = pytest.mark.browser

LIQUID = "`{{ site.title }}` `${{ secrets.URL }}` `{% endraw %}` `{%- endraw -%}` `{{% endraw %}` `{% raw %}` 한글"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of what the blog is made of, which a test may change."""
    root = tmp_path / "repository"
    for name in ("demo_blog", "blog_snippet"):
        shutil.copytree(bootstrap.ROOT / name, root / name)
    monkeypatch.setattr(blog, "ROOT", root)
    return root


# --- Building ---------------------------------------------------------------------------------------------------------


def test_notebooks_become_posts_that_show_liquid_as_it_is(tmp_path):
    executed = tmp_path / "executed"
    executed.mkdir()
    (executed / "run.json").write_text("{}")
    cells = [
        new_markdown_cell(f"# Put every click into Kafka\nA [link](https://example.com) and *one* `word`. 5 minutes. Left running: nothing.\n\n{LIQUID}"),
        new_code_cell('url = "{{ ingest_url }}"\n# {% if x %}'),
        new_markdown_cell("<details><summary>Solution</summary>\n\n```python\nanswer = 42\n```\n\nin *words*\n</details>"),
    ]
    nbformat.write(new_notebook(cells=cells), executed / "03_put_every_click_into_kafka.ipynb")
    destination = tmp_path / "my blog"
    site = blog.build(destination, executed=executed)
    post = destination / "source" / "_posts" / "2026-01-04-03-put-every-click-into-kafka.md"
    front_matter = yaml.safe_load(post.read_text(encoding="utf-8").split("---\n")[1])
    assert front_matter["title"] == "Put every click into Kafka"
    assert front_matter["description"] == "A link and one word. 5 minutes."
    assert {"date", "categories", "tags"} <= set(front_matter)
    page = (site / "posts" / "03-put-every-click-into-kafka" / "index.html").read_text(encoding="utf-8")
    shown = unescape(re.sub(r"<[^>]+>", "", page))
    assert LIQUID.replace("`", "") in shown
    assert 'url = "{{ ingest_url }}"' in shown and "# {% if x %}" in shown
    hidden = page.partition("<summary>Solution</summary>")[2].partition("</details>")[0]
    assert "<pre" in hidden and "<em>words</em>" in hidden and "`" not in hidden
    assert page.count("<h1>") == 1
    assert "/posts/03-put-every-click-into-kafka/" in (site / "index.html").read_text(encoding="utf-8")


def test_blog_of_notebooks_that_were_not_executed_is_whole(repository, tmp_path):
    site = blog.build(tmp_path / "blog")
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "http://localhost:8000/ingest" in home
    for path in re.findall(r'<a class="card" href="([^"]+)"', home):
        assert (site / unquote(path).strip("/") / "index.html").exists(), path
    assert "/한글-주소/" in unquote(home) and (site / "sitemap.xml").exists()


def test_production_takes_the_endpoint_through_the_injection_script(tmp_path):
    site = blog.build(tmp_path, production=True, endpoint="https://collector.example/ingest?a=1&b=2")
    home = (site / "index.html").read_text(encoding="utf-8")
    assert '<script data-endpoint="https://collector.example/ingest?a=1&amp;b=2">' in home
    with pytest.raises(Trouble, match="inject-ingest-url.sh") as refused:
        blog.build(tmp_path, production=True, endpoint="http://127.0.0.1:8000/ingest")
    assert "does not begin with https://" in refused.value.why


def test_the_served_blog_is_built_again_only_when_something_has_changed(second_state, monkeypatch):
    def built_at():
        return (course.build_blog() / "index.html").stat().st_mtime_ns

    monkeypatch.setenv("CLICKSTREAM_BUILD", str(second_state / "build"))
    first = built_at()
    assert built_at() == first
    monkeypatch.setenv("INGEST_PORT", "8001")
    other_port = built_at()
    assert other_port > first and "8001" in (second_state / "blog" / "site" / "index.html").read_text(encoding="utf-8")
    executed = second_state / "build" / "notebooks"
    executed.mkdir(parents=True)
    (executed / "run.json").write_text(json.dumps({"at": "a day", "notebooks": {}, "clicks": {}}))
    assert built_at() > other_port


def test_failure_of_jekyll_is_shown_with_its_last_lines(repository, tmp_path):
    (repository / "demo_blog" / "broken.md").write_text("---\n---\n{% nonsense %}\n")
    with pytest.raises(Trouble, match="jekyll failed") as failed:
        blog.build(tmp_path / "blog")
    assert "nonsense" in failed.value.why


def test_machine_without_jekyll_or_chromium_is_told_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "chromium", lambda: None)
    with pytest.raises(Missing) as missing, blog.browser():
        pass
    assert "chromium" in missing.value.next
    real_which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest, **options: None if name == "jekyll" else real_which(name))
    with pytest.raises(Missing) as missing:
        blog.build(tmp_path)
    assert "jekyll" in missing.value.next


def test_jekyll_serves_what_was_built(site):
    """The command of `compose/serve blog`."""
    source = site.parent / "source"
    server = subprocess.Popen(
        [
            "jekyll",
            "serve",
            "--source",
            source,
            "--destination",
            site,
            "--config",
            source / "_config.yml",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--skip-initial-build",
            "--no-watch",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # WEBrick takes a free port for 0 and says so nowhere, but the system knows.
        assert any("press ctrl-c" in line for line in server.stdout)
        [listening] = [c for c in psutil.Process(server.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening.laddr.ip == "127.0.0.1"
        url = f"http://127.0.0.1:{listening.laddr.port}/"
        for path in ("", "elements/", quote("한글-주소/")):
            page = requests.get(url + path, timeout=WAIT_S)
            assert page.status_code == 200 and "data-endpoint" in page.content.decode()
    finally:
        server.terminate()
        server.wait(WAIT_S)


# --- Clicking ---------------------------------------------------------------------------------------------------------


def test_visit_clicks_for_real_and_knows_its_events(url, collector):
    collector.clear()
    progress = []
    visit = blog.visit(url, clicks=24, seed=3, leaving=0.25, progress=lambda made, of: progress.append((made, of)))
    stored = collector.wait_for(
        lambda stored: Counter(event["event_name"] for event in stored)["engagement"] >= len(visit.page_view_ids)
    )
    assert (len(visit.clicks), visit.leaving, visit.unsent) == (24, 6, 0)
    assert progress == [(made, 24) for made in range(1, 25)]
    assert len(clicks(stored)) == 24
    assert Counter(click.page for click in visit.clicks) == Counter(unquote(e["path"]) for e in clicks(stored))
    assert set(visit.page_view_ids) == {event["page_view_id"] for event in stored}
    assert visit.event_ids <= set(ids(stored))
    assert_each_once_and_no_gaps(stored)


def test_visit_repeats_itself_for_the_same_seed(url, capsys):
    first, again, other = (blog.visit(url, clicks=6, seed=seed) for seed in (1, 1, 2))
    assert first.clicks == again.clicks != other.clicks
    assert "6 clicks, 3 of them leaving the page" in capsys.readouterr().out


def test_visit_counts_what_the_collector_did_not_take(url, collector):
    collector.clear()
    collector.status = 503
    visit = blog.visit(url, clicks=2, seed=1, leaving=0, timeout_s=0.1)
    collector.status = 200
    assert visit.unsent == 3  # with the page view


def test_every_kind_of_click_can_be_made(url):
    """A target that is not on its page any more would make visits fail for some seeds only."""
    with blog.browser() as chromium:
        page = chromium.new_page()
        for target in blog.STAYING + blog.LEAVING:
            page.goto(url.rstrip("/") + (target.page or "/"))
            page.wait_for_selector(target.selector)
            assert page.locator(target.selector).first.is_visible(), target


def test_visit_says_why_it_cannot_click(tmp_path):
    with pytest.raises(Trouble, match="does not answer"):
        blog.visit("http://127.0.0.1:9/")
    (tmp_path / "index.html").write_text("<p>no snippet")
    with pytest.raises(Trouble, match="report to nowhere"):
        blog.visit(serve(tmp_path))


def test_browser_works_where_a_loop_runs_as_in_a_notebook(url, tmp_path):
    async def cell():
        with blog.browser() as chromium:
            page = chromium.new_page()
            page.goto(url + "elements/")
            with page.expect_popup() as opened:
                page.click("#new-tab")
            titles = [each.title() for each in page.context.pages]
            return titles, opened.value.url, blog.screenshot(url, tmp_path / "new" / "home.png", width=390)

    titles, opened, picture = asyncio.run(cell())
    assert len(titles) == 2 and opened.endswith("/long/")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_taking_a_picture_and_measuring_make_no_event(url, collector, tmp_path):
    collector.clear()
    picture = blog.screenshot(url, tmp_path / "home.png", full_page=True)
    laid = blog.measure(url.rstrip("/"), ["/"], [1280, 390])
    assert laid["/ 390"]["height"] > laid["/ 1280"]["height"] == int.from_bytes(picture.read_bytes()[20:24], "big")
    blog.visit(url, clicks=1, seed=1, leaving=0)  # arrives after whatever the two would have sent
    assert len({event["page_view_id"] for event in collector.stored}) == 1
    with pytest.raises(Missing, match="no picture"):
        blog.screenshot("http://127.0.0.1:9/", tmp_path / "none.png")


def test_simulated_readers_click_on_the_links_they_name(url, monkeypatch):
    laid = blog.measure(url.rstrip("/"), traffic.links(), [1280])
    monkeypatch.setattr(traffic, "layout", lambda: laid)
    sent = [one.event for one in traffic.simulate(1, 300, seed=1)[0]]
    links = [event for event in sent if event.get("viewport_width") == 1280 and event["path"] == "/" and not event.get("outbound", True)]
    assert links
    with blog.browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": laid["/ 1280"]["height"]})
        page.goto(url)
        for event in links:
            hit = page.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('a').pathname", [event["x"], event["y"]])
            assert hit == event["link_url"].removeprefix(traffic.BLOG)
