"""Simulated readers: they walk the blog's links, send what the contract takes, and what was planted is what they did."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pandas as pd
import pytest
import requests
from clickstream_ingest import events

from clicklab import connect, landed, ledger, servers, traffic

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def week() -> tuple[pd.DataFrame, traffic.Truth]:
    """A week of readers as the table would hold it: what is sent, received_at, is_bot."""
    sent, truth = traffic.simulate(7, 1500, seed=7)
    rows = [as_row(traffic.click_of(one, "test")) for one in sent]
    return pd.DataFrame(rows), truth


def as_row(click: events.Click) -> dict:
    return {name: getattr(click, name) for name in events.FIELDS}


def test_the_same_seed_makes_the_same_readers_as_other_events():
    once, again = traffic.readers(300, 7), traffic.readers(300, 7)
    assert len(once) == len(again) == 300
    assert [(e["path"], e["event_name"], e["seq"]) for e in once] == [(e["path"], e["event_name"], e["seq"]) for e in again]
    assert not {e["event_id"] for e in once} & {e["event_id"] for e in again}


def test_readers_of_now_keep_the_contract():
    now = datetime.now(UTC)
    for event in traffic.readers(2000, 3):
        events.normalize(event, now)


@pytest.mark.parametrize("is_built", [True, False], ids=["read-from-pages", "listed"])
def test_readers_walk_the_links_there_are(is_built, monkeypatch, tmp_path):
    monkeypatch.setenv("CLICKSTREAM_STATE", str(tmp_path))
    if is_built:
        for name, target in (("", "/about/"), ("about/", "/"), ("posts/one/", "../../about/")):
            (tmp_path / "blog" / "site" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "blog" / "site" / name / "index.html").write_text(
                f'<body><p>Text</p><a href="{target}"><span>on</span></a><a href="https://example.org/">out</a></body>')
        assert traffic.links()["/posts/one/"][0] == traffic.Link("/about/", ("SPAN",), pytest.approx(4 / 9, abs=0.01))
    graph = traffic.links()
    _, truth = traffic.simulate(1, 200, seed=1)
    assert truth.moves and all(to in {link.target for link in graph[page]} for page, to in truth.moves)


def test_history_arrives_in_order_and_within_its_days(week):
    clicks, _ = week
    assert clicks["received_at"].is_monotonic_increasing
    assert clicks["received_at"].max() - clicks["corrected_at"].min() <= 7 * DAY_MS


def test_planted_rates_are_found_in_the_events(week):
    clicks, truth = week
    clicks = clicks.drop_duplicates("event_id")
    per_view = clicks.groupby("page_view_id")["seq"].agg(["count", "max"])
    missed, expected = (per_view["max"] + 1 - per_view["count"]).sum(), per_view["max"].sum()
    assert missed / expected == pytest.approx(traffic.HABITS.loss_share, abs=3 * (0.02 * 0.98 / expected) ** 0.5)
    people = clicks[~clicks["is_bot"]].sort_values("corrected_at")
    gaps = people.groupby("session_id")["corrected_at"].diff()
    begins = gaps.isna() | (gaps > 30 * 60_000)
    assert begins.sum() == pytest.approx(truth.visits, rel=0.02)
    wrong = (people["timestamp"] - people["corrected_at"]).abs() > 60_000
    assert (begins & wrong).sum() == pytest.approx(truth.wrong_clocks, rel=0.05)


def test_history_is_cut_at_full_hours_into_slices_a_commit_can_hold():
    sent, _ = traffic.simulate(5, 300, seed=2)
    parts = list(traffic._slices(sent))
    hours = [{one.received_at // 3_600_000 for one in part} for part in parts]
    assert sum(map(len, parts)) == len(sent) and max(map(len, hours)) <= traffic.HOURS_A_COMMIT
    assert max(Counter(hour for part in hours for hour in part).values()) == 1


@pytest.mark.servers
def test_history_lands_once_as_replay_and_leaves_the_interval_as_it_was(pipeline):
    run = ledger.new_run("95")
    truth = traffic.history(1, 60, 4, run)
    ledger.check("the table", run, landed.sightings)
    mine = landed.clicks(["event_id", "collector", "received_at"])
    mine = mine[mine["event_id"].isin(ledger.open_run(run).acknowledged)]
    assert set(mine["collector"]) == {"replay"}
    assert mine["received_at"].max() - mine["received_at"].min() > pd.Timedelta(hours=12)
    assert sum(ledger.open_run(run).posted.values()) - len(mine) <= truth.twice
    kept = requests.get(f"{servers.url('connect')}/connectors/{connect.SINK}/config", timeout=10).json()
    assert kept == {"name": connect.SINK, **connect.config()}
