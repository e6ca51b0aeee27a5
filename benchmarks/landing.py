"""Measure how late clicks land at the real five minutes, and keep the histogram with its date.

    python benchmarks/landing.py                 # two intervals of 300,000 ms, a click each 100 ms: twelve minutes
    python benchmarks/landing.py --interval-ms 10000 --intervals 6

Needs the servers (`make up`). Clicks are posted through the collector at a steady pace, so that they arrive all along the
intervals; the ledger checks that all have landed, and the sink gets the notebooks' interval back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import results
import typer

from clicklab import charts, collector, connect, landed, ledger, servers, topics, traffic

HERE = Path(__file__).parent
PICTURE = "landing-delay.png"


def main(interval_ms: Annotated[int, typer.Option(help="ms between two commits of the sink")] = 300_000,
         intervals: Annotated[int, typer.Option(help="for how many intervals clicks are posted")] = 2,
         per_s: Annotated[float, typer.Option(help="clicks a second")] = 10) -> None:
    servers.need("kafka", "namenode", "datanode", "connect", "ingest", "guard")
    topics.ensure()
    run = ledger.new_run("landing")
    try:
        connect.register(interval_ms)
        clicks = traffic.readers(int(intervals * interval_ms / 1000 * per_s), 11)
        print(collector.post(clicks, run, batch=1, connections=1, per_s=per_s, user_agent=traffic.USER_AGENT))
        ledger.check("the table", run, landed.sightings, timeout_s=2 * interval_ms / 1000 + 60)
    finally:
        connect.register()
    since_ms = ledger.open_run(run).since_ms
    received = landed.clicks(["event_id", "received_at"], since_ms=since_ms).set_index("event_id")["received_at"]
    committed = landed.arrivals(since_ms).drop_duplicates("event_id").set_index("event_id")["committed_ms"]
    mine = sorted(ledger.open_run(run).acknowledged)
    delay_s = (pd.to_datetime(committed[mine], unit="ms", utc=True) - received[mine]).dt.total_seconds()
    write_results(delay_s, interval_ms / 1000, committed[mine].nunique())


def write_results(delay_s: pd.Series, interval_s: float, commits: int) -> None:
    """Draw the histogram, and write its figures into RESULTS.md, between its markers."""
    plt = charts.plt
    with charts.style():
        fig, ax = plt.subplots()
        ax.hist(delay_s, bins=30)
        ax.axvline(interval_s, color=charts.ORANGE, linestyle="--", label=f"commit interval, {interval_s:.0f} s")
        ax.set(xlim=(0, None), title=f"Half of the clicks land within {delay_s.median():.0f} s, 99 of 100 within {delay_s.quantile(0.99):.0f} s",
               xlabel="Seconds from received to committed", ylabel="Clicks")
        ax.legend()
    fig.savefig(HERE / PICTURE, dpi=110)
    told = (f"{results.machine()}\n\n{len(delay_s):,} clicks in {commits} commits, {interval_s:.0f} s apart. "
            f"Half land within {delay_s.median():.1f} s, 99 of 100 within {delay_s.quantile(0.99):.1f} s, the last after {delay_s.max():.1f} s: {delay_s.quantile(0.99) / interval_s:.2f} of the interval at 99 of 100.\n\n"
            f"![Histogram of the landing delays of {len(delay_s):,} clicks at a commit interval of {interval_s:.0f} s.]({PICTURE})")
    print(results.text("landing", told))


if __name__ == "__main__":
    typer.run(main)
