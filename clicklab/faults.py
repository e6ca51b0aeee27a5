"""Kill a server while clicks are produced, then count them. `python -m clicklab drill`, and the tests, call it."""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from clicklab import Trouble, collector, connect, landed, ledger, servers, topics, traffic

# What has to hold, said before the drill starts.
EXPECTED = {
    "connect": "supervisor starts Connect again, the sink goes on at its last commit; every click lands once",
    "kafka": "the collector answers 503 while the broker is away and the clicks are sent again; a retry may write one twice",
    "namenode": "the sink retries until the NameNode is back, or fails and the guard restarts it; every click lands once",
    "datanode": "the sink fails, the guard restarts it when the DataNode is back; every click lands once",
    "ingest": "clicks without an answer are sent again; a retry may write one twice",
}
PER_S = 1500
LANDING_TIMEOUT_S = 240  # a killed sink, an aborted transaction and a few commit intervals


def drill(server: str, clicks: int, seed: int) -> dict[str, float]:
    """Produce clicks over HTTP, kill a server with SIGKILL in the middle, and hold the ledger against the table.

    Parameters
    ----------
    server : str
        One of `faults.EXPECTED`.
    clicks : int
        Events to produce; the kill comes when between a third and two thirds of them are acknowledged.
    seed : int
        Of the readers and of the moment of the kill.

    Returns
    -------
    dict
        `usable_s` (kill to usable again) and `landed_s` (usable again to all landed), in seconds.

    Raises
    ------
    LedgerError
        A click is lost, doubled, changed, or comes from nowhere.
    """
    if server not in EXPECTED:
        raise Trouble(f"There is no drill for {server}.", f"there are {', '.join(EXPECTED)}", "choose one of them")
    servers.need("kafka", "namenode", "datanode", "connect", "ingest", "guard")
    connect.register()
    run = ledger.new_run("06")
    kill_after = int(clicks * random.Random(seed).uniform(1 / 3, 2 / 3))
    print(f"drill {server}: kill -9 after about {kill_after:,} of {clicks:,} clicks\nexpected: {EXPECTED[server]}", flush=True)
    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(collector.post, traffic.readers(clicks, seed), run, tries=12, per_s=PER_S,
                              user_agent=traffic.USER_AGENT)
        servers.wait_for("enough clicks", lambda: _still_missing(run, kill_after) if not posting.done() else "", 120, quiet=True)
        before = servers.pid(server)
        servers.send_signal(server, signal.SIGKILL)
        killed = time.monotonic()
        servers.wait_for(f"{server} to be started again", lambda: "still the old process" if servers.pid(server) == before else "",
                         30, quiet=True)
        servers.wait_usable(server)
        usable = time.monotonic()
        print(f"{server} was killed and is usable again after {usable - killed:.1f} s", flush=True)
        print(posting.result(), flush=True)
    ledger.check("the topic", run, topics.sightings)
    ledger.check("the table", run, landed.sightings, timeout_s=LANDING_TIMEOUT_S)
    landed_s = time.monotonic() - usable
    ledger.audit(LANDING_TIMEOUT_S)
    print(f"drill {server}: the ledger holds; all landed {landed_s:.1f} s after the server was back", flush=True)
    return {"usable_s": usable - killed, "landed_s": landed_s}


def _still_missing(run: str, wanted: int) -> str:
    there = len(ledger.open_run(run).acknowledged)
    return "" if there >= wanted else f"{there:,} of {wanted:,} acknowledged"
