"""CLICK_SINK=kafka-confluent: the producer of confluent-kafka, written in C, for volume. Not part of the course's packages."""

import asyncio
import threading
import time
from collections.abc import Callable

from clickstream_ingest.delivery import NotAcknowledged, Record, Security

try:
    from confluent_kafka import KafkaException, Producer
except ImportError as missing:
    raise ImportError(
        "CLICK_SINK=kafka-confluent needs the package confluent-kafka, which is not installed. "
        "Add it to what is deployed, or choose CLICK_SINK=kafka."
    ) from missing


TOO_LATE = "no answer from the broker in time"


class Answers:
    """What the broker said to the records of one request. The last answer wakes who waits, and not each."""

    def __init__(self, awaited: int, wake: Callable[[], object]) -> None:
        self.awaited = awaited
        self.error = None
        self.wake = wake

    def add(self, error, _) -> None:  # by the collecting thread only
        self.awaited -= 1
        self.error = self.error or error
        if not self.awaited:
            self.wake()


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
                # So that the clicks of a request leave together, a batch for each partition, and not as they are handed
                # over: a quarter less of the processor for 20. `send` waits for all, so nothing lingers in a frozen function.
                "linger.ms": 1,
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
        are_here = threading.Event()
        answers = self._hand_over(records, are_here.set)
        if not are_here.wait(max(0.0, deadline - time.monotonic())):
            raise NotAcknowledged(TOO_LATE)
        self._judge(answers)

    async def sent(self, records: list[Record], deadline: float) -> None:
        """Do what `send` does without stopping the event loop.

        Not confluent_kafka.aio's producer, which takes no headers.
        """
        loop, are_here = asyncio.get_running_loop(), asyncio.Event()
        answers = self._hand_over(records, lambda: loop.call_soon_threadsafe(are_here.set))
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await are_here.wait()
        except TimeoutError as error:
            raise NotAcknowledged(TOO_LATE) from error
        self._judge(answers)

    def _hand_over(self, records: list[Record], wake: Callable[[], object]) -> Answers:
        answers = Answers(len(records), wake)
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
        return answers

    def _judge(self, answers: Answers) -> None:
        if answers.error is not None:
            self.is_spent = answers.error.fatal()
            raise NotAcknowledged(answers.error.str())

    def close(self) -> None:
        self._is_open = False
        self._producer.purge()
