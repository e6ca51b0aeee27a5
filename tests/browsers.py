"""What the browser tests share: a real collector, a real server of pages, the browsers. A plugin of conftest.py."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clickstream_ingest import events as contract

from clicklab import Missing, blog, bootstrap

WAIT_S = 30
PRODUCTION_URL = "https://a1b2c3d4e5.execute-api.ap-northeast-2.amazonaws.com/ingest"  # as long as a real one


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a browser that went away before the answer is no error here


class Collector:
    """Takes what browsers post and keeps what the contract accepts. Can be slow, refuse, stop and start again."""

    def __init__(self):
        self.changed = threading.Condition()
        self.stored, self.earlier_views = [], set()
        self.server, self.port = None, 0
        self.clear()
        self.url = f"http://127.0.0.1:{self.port}/ingest"

    def clear(self):
        # The goodbye of a page of the test before may still be on its way, or just being taken.
        with self.changed:
            self.earlier_views |= {event["page_view_id"] for event in self.stored}
            self.stored, self.refused, self.preflights, self.headers = [], [], 0, []
            self.delay_s, self.status, self.allowed_origin = 0, 200, "*"
        if self.server is None:
            self.start()

    def start(self):
        self.connections = []
        self.server = Server(("127.0.0.1", self.port), functools.partial(_Ingest, self))
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        for connection in self.connections:  # browsers keep them open for their next request
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, body, headers):
        """Keep what the contract accepts; return the status to answer with."""
        parsed = contract.parse({"body": body}, datetime.now(UTC), collector="dev")
        with self.changed:
            self.headers.append(headers)
            if self.status == 200:
                self.stored += [
                    json.loads(contract.encode(click))
                    for click in parsed.good
                    if click.page_view_id not in self.earlier_views
                ]
                self.refused += [row.reason for row in parsed.bad]
            self.changed.notify_all()
            return parsed.status if self.status == 200 else self.status

    def wait_for(self, is_enough):
        """Return the stored events as soon as there are enough of them."""
        with self.changed:
            if not self.changed.wait_for(lambda: is_enough(self.stored), WAIT_S):
                raise AssertionError(
                    f"not in {WAIT_S} s; stored: {Counter(e['event_name'] for e in self.stored)}, "
                    f"refused: {self.refused}"
                )
            return list(self.stored)


class _Ingest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, collector, *arguments):
        self.collector = collector
        collector.connections.append(arguments[0])
        super().__init__(*arguments)

    def answer(self, status):
        self.send_response(status)
        if self.collector.allowed_origin:
            self.send_header("Access-Control-Allow-Origin", self.collector.allowed_origin)
            self.send_header("Access-Control-Allow-Headers", "content-type")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.collector.delay_s)  # the slow server, not a wait of the test
        self.answer(self.collector.take(body.decode(), dict(self.headers)))

    def do_OPTIONS(self):
        self.collector.preflights += 1
        time.sleep(self.collector.delay_s)
        self.answer(204)

    def log_message(self, *_):
        pass


class _Pages(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder):
    """Serve a folder until the tests end; return its address, with a slash at the end."""
    server = Server(("127.0.0.1", 0), functools.partial(_Pages, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def ids(stored):
    return Counter(event["event_id"] for event in stored)


def assert_each_once_and_no_gaps(stored):
    assert [event_id for event_id, times in ids(stored).items() if times > 1] == []
    seqs = defaultdict(list)
    for event in stored:
        seqs[event["page_view_id"]].append(event["seq"])
    assert {view: sorted(seq) for view, seq in seqs.items()} == {
        view: list(range(len(seq))) for view, seq in seqs.items()
    }


def clicks(stored):
    return [event for event in stored if event["event_name"] == "click"]


# What the snippet keeps until it is answered, and what it has to send again.
SENT = "Object.keys(sessionStorage).filter(key => key.startsWith('clickstream ')).length"
QUEUED = "Object.keys(localStorage).filter(key => key.startsWith('clickstream ')).length"


@pytest.fixture(scope="session")
def collector():
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="session")
def site(collector, tmp_path_factory):
    return blog.build(tmp_path_factory.mktemp("blog"), endpoint=collector.url)


@pytest.fixture(scope="session")
def url(site):
    return serve(site)


@pytest.fixture(scope="session")
def production(tmp_path_factory):
    return blog.build(tmp_path_factory.mktemp("production"), production=True, endpoint=PRODUCTION_URL)


def launch(name, tmp_path_factory, **preferences):
    """Start a browser to which blog.test is this machine: by plain http it has neither randomUUID nor Web Locks."""
    if name == "chromium":
        return blog.browser(
            args=["--host-resolver-rules=MAP blog.test 127.0.0.1"], ignore_default_args=["--disable-back-forward-cache"]
        )
    program = bootstrap.firefox()
    if program is None:
        raise Missing(
            "A second browser is needed, and there is no Firefox on this machine.",
            "what holds in one browser need not hold in the next",
            bootstrap.install_command(["firefox"]),
        )
    start = tmp_path_factory.mktemp("firefox") / "start"
    between = Path(__file__).with_name("firefox_for_playwright.py")
    start.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{between}' '{program}' \"$@\"\n")
    start.chmod(0o755)
    return blog.launched(
        "firefox",
        channel="moz-firefox",
        executable_path=start,
        firefox_user_prefs={"network.dns.localDomains": "blog.test"} | preferences,
    )


@pytest.fixture(
    scope="module",
    params=["chromium", pytest.param("firefox", marks=pytest.mark.browsers)],
    ids=["Chromium", "Firefox"],
)
def browser(request, tmp_path_factory):
    with launch(request.param, tmp_path_factory) as browser:
        yield browser


@pytest.fixture
def context(request, browser, collector):
    request.node.user_properties.append(("browser", f"{browser.browser_type.name.title()} {browser.version}"))
    collector.clear()
    context = browser.new_context(locale="ko-KR", timezone_id="Asia/Seoul")
    context.set_default_timeout(WAIT_S * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context, url):
    page = context.new_page()
    page.goto(url + "elements/")
    return page
