"""Clients of Kafka that end with the block in which they are used, and producers that cannot hang.

One that outlives its broker says so on stderr for as long as its process lives. ``AdminClient`` and ``Consumer`` are
context managers that end at once. A producer's own ``close`` waits: for what is undelivered, minutes where the broker
is gone, and for the end of a transaction, without limit there. So one that writes without transactions is a
`BoundedProducer`; a transactional one is dropped (``del``), which ends it at once and leaves its transaction to its
timeout or to the next producer of its id.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from itertools import count
from threading import RLock, Thread
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from tailrace.streaming.records import Headers, Record

PATIENCE_S = 120.0
"""How long a record may be on its way."""
_END_S = 2.0

Delivered = Callable[[KafkaError | None, Any], None]


class _OnItsWay(NamedTuple):
    since: float
    delivered: Delivered | None


class BoundedProducer:
    """A producer without transactions; of each record it says what became of it within ``patience_s`` (docs/adr/0200).

    librdkafka promises the same, but has been seen to keep silent for ever after its broker was killed several times,
    and to write records of one partition twice after it had given up those of another. So when a record's report is
    overdue, all that are on their way are reported as `is_unknown`, and a new producer goes on. None of them is sent
    again: nobody knows which of them Kafka has, and a new producer cannot find out. After a fatal error, too, a new
    producer goes on. Threads may share it.

    Args:
        options: librdkafka's; idempotent, and partitioned as by Java, unless they say otherwise.
        make: makes a producer of them.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        patience_s: float = PATIENCE_S,
        make: Callable[[dict[str, Any]], Any] = Producer,
    ) -> None:
        assert "transactional.id" not in options, "a transactional producer is dropped, not closed"
        # librdkafka's own limit is not to be reached: where a record's time is up, it takes another epoch, and sends
        # again under it what is unanswered in other partitions, which Kafka may have.
        own = {"delivery.timeout.ms": int(2_000 * patience_s)}
        usual = {
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "reconnect.backoff.max.ms": 1_000,
        }
        self._options = {**usual, **options, **own}
        self._patience_s, self._make = patience_s, make
        self._lock = RLock()
        self._tickets = count()
        self._on_their_way: dict[int, _OnItsWay] = {}
        self._producer = make(dict(self._options))

    def __len__(self) -> int:
        """How many records are on their way."""
        return len(self._on_their_way)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        *,
        partition: int = -1,
        headers: Headers = (),
        on_delivery: Delivered | None = None,
    ) -> None:
        """Hands a record over; waits for room where too many are on their way.

        Raises:
            KafkaException: it is not taken.
        """
        while True:
            with self._lock:
                producer, ticket = self._producer, next(self._tickets)
                self._on_their_way[ticket] = _OnItsWay(time.monotonic(), on_delivery)
            try:
                producer.produce(
                    topic,
                    value,
                    key,
                    partition=partition,
                    headers=list(headers),
                    on_delivery=lambda error, message, ticket=ticket: self._report(ticket, error, message),
                )
                return
            except BufferError:
                self._on_their_way.pop(ticket, None)
                self.poll(0.05)
            except KafkaException as error:
                self._on_their_way.pop(ticket, None)
                if not error.args[0].fatal():
                    raise
                self._replace(producer)

    def deliver(self, records: Iterable[Record], timeout_s: float) -> list[int]:
        """The offsets of records, once Kafka has them all.

        Raises:
            KafkaException: it does not take one, or has not said so in time (`is_unknown`).
        """
        reports: list[tuple[KafkaError | None, Any]] = []
        for number, record in enumerate(records):
            reports.append((_no_answer(timeout_s), None))
            self.produce(
                record.topic,
                record.value,
                record.key,
                partition=-1 if record.partition is None else record.partition,
                headers=record.headers,
                on_delivery=lambda *report, number=number: operator.setitem(reports, number, report),
            )
        self.flush(timeout_s)
        offsets = []
        for error, message in reports:
            if error is not None:
                raise KafkaException(error)
            offsets.append(int(message.offset()))
        return offsets

    def poll(self, timeout_s: float) -> None:
        """Lets reports come in."""
        self._producer.poll(timeout_s)
        self._replace_if_overdue()

    def flush(self, timeout_s: float) -> int:
        """Waits for all reports; how many have not come in time."""
        until = time.monotonic() + timeout_s
        while self._on_their_way and (remaining_s := until - time.monotonic()) > 0:
            if not self._producer.flush(min(0.2, remaining_s)) and self._on_their_way:
                time.sleep(min(0.01, remaining_s))
            self._replace_if_overdue()
        return len(self)

    def renew(self) -> None:
        """Gives up what is on its way, and goes on with a new producer."""
        self._replace(self._producer)

    def close(self) -> None:
        """Ends at once; what has not been delivered is given up, without a report."""
        self._on_their_way = {}
        end(self._producer)

    def _report(self, ticket: int, error: KafkaError | None, message: Any) -> None:
        record = self._on_their_way.pop(ticket, None)
        if record is not None and record.delivered is not None:
            record.delivered(error, message)

    def _replace_if_overdue(self) -> None:
        with self._lock:
            producer = self._producer
            oldest = next(iter(self._on_their_way.values()), None)
        if oldest is not None and time.monotonic() - oldest.since >= self._patience_s:
            self._replace(producer)

    def _replace(self, producer: Any) -> None:
        with self._lock:
            if producer is not self._producer:
                return
            self._producer = self._make(dict(self._options))
            given_up, self._on_their_way = self._on_their_way, {}
        Thread(target=end, args=(producer,), daemon=True).start()
        for record in given_up.values():
            if record.delivered is not None:
                record.delivered(_no_answer(self._patience_s), None)


def _no_answer(limit_s: float) -> KafkaError:
    return KafkaError(KafkaError._MSG_TIMED_OUT, f"Kafka has not said within {limit_s:g} s whether it has it")


def reader_options(kafka: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Of a consumer that reads what is committed in partitions that it is assigned by hand.

    Args:
        group: librdkafka demands one; nothing is committed.
    """
    return {
        **kafka,
        "group.id": group,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 100,  # how soon a partition's end is reported
    }


def is_unknown(error: KafkaError) -> bool:
    """Whether Kafka may have the record all the same."""
    return bool(error.code() == KafkaError._MSG_TIMED_OUT)


def sending(options: Mapping[str, Any], *, patience_s: float = PATIENCE_S) -> closing[BoundedProducer]:
    """A producer without transactions, for the block. What has not been delivered at its end, is not any more."""
    return closing(BoundedProducer(options, patience_s=patience_s))


def end(producer: Any) -> None:
    """Ends a producer, and does not wait for one that does not come back."""

    def ending() -> None:
        producer.purge()
        producer.close()

    thread = Thread(target=ending, name="ending a producer", daemon=True)
    thread.start()
    thread.join(_END_S)
