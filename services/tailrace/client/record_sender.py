"""Records on their way to Kafka, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tailrace.client.errors import DeliveryFailed
from tailrace.client.facts import ModelFacts
from tailrace.client.patient_codec import PatientCodec
from tailrace.client.records import Draft
from tailrace.contracts.records.schemas import subject
from tailrace.errors import TailraceError
from tailrace.streaming.backends.kafka.clients import BoundedProducer, is_unknown

Delivered = Callable[[KafkaError | None, Any], None]


class RecordSender:
    """Sends, and fetches delivery reports in a thread of its own. Threads may share it.

    Args:
        closed: set when it is to end.
    """

    def __init__(self, producer: BoundedProducer, codec: PatientCodec, closed: Event) -> None:
        self._producer = producer
        self._codec = codec
        self._closed = closed
        self._lock = Lock()
        self._failures: list[tuple[str, KafkaError]] = []
        self._reporting = Thread(target=self._report_deliveries, name="tailrace deliveries", daemon=True)
        self._reporting.start()

    def send(self, facts: ModelFacts, kind: str, draft: Draft) -> None:
        """Sends a record; that it was not delivered is raised with a later one, or by `flush`.

        Raises:
            DeliveryFailed: records that were sent before were not.
        """
        self._raise_failures()

        def delivered(error: KafkaError | None, _: Any) -> None:
            if error is not None:
                with self._lock:
                    self._failures.append((draft.request_id or draft.key, error))

        self.produce(facts, kind, draft, delivered)

    def produce(self, facts: ModelFacts, kind: str, draft: Draft, delivered: Delivered) -> None:
        """Sends a record; ``delivered`` is called with what became of it."""
        topic = f"{facts.lane.name}.{kind}"
        value = self._codec.encode(subject(topic, facts.model, facts.lane.name), draft.record)
        try:
            self._producer.produce(topic, value, draft.key.encode(), on_delivery=delivered)
        except KafkaException as error:
            raise DeliveryFailed(error.args[0].str(), [draft.request_id or draft.key]) from error

    def flush(self, timeout: float) -> None:
        """Waits until Kafka has taken all that was sent.

        Raises:
            DeliveryFailed: it has not.
        """
        unsent = self._producer.flush(timeout)
        self._raise_failures()
        if unsent:
            raise TailraceError(
                f"{unsent} records are still on their way after {timeout:g} s: is the broker there?"
            )

    def close(self) -> None:
        """Waits for the thread to end, once ``closed`` is set."""
        self._reporting.join()

    def _report_deliveries(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)

    def _raise_failures(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            raise delivery_failed(failures)


def delivery_failed(failures: Sequence[tuple[str, KafkaError]]) -> DeliveryFailed:
    """What to raise; of each record its request's id, or its key."""
    unknown = [name for name, error in failures if is_unknown(error)]
    return DeliveryFailed(failures[0][1].str(), [name for name, _ in failures], unknown)
