"""What applications call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError

from tailrace.access.credentials import APPLICATION
from tailrace.avro.registry import RegistryClient
from tailrace.client import kafka, records
from tailrace.client.answers import AnswerReader
from tailrace.client.errors import Rejected
from tailrace.client.facts import ModelFacts, contracts_in_force
from tailrace.client.patient_codec import PatientCodec
from tailrace.client.record_sender import RecordSender, delivery_failed
from tailrace.client.records import Draft, Time
from tailrace.connection import Connection, connect
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.errors import BadRecord, UsageError
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Message, RecordRef

log = logging.getLogger(__name__)


class Client:
    """Sends requests, labels and actions to models, and reads the answers. Threads may share it.

    >>> with Client() as client:  # doctest: +SKIP
    ...     event = client.predict("electricity", {"nswprice": 0.06, "nswdemand": 0.44})
    ...     print(event["score"], event["action"])

    Args:
        connection: where Kafka and the registry are; default: the environment, else the running home.
        home: the home of a running ``tailrace up``; default ``./.tailrace``.
    """

    def __init__(self, connection: Connection | None = None, home: Path | str | None = None) -> None:
        self._connection = connection or connect(home=None if home is None else Path(home), user=APPLICATION)
        registry = RegistryClient(self._connection.registry, self._connection.registry_auth)
        self._closed = threading.Event()
        self._codec = PatientCodec(registry, self._closed)
        self._producer = kafka.producer(self._connection)
        self._sender = RecordSender(self._producer, self._codec, self._closed)
        self._lock = threading.RLock()
        self._facts: dict[str, ModelFacts] = {}
        self._answers: dict[str, AnswerReader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        model: str,
        row: Mapping[str, Any],
        key: str | int | None = None,
        request_id: str | None = None,
        event_time: Time | None = None,
    ) -> str:
        """Sends a request and returns its id at once; the answer comes on the predictions topic.

        Args:
            model: logical model.
            row: features and context by name. What is left out is sent as missing.
            key: value of the contract's key field, if the row does not carry it.
            request_id: default: a random one.
            event_time: when it happened, as datetime, ISO 8601 text or milliseconds; default: when the broker gets it.

        Raises:
            Rejected: a field that the contract does not know, a value that is not of its type, or an event time in
                seconds. Nothing is sent; what the contract says about ranges, categories and missing values is
                judged by the scorer.
            DeliveryFailed: records that were sent before were not delivered.
        """
        draft = self._draft(model, records.request, row, key, request_id, event_time)
        self._sender.send(self.facts(model), "requests", draft)
        return draft.request_id

    def predict(
        self,
        model: str,
        row: Mapping[str, Any],
        timeout: float = 10.0,
        key: str | int | None = None,
        request_id: str | None = None,
        event_time: Time | None = None,
    ) -> dict[str, Any]:
        """Sends a request and waits for its prediction event, matched by the request's record reference.

        Times in the event are milliseconds since 1970.

        Raises:
            Rejected: the request broke the contract: here, as in :meth:`send`, or by the scorer.
            Timeout: no answer within ``timeout`` seconds.
        """
        draft = self._draft(model, records.request, row, key, request_id, event_time)
        facts = self.facts(model)
        answers = self._answers_of(facts)
        message_key = draft.key.encode()
        waiter = answers.expect(message_key)

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                waiter.delivered(RecordRef.of(message))
            else:
                waiter.failed(delivery_failed([(draft.request_id, error)]))

        try:
            self._sender.produce(facts, "requests", draft, delivered)
            return waiter.wait(timeout)
        finally:
            answers.forget(message_key, waiter)

    def label(
        self,
        model: str,
        value: Any,
        request_id: str | None = None,
        key: str | int | None = None,
        event_time: Time | None = None,
        by: str | None = None,
    ) -> None:
        """Sends the label of one request, known at ``event_time`` (default: now).

        Raises:
            UsageError: no id of the request, or a value that is none of the target's, such as None.
            Rejected: an event time in seconds.
            DeliveryFailed: as in :meth:`send`.
        """
        draft = self._draft(model, records.label, value, request_id, key, event_time, by)
        self._sender.send(self.facts(model), "labels", draft)

    def act(
        self,
        model: str,
        action: str,
        request_id: str | None = None,
        key: str | int | None = None,
        event_time: Time | None = None,
        by: str | None = None,
    ) -> None:
        """Sends what was really done about one request: the policy's action, or a person's other decision.

        Raises:
            UsageError: no id of the request, or no action.
            Rejected: an event time in seconds.
            DeliveryFailed: as in :meth:`send`.
        """
        draft = self._draft(model, records.action, action, request_id, key, event_time, by)
        self._sender.send(self.facts(model), "actions", draft)

    def predictions(
        self, model: str, *, shadow: bool = False, from_start: bool = False, idle: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Prediction events as they come, from now on or ``from_start`` of what is retained; ends after ``idle``
        seconds without one (default: never). The position is taken at the call, not at the first ``next``.
        """
        lane = self.facts(model).lane
        topic = lane.shadow_predictions if shadow else lane.predictions
        return (event for event in self._follow(topic, from_start, idle) if event["model"] == model)

    def alerts(
        self, model: str | None = None, *, from_start: bool = False, idle: float | None = None
    ) -> Iterator[AlertRecord]:
        """Alerts as they come, of one model or of all; otherwise as :meth:`predictions`."""
        follow = self._follow(lanes.ALERTS, from_start, idle)
        return (alert for alert in follow if model is None or alert["model"] == model)

    def flush(self, timeout: float = 30.0) -> None:
        """Waits until Kafka has taken all that was sent.

        Raises:
            DeliveryFailed: it has not.
        """
        self._sender.flush(timeout)

    def close(self) -> None:
        """Flushes and ends the background threads. Raises as :meth:`flush` does."""
        if self._closed.is_set():
            return
        try:
            self.flush()
        finally:
            self._closed.set()
            self._sender.close()
            self._producer.close()
            for answers in self._answers.values():
                answers.close()

    def facts(self, model: str) -> ModelFacts:
        """What the contract in force says of the model's records.

        Raises:
            UsageError: no contract of this model has been applied.
        """
        with self._lock:
            if model not in self._facts:
                self._read_contracts()
            if model not in self._facts:
                known = ", ".join(sorted(self._facts)) or "none yet"
                reason = (
                    f"no contract of a model {model!r} is applied (known: {known}): `tailrace apply FILE`"
                )
                raise UsageError(reason)
            return self._facts[model]

    def _read_contracts(self) -> None:
        messages = read_all(self._connection, [lanes.CONTRACTS])
        records = (self._readable(message) for message in messages if message.value() is not None)
        self._facts = contracts_in_force(record for record in records if record is not None)
        self._codec.forget_schemas()

    def _readable(self, message: Message) -> dict[str, Any] | None:
        """The record of a message; None, with a line in the log, of what cannot be read: nobody honest wrote it."""
        try:
            return self._codec.decode(message.value())
        except BadRecord as bad:
            log.warning("%s is left out: %s", RecordRef.of(message), bad)
            return None

    def _draft(self, model: str, make: Callable[..., Draft], *given: Any) -> Draft:
        facts = self.facts(model)
        try:
            return make(facts, *given)
        except (Rejected, UsageError):
            with self._lock:  # the contract may have gained the field or the category since it was read
                self._read_contracts()
            return make(self.facts(model), *given)

    def _answers_of(self, facts: ModelFacts) -> AnswerReader:
        with self._lock:
            name = facts.lane.name
            if name not in self._answers:
                self._answers[name] = AnswerReader(self._connection, facts.lane, self._codec.decode_now)
            return self._answers[name]

    def _follow(self, topic: str, from_start: bool, idle: float | None) -> Iterator[Any]:
        start = kafka.at_start if from_start else kafka.at_end
        follower = kafka.Follower(self._connection, [topic], start)  # now, not at the first next()

        def events() -> Iterator[Any]:
            try:
                last = time.monotonic()
                while idle is None or time.monotonic() - last < idle:
                    message = follower.poll(0.1 if idle is None else min(0.1, idle))
                    if message is None or message.value() is None:
                        continue
                    if (record := self._readable(message)) is not None:
                        yield record
                    last = time.monotonic()
            finally:
                follower.close()

        return events()
