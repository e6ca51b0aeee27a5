"""A web server's access log, replayed: what is a page view, what is not, and what becomes of lines that are no lines."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
from datetime import UTC, datetime

import pytest

from clicklab import Trouble, access_log, landed, ledger, replay, topics
from clicklab.replay import Unreadable

AGENT = '"Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"'


def line(path="/posts/one/", at="21/May/2025:12:00:00 +0900", host="203.0.113.7", request=None, status=200, rest=f'"-" {AGENT}') -> str:
    return f'{host} - - [{at}] "{request or f"GET {path} HTTP/1.1"}" {status} 5120 {rest}'.strip() + "\n"


def read(*lines: str) -> list[replay.Line]:
    return list(access_log.lines_of(io.BytesIO("".join(lines).encode())))


def view(text: str):
    [one] = read(text)
    found = access_log.judge(one)
    return found.good[0] if found else None


def test_a_page_view_has_its_page_time_and_browser_and_no_address():
    found = view(line(rest=f'"https://search.example/find?q=secret" {AGENT}'))
    assert (found.path, found.event_name, found.tag, found.collector) == ("/posts/one/", "page_view", "", "replay")
    assert found.timestamp == found.received_at == int(datetime(2025, 5, 21, 3, tzinfo=UTC).timestamp() * 1000)
    assert found.referrer == "https://search.example/find" and found.user_agent == AGENT.strip('"') and not found.is_bot
    assert "203.0.113.7" not in repr(found)


@pytest.mark.parametrize("text, path", [
    pytest.param(line(rest=""), "/posts/one/", id="common-format"),
    pytest.param(line("/a?utm=1#x"), "/a", id="query"),
    pytest.param(line("/%ED%95%9C/"), "/%ED%95%9C/", id="hangul"),
    pytest.param(line("/about.html", status=304), "/about.html", id="not-modified"),
    pytest.param(line(host="2001:db8::1"), "/posts/one/", id="ipv6"),
    pytest.param(line(host="blog.example:443 203.0.113.7"), "/posts/one/", id="with-virtual-host"),
    pytest.param(line(rest=r'"-" "a \"quoted\" name"'), "/posts/one/", id="escaped-quote"),
    pytest.param(line(request="GET /old"), "/old", id="http-0.9"),
])
def test_pages_are_page_views(text, path):
    assert view(text).path == path


@pytest.mark.parametrize("text", [
    pytest.param(line("/assets/style.css"), id="style-sheet"), pytest.param(line("/a/b.png?v=1"), id="picture"),
    pytest.param(line(status=404), id="not-there"), pytest.param(line(status=301), id="moved"),
    pytest.param(line(request="POST /ingest HTTP/1.1"), id="form"), pytest.param(line(request="HEAD / HTTP/1.1"), id="head"),
    pytest.param(line(request="-", status=408), id="no-request"),
])
def test_what_is_no_page_is_no_page_view(text):
    assert view(text) is None


@pytest.mark.parametrize("text, reason", [
    pytest.param("half a line\n", "neither", id="words"), pytest.param("\n", "neither", id="empty"),
    pytest.param(line()[:40], "neither", id="cut-off"), pytest.param("\x00\x01\n", "neither", id="binary"),
    pytest.param(line(at="99/Foo/2025:12:00:00 +0900"), "no time", id="no-time"), pytest.param("x" * 200_000 + "\n", "longer", id="endless"),
])
def test_a_line_that_is_no_line_is_named_by_number_and_the_next_one_is_read(text, reason):
    found = read(line(), text if text.endswith("\n") else text + "\n", line("/next/"))
    assert [one.name for one in found] == ["line 1", "line 2", "line 3"]
    with pytest.raises(Unreadable, match=reason):
        access_log.judge(found[1])
    assert access_log.judge(found[2]).good[0].path == "/next/"


def test_a_crawler_is_marked_as_a_bot():
    assert view(line(rest='"-" "Googlebot/2.1 (+http://www.google.com/bot.html)"')).is_bot


def test_the_same_line_has_the_same_id_in_any_file_and_equal_lines_are_several_views():
    # In the first file a slower answer, of a second before, was written between them.
    first, second = read(line(), line(at="21/May/2025:11:59:59 +0900"), line(host="198.51.100.1")), read("noise\n", line(), line())[1:]
    first = first[::2]
    assert [one.place for one in first] == [one.place for one in second]
    assert first[0].place != first[1].place


class Endless(io.RawIOBase):
    """Lines made as they are read, a second apart."""

    def __init__(self, lines: int):
        self.left = lines

    def readline(self, limit=-1):
        self.left -= 1
        at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(1_750_000_000 - self.left))
        return line(f"/{self.left % 100}/", at).encode() if self.left >= 0 else b""


def test_memory_stays_flat_however_long_the_log_is():
    tracemalloc.start()
    views = sum(access_log.judge(one) is not None for one in access_log.lines_of(Endless(30_000)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Held together the lines would take 12 MB; Python keeps up to 4 MB for itself, once.
    assert views == 30_000 and peak_bytes < 6e6


@pytest.mark.servers
def test_a_log_comes_into_the_topic_once_and_the_ledger_holds(pipeline, tmp_path):
    now = datetime.now(UTC)
    lines = [line(f"/posts/{number}/", f"{now:%d/%b/%Y:%H:%M:%S} +0000") for number in range(500)]
    log = tmp_path / "access.log"
    log.write_text("".join([*lines[:400], "damaged\n", line("/style.css"), *lines[:2]]))
    report = access_log.from_file(log, run="replay-test-log")
    assert (report.sent, report.other, report.unreadable.total(), report.lines) == (402, 1, 1, 404)
    assert "line 401" in str(report)
    with gzip.open(tmp_path / "access.log.1.gz", "wt") as file:
        file.writelines(lines)
    again = access_log.from_file(tmp_path / "access.log.1.gz", run="replay-test-log")
    assert (again.sent, again.known) == (100, 400)
    ledger.check("the topic", "replay-test-log", topics.sightings)
    ledger.check("the table", "replay-test-log", landed.sightings)


@pytest.mark.servers
def test_the_next_day_of_a_log_waits_until_the_sink_has_landed_the_days_before(second_state, tmp_path):
    log = tmp_path / "access.log"
    log.write_text("".join(line(at=f"{day}/May/2025:12:00:00 +0900") for day in (21, 22, 23)))
    for _ in range(2):  # trying again does not get around it
        with pytest.raises(Trouble, match="have to wait"):
            access_log.from_file(log)
    assert sum(topics.end_offsets(topics.CLICKS).values()) == 1


@pytest.mark.servers
def test_files_that_are_no_log_are_refused_with_the_reason(pipeline, tmp_path):
    with pytest.raises(Trouble, match="cannot be read"):
        access_log.from_file(tmp_path / "absent.log")
    other = tmp_path / "other.log"
    other.write_text("ts=1 level=info\n" * 2000)
    with pytest.raises(Trouble, match="no access log") as refused:
        access_log.from_file(other)
    assert "line 1: neither" in refused.value.why
    (tmp_path / "empty.log").touch()
    assert "0 lines read" in str(access_log.from_file(tmp_path / "empty.log"))
    for times in (20, 2000):
        cut = tmp_path / f"cut-{times}.log.gz"
        cut.write_bytes(gzip.compress(line().encode() * times)[:-20])
        with pytest.raises(Trouble, match="ends in the middle"):
            access_log.from_file(cut, run="replay-cut-log")
