"""CLICK_SINK=kafka-confluent: the producer of confluent-kafka, written in C, for volume. Not part of the course's packages."""

import threading
import time

from clickstream_ingest.delivery import NotAcknowledged, Record, Security

try:
    from confluent_kafka import KafkaException, Producer
except ImportError as missing:
    raise ImportError(
        "CLICK_SINK=kafka-confluent needs the package confluent-kafka, which is not installed. "
        "Add it to what is deployed, or choose CLICK_SINK=kafka."
    ) from missing


class Answers:
    """What the broker said to the records of one request. The last answer wakes it, and not each."""

    def __init__(self, awaited: int) -> None:
        self.awaited = awaited
        self.error = None
        self.are_here = threading.Event()

    def add(self, error, _) -> None:  # by the collecting thread only
        self.awaited -= 1
        self.error = self.error or error
        if not self.awaited:
            self.are_here.set()


class Client:
    """See `delivery.Client`."""

    def __init__(self, servers: list[str], timeout_ms: int, connect_ms: int, security: Security) -> None:
        if security.mechanism == "AWS_MSK_IAM":
            raise ValueError("confluent-kafka does not know AWS_MSK_IAM. Choose CLICK_SINK=kafka, or SCRAM-SHA-512.")
        self.is_spent = False
        told = {
            "security.protocol": security.protocol,
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": security.password,
            "ssl.ca.location": security.ca_file,
        }
        self._producer = Producer(
            {
                "bootstrap.servers": ",".join(servers),
                "acks": "all",
                "enable.idempotence": True,
                # As kafka-python and Java hash a key; librdkafka's own default would put a page view elsewhere.
                "partitioner": "murmur2_random",
                "linger.ms": 0,  # on Lambda, threads stop when the handler returns: nothing may wait for company
                "message.timeout.ms": timeout_ms,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                **{name: value for name, value in told.items() if value is not None},
            }
        )
        self._is_open = True
        # One thread collects the acknowledgments for all requests that wait.
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while self._is_open:
            self._producer.poll(0.1)

    def send(self, records: list[Record], deadline: float) -> None:
        answers = Answers(len(records))
        try:
            for each in records:
                self._producer.produce(
                    each.topic,
                    each.value,
                    each.key,
                    timestamp=each.timestamp_ms,
                    headers=each.headers,
                    on_delivery=answers.add,
                )
        except (KafkaException, BufferError) as error:
            raise NotAcknowledged(str(error)) from error
        if not answers.are_here.wait(max(0.0, deadline - time.monotonic())):
            raise NotAcknowledged("no answer from the broker in time")
        if answers.error is not None:
            self.is_spent = answers.error.fatal()
            raise NotAcknowledged(answers.error.str())

    def close(self) -> None:
        self._is_open = False
        self._producer.purge()
