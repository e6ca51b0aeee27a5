"""The ledger names a defect: exactly the id, and the hop. Pure comparisons; the real hops are in test_pipeline.py."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from clickstream_ingest import events

from clicklab import Trouble, connect, landed, ledger, topics
from clicklab.topics import Sighting


def click(number: int) -> dict:
    return {"path": f"/posts/{number}/", "tag": "A", "timestamp": 1_700_000_000_000 + number, "event_id": str(uuid.uuid4())}


@pytest.fixture
def posted(monkeypatch, tmp_path):
    """A run of ten acknowledged clicks in a ledger of its own, and how the topic shows them."""
    monkeypatch.setenv("CLICKSTREAM_STATE", str(tmp_path))
    run = ledger.new_run("99")
    made = [events.normalize(click(n), datetime.now(UTC)) for n in range(10)]
    ledger.write(run, "posted", [c.event_id for c in made], source="test",
                 prints={c.event_id: events.fingerprint(c) for c in made})
    ledger.write(run, "acknowledged", [c.event_id for c in made], source="test")
    seen = [Sighting(c.event_id, n % 3, n // 3, events.fingerprint(c)) for n, c in enumerate(made)]
    return run, seen


def test_a_hop_that_holds_every_click_once_is_fine(posted, capsys):
    run, seen = posted
    ledger.check("the topic", run, lambda since_ms: seen, timeout_s=0)
    assert "10 acknowledged · 10 in the topic" in capsys.readouterr().out


def test_a_lost_click_is_named(posted):
    run, seen = posted
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.check("the table", run, lambda since_ms: seen[1:], timeout_s=0)
    assert caught.value.lost == {seen[0].event_id} and caught.value.hop == "the table"
    assert seen[0].event_id in str(caught.value) and not (caught.value.strangers or caught.value.changed or caught.value.repeated)


def test_a_row_that_is_there_twice_is_named(posted):
    run, seen = posted
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.check("the table", run, lambda since_ms: [*seen, seen[3]], timeout_s=0)
    assert caught.value.repeated == {(seen[3].partition, seen[3].offset)}
    assert not (caught.value.lost or caught.value.strangers or caught.value.changed)


def test_a_record_written_more_often_than_posted_is_named(posted):
    run, seen = posted
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.check("the topic", run, lambda since_ms: [*seen, seen[3]._replace(offset=99)], timeout_s=0)
    assert caught.value.too_often == {seen[3].event_id}


def test_an_altered_id_is_a_lost_click_and_a_stranger(posted):
    run, seen = posted
    altered = str(uuid.uuid4())
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.check("the table", run, lambda since_ms: [seen[0]._replace(event_id=altered), *seen[1:]], timeout_s=0)
    assert caught.value.lost == {seen[0].event_id} and caught.value.strangers == {altered}


def test_an_altered_value_is_named(posted):
    run, seen = posted
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.check("the table", run, lambda since_ms: [*seen[:9], seen[9]._replace(fingerprint="0" * 16)], timeout_s=0)
    assert caught.value.changed == {seen[9].event_id}


def test_a_click_sent_again_after_a_503_is_one_click_and_said_so(posted, capsys):
    run, seen = posted
    again = seen[2]
    ledger.write(run, "posted", [again.event_id], source="test", prints={again.event_id: again.fingerprint})
    ledger.check("the topic", run, lambda since_ms: [*seen, again._replace(offset=77)], timeout_s=0)
    assert "1 clicks sent again have two records, one id" in capsys.readouterr().out


def test_a_click_of_unknown_fate_may_be_there_or_not(posted, capsys):
    run, seen = posted
    unknown = events.normalize(click(11), datetime.now(UTC))
    ledger.write(run, "posted", [unknown.event_id], source="test", prints={unknown.event_id: events.fingerprint(unknown)})
    for reading in (seen, [*seen, Sighting(unknown.event_id, 0, 50, events.fingerprint(unknown))]):
        ledger.check("the topic", run, lambda since_ms, reading=reading: reading, timeout_s=0)
    assert "1 of unknown fate, 1 of them there" in capsys.readouterr().out


def test_a_line_cut_off_by_a_kill_does_not_hide_the_others(posted):
    run, seen = posted
    with open(ledger.file(run), "ab") as file:
        file.write(b'{"event_id":"half')
    assert len(ledger.open_run(run).posted) == 10
    ledger.write(run, "posted", ["after it"], source="test")  # the same run goes on
    assert len(ledger.open_run(run).posted) == 11


def test_a_line_that_is_not_the_ledgers_is_named_with_its_file(posted):
    run, _ = posted
    with open(ledger.file(run), "ab") as file:
        file.write(b'{"event_id": 1}\n')
    with pytest.raises(Trouble, match=f"{run}.jsonl has a line that is not the ledger's") as caught:
        ledger.open_run(run)
    assert "make clean" in caught.value.next


def test_a_click_adopted_from_the_dev_servers_run_is_still_posted_once(posted):
    run, seen = posted
    ledger.file(run).rename(ledger.file(ledger.BROWSER))
    ledger.adopt(run, [seen[0].event_id])
    assert ledger.open_run(run).acknowledged == {seen[0].event_id}
    assert ledger.everything().posted[seen[0].event_id] == 1


@pytest.fixture
def hops(posted, monkeypatch):
    """What topic, table and dead letters show to an audit; it finds the ten clicks in topic and table at first."""
    _, seen = posted
    shown = {"topic": list(seen), "table": list(seen), "dead": {}}
    monkeypatch.setattr(topics, "sightings", lambda since_ms=0: shown["topic"])
    monkeypatch.setattr(landed, "sightings", lambda since_ms=0: shown["table"])
    monkeypatch.setattr(connect, "dead_letters", lambda since_ms=0: shown["dead"])
    return shown


def test_a_strangers_dead_letter_is_counted_and_is_no_click_from_nowhere(hops, capsys):
    hops["topic"].append(Sighting(str(uuid.uuid4()), 0, 50, "0" * 16))
    hops["dead"][0, 50] = "Invalid null value for required INT64 field"
    ledger.audit(timeout_s=0)
    assert "11 records in the topic = 10 rows in the table + 1 dead letters" in capsys.readouterr().out


def test_a_strangers_record_that_lands_comes_from_nowhere(hops):
    stranger = Sighting(str(uuid.uuid4()), 0, 50, "0" * 16)
    hops["topic"].append(stranger)
    hops["table"].append(stranger)
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.audit(timeout_s=0)
    assert caught.value.strangers == {stranger.event_id}


def test_an_acknowledged_click_among_the_dead_letters_is_lost_at_the_table(hops):
    dead = hops["table"].pop(4)
    hops["dead"][dead.partition, dead.offset] = "Converting byte[] to Kafka Connect data failed"
    with pytest.raises(ledger.LedgerError) as caught:
        ledger.audit(timeout_s=0)
    assert (caught.value.hop, caught.value.lost) == ("the table", {dead.event_id})
