"""The broker down, slow, killed during a request and back: a click answered 200 is in the topic, each time."""

import itertools
import json
import signal
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dev_server
import pytest
from clickstream_ingest import delivery
from conftest import PORTS, free_ports
from test_collector import DIFFER, REQUESTS, call, gateway_event, sent, serving, under_aws

from clicklab import collector, servers, topics

pytestmark = pytest.mark.servers
CLIENTS = ["kafka", "kafka-confluent"]
# From the broker's return to the first 200. With the default of kafka-python, connections are tried again after 30 s.
FIRST_ANSWER_S = 20


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker for this file alone, because it is killed; gives the settings of a collector that writes to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
            patch.setenv(name, str(port))
        patch.setenv("CLICKSTREAM_STATE", str(tmp_path_factory.mktemp("outages")))
        servers.need("kafka")
        topics.ensure()
        yield {"KAFKA_BOOTSTRAP_SERVERS": servers.address("kafka"), "DELIVERY_TIMEOUT_MS": "1500"}
        servers.down()


class Sender:
    """Sends clicks as a browser does, a 503 again with the same event_id, and remembers what it was told."""

    def __init__(self, answer):
        self.answer = answer  # body -> status
        self.times_sent = Counter()
        self.acknowledged = set()

    def send(self, event_id: str) -> int:
        self.times_sent[event_id] += 1
        status = self.answer(
            json.dumps({"path": "/outage/", "tag": "A", "timestamp": "2026-01-01T00:00:00Z", "event_id": event_id})
        )
        assert status in (200, 503)
        if status == 200:
            self.acknowledged.add(event_id)
        return status

    def send_until_acknowledged(self, event_id: str) -> None:
        servers.wait_for("a 200", lambda: "" if self.send(event_id) == 200 else "503", FIRST_ANSWER_S, quiet=True)

    def check(self) -> None:
        records = Counter(topics.decoded(record.value)["event_id"] for record in topics.records(topics.CLICKS))
        mine = {event_id: records[event_id] for event_id in self.times_sent}
        assert not [event_id for event_id in self.acknowledged if not mine[event_id]], (
            "answered 200 and not in the topic"
        )
        assert not [one for one, times in mine.items() if times > self.times_sent[one]], "more copies than requests"


def over_http(request):
    return lambda body: request("POST", "/ingest", body, {"Content-Type": "text/plain"})[0]


def by(function):
    return lambda body: function.invoke(gateway_event(body))["statusCode"]


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_killed_during_requests_costs_no_click_that_was_answered_200(broker, client):
    settings = broker | {"CLICK_SINK": client}
    with serving(**settings) as request, collector.function(**settings) as function:
        sender, frozen, late = Sender(over_http(request)), Sender(by(function)), None
        frozen.send_until_acknowledged(new_id())
        refused = threading.Semaphore(0)
        is_over = threading.Event()

        def keep_sending(_):
            unanswered = []
            for event_id in iter(new_id, None):
                if sender.send(event_id) == 503:
                    unanswered.append(event_id)
                    refused.release()
                if is_over.is_set():
                    return unanswered

        with ThreadPoolExecutor(4) as pool:
            rounds = [pool.submit(keep_sending, number) for number in range(4)]
            try:
                servers.wait_for(
                    "clicks under way", lambda: "" if len(sender.acknowledged) > 50 else "few yet", 60, quiet=True
                )
                with servers.held_down("kafka"):
                    assert all(refused.acquire(timeout=30) for _ in rounds), "without a broker, somebody was told 200"
                    with serving(**settings) as second:
                        # A collector that starts now, and has never seen the broker.
                        late = Sender(over_http(second))
                        assert late.send(new_id()) == 503
                servers.wait_usable("kafka")
                sender.send_until_acknowledged(new_id())
            finally:
                is_over.set()
            unanswered = list(itertools.chain(*(each.result() for each in rounds)))
        for event_id in unanswered:
            sender.send_until_acknowledged(event_id)
        frozen.send_until_acknowledged(new_id())  # it slept through the whole outage
    for each in (sender, frozen, late):
        each.check()
    assert sender.times_sent.keys() == sender.acknowledged


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_is_slow_gets_no_200_and_the_retry_makes_at_most_one_copy_more(broker, client):
    with serving(**broker, CLICK_SINK=client) as request:
        sender = Sender(over_http(request))
        sender.send_until_acknowledged(new_id())
        ids = [new_id() for _ in range(8)]
        servers.send_signal("kafka", signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(sender.send, ids)) == {503}
        finally:
            servers.send_signal("kafka", signal.SIGCONT)
        servers.wait_usable("kafka")
        for event_id in ids:
            sender.send_until_acknowledged(event_id)
    sender.check()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_function_killed_right_after_its_answer_has_lost_nothing(broker, client):
    with collector.function(CLICK_SINK=client, **broker) as function:
        sender = Sender(by(function))
        sender.send_until_acknowledged(new_id())
        for _ in range(20):
            sender.send(new_id())
    sender.check()
    assert len(sender.acknowledged) >= 20


def kept_since(ends):
    """What both topics hold after these offsets, less what cannot be the same twice."""
    kept = []
    for topic, offsets in ends.items():
        for record in topics.records(topic):
            if record.offset >= offsets[record.partition]:
                value = {
                    name: told for name, told in json.loads(record.value).items() if name not in DIFFER | {"event_id"}
                }
                is_same_id = dict(record.headers).get("event_id", b"").decode() == json.loads(record.value).get(
                    "event_id"
                )
                kept.append(
                    (topic, json.dumps(value, sort_keys=True), [name for name, _ in record.headers], is_same_id)
                )
    return sorted(kept, key=str)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_three_doors_put_the_same_records_into_the_topics(client, broker, monkeypatch):
    monkeypatch.setenv("CLICK_SINK", client)
    monkeypatch.setattr(delivery, "BOOTSTRAP_SERVERS", [broker["KAFKA_BOOTSTRAP_SERVERS"]])
    fixtures = [each.values[0] for each in REQUESTS if "event" not in each.values[0]]
    agent = {"user-agent": "Mozilla/5.0 (doors)"}

    def event(request_):
        body, is_base64 = dev_server.as_text(sent(request_), request_["headers"].get("content-type", ""))
        return gateway_event(body, method=request_["method"], headers=agent | request_["headers"], is_base64=is_base64)

    settings = broker | {"CLICK_SINK": client}
    with serving(**settings) as request, collector.function(**settings) as function:
        doors = [
            lambda request_: call(event(request_)),
            lambda request_: under_aws(function, event(request_)),
            lambda request_: request(request_["method"], "/ingest", sent(request_), agent | request_["headers"]),
        ]
        kept = []
        for door in doors:
            ends = {topic: topics.end_offsets(topic) for topic in (topics.CLICKS, topics.REJECTED)}
            assert [door(each)[0] for each in fixtures] == [each["expect"]["status"] for each in fixtures]
            kept.append(kept_since(ends))
    delivery.close()
    assert kept[0] == kept[1] == kept[2]
    assert {topic for topic, *_ in kept[0]} == {topics.CLICKS, topics.REJECTED}
