"""Fixtures: the real pipeline on free ports, with its own data, so that a learner's pipeline is left alone."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["browsers"]
ROOT = Path(__file__).resolve().parents[1]
PORTS = [line.split("=")[0] for line in (ROOT / "compose" / "defaults.env").read_text().splitlines() if "_PORT=" in line]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The course first: it takes as long as all other files together, which the other worker runs meanwhile.
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")
    for item in items:
        marker = item.get_closest_marker("only_checked")
        about = marker.args[0] if marker else (item.module.__doc__ or item.module.__name__).strip().splitlines()[0]
        item.user_properties.append(("only checked" if marker else "executed", about))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this run has executed, and what it has only read."""
    told = {kind: Counter() for kind in ("executed", "only checked", "browser")}
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for kind, about in report.user_properties if report.when == "call" else ():
            told[kind][about] += 1
    terminalreporter.section("what was executed, and what was only checked")
    for kind, counts in told.items():
        for about, tests in sorted(counts.items()):
            terminalreporter.line(f"{kind:<13} {about}  ({tests} {'test' if tests == 1 else 'tests'})")


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, from a range of this worker's own, below those that clients get: none is taken until it is needed."""
    first = 10_000 + 5_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    free = []
    for port in random.SystemRandom().sample(range(first, first + 5_000), 5_000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"no {count} free ports from {first} to {first + 4_999}")


@pytest.fixture(scope="session", autouse=True)
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State, products and ports of this worker's own, for everything that the tests start in processes too."""
    data = tmp_path_factory.mktemp("pipeline")
    os.environ.update({name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)})
    os.environ.update(CLICKSTREAM_STATE=str(data / "state"), CLICKSTREAM_BUILD=str(data / "build"), COMMIT_INTERVAL_MS="5000")
    yield data
    from clicklab import servers

    servers.down()


@pytest.fixture(scope="session")
def pipeline(own_data: Path):
    """All servers, usable, with the sink registered."""
    from clicklab import connect, servers

    servers.up(tuple(name for name in servers.SERVERS if name != "blog"))
    connect.register()
    return servers


@pytest.fixture
def second_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty state on other ports, for tests that break what others need."""
    from clicklab import servers

    state = tmp_path_factory.mktemp("second")
    for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
        monkeypatch.setenv(name, str(port))
    monkeypatch.setenv("CLICKSTREAM_STATE", str(state))
    yield state
    servers.down()


def run_clicklab(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m clicklab …` as a person would; returns what it printed and its exit status."""
    return subprocess.run([sys.executable, "-m", "clicklab", *words], env={**os.environ, **environment}, cwd=cwd,
                          capture_output=True, text=True, timeout=900)
