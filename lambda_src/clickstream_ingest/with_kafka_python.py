"""CLICK_SINK=kafka: the producer of kafka-python, in plain Python, which installs anywhere. What the course teaches."""

import logging
import time
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from clickstream_ingest.delivery import NotAcknowledged, Record, Security

# At level DEBUG kafka-python logs each record with its value, and these are about people.
logging.getLogger("kafka").setLevel(logging.WARNING)


class Client:
    """See `delivery.Client`."""

    def __init__(self, servers: list[str], timeout_ms: int, connect_ms: int, security: Security) -> None:
        self.is_spent = False
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=servers,
                bootstrap_timeout_ms=connect_ms,
                acks="all",
                enable_idempotence=True,  # said, so that a setting against it is an error and not a silent no
                metrics_enabled=False,  # nobody reads them, and they cost a sixth of a send
                linger_ms=0,  # on Lambda, threads stop when the handler returns: nothing may wait for company
                delivery_timeout_ms=timeout_ms,
                request_timeout_ms=timeout_ms // 2,
                max_block_ms=timeout_ms // 2,
                reconnect_backoff_ms=50,
                reconnect_backoff_max_ms=1000,  # the default, 30 s, is how long clicks are refused after an outage
                security_protocol=security.protocol,
                sasl_mechanism=security.mechanism,
                sasl_plain_username=security.username,
                sasl_plain_password=security.password,
                ssl_cafile=security.ca_file,
            )
        except KafkaError as error:
            raise NotAcknowledged(str(error)) from error

    def send(self, records: list[Record], deadline: float) -> None:
        try:
            futures = [
                self._producer.send(
                    each.topic, each.value, key=each.key, headers=each.headers, timestamp_ms=each.timestamp_ms
                )
                for each in records
            ]
        except KafkaError as error:
            raise NotAcknowledged(str(error)) from error
        try:
            # Each is asked: flush() returns quietly when a record has failed.
            for future in futures:
                future.get(timeout=max(0.0, deadline - time.monotonic()))
        except KafkaError as error:
            # A record that times out between two attempts leaves kafka-python 3.0.12 without a producer id for good: it
            # sends nothing any more, even when the broker is back.
            self.is_spent = True
            raise NotAcknowledged(str(error)) from error

    def close(self) -> None:
        # The producer's own close() would flush first, and give up without closing when it can not. There is no public
        # way around that.
        self._producer._sender.force_close()
        self._producer._sender.join(timeout=1)
        with suppress(KafkaError):
            self._producer.close(timeout=0)
