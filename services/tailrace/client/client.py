"""What applications call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka import KafkaError, KafkaException

from tailrace.access.credentials import APPLICATION
from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.client import kafka, records
from tailrace.client.answers import AnswerReader
from tailrace.client.errors import DeliveryFailed, Rejected
from tailrace.client.facts import ModelFacts, contracts_in_force
from tailrace.client.records import Draft, Time
from tailrace.connection import Connection, connect
from tailrace.contracts.records import lanes
from tailrace.contracts.records.schemas import subject
from tailrace.errors import BadRecord, TailraceError, Unavailable, UsageError
from tailrace.streaming.backends.kafka.clients import is_unknown
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import RecordRef

T = TypeVar("T")

_REGISTRY_S = 30.0
"""How long the registry may be away before the caller is told."""

Delivered = Callable[[KafkaError | None, Any], None]


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
        self._registry = RegistryClient(self._connection.registry, self._connection.registry_auth)
        self._codec = Codec(self._registry)
        self._lock = threading.RLock()
        self._facts: dict[str, ModelFacts] = {}
        self._schema_ids: dict[str, int] = {}
        self._answers: dict[str, AnswerReader] = {}
        self._failures: list[tuple[str, KafkaError]] = []
        self._producer = kafka.producer(self._connection)
        self._closed = threading.Event()
        self._reporting = threading.Thread(
            target=self._report_deliveries, name="tailrace deliveries", daemon=True
        )
        self._reporting.start()

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
            event_time: when it happened; default: when the broker gets it.

        Raises:
            Rejected: a field that the contract does not know, or a value that is not of its type. Nothing
                is sent; what the contract says about ranges, categories and missing values is judged by
                the scorer.
            DeliveryFailed: records that were sent before were not delivered.
        """
        draft = self._request(model, row, key, request_id, event_time)
        self._send(self.facts(model), "requests", draft)
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
        """Sends a request and waits for its prediction event, matched by the request's coordinates.

        Times in the event are milliseconds since 1970.

        Raises:
            Rejected: the request broke the contract: here, as in :meth:`send`, or by the scorer.
            Timeout: no answer within ``timeout`` seconds.
        """
        draft = self._request(model, row, key, request_id, event_time)
        facts = self.facts(model)
        answers = self._answers_of(facts)
        message_key = draft.key.encode()
        waiter = answers.expect(message_key)

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:
                waiter.delivered(RecordRef.of(message))
            else:
                waiter.failed(_failed([(draft.request_id, error)]))

        try:
            self._produce(facts, "requests", draft, delivered)
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
        """Sends the truth about one request, known at ``event_time`` (default: now).

        Raises:
            UsageError: no id of the request, or a value that is none of the target's.
            DeliveryFailed: as in :meth:`send`.
        """
        facts = self.facts(model)
        self._send(facts, "labels", records.label(facts, value, request_id, key, event_time, by))

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
            UsageError: no id of the request.
            DeliveryFailed: as in :meth:`send`.
        """
        facts = self.facts(model)
        self._send(facts, "actions", records.action(facts, action, request_id, key, event_time, by))

    def predictions(
        self, model: str, *, shadow: bool = False, from_start: bool = False, idle: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Prediction events as they come, from now on or ``from_start`` of what is retained; ends after
        ``idle`` seconds without one (default: never). The position is taken at the call, not at the first
        ``next``."""
        lane = self.facts(model).lane
        topic = lane.shadow_predictions if shadow else lane.predictions
        return (event for event in self._follow(topic, from_start, idle) if event["model"] == model)

    def alerts(
        self, model: str | None = None, *, from_start: bool = False, idle: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Alerts as they come, of one model or of all; otherwise as :meth:`predictions`."""
        follow = self._follow(lanes.ALERTS, from_start, idle)
        return (alert for alert in follow if model is None or alert["model"] == model)

    def flush(self, timeout: float = 30.0) -> None:
        """Waits until Kafka has taken all that was sent.

        Raises:
            DeliveryFailed: it has not.
        """
        left = self._producer.flush(timeout)
        self._raise_failures()
        if left:
            raise TailraceError(
                f"{left} records are still on their way after {timeout:g} s: is the broker there?"
            )

    def close(self) -> None:
        """Flushes and ends the background threads. Raises as :meth:`flush` does."""
        if self._closed.is_set():
            return
        try:
            self.flush()
        finally:
            self._closed.set()
            self._reporting.join()
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
                raise UsageError(
                    f"no contract of a model {model!r} is applied (known: {known}): `tailrace apply FILE`"
                )
            return self._facts[model]

    def _read_contracts(self) -> None:
        messages = read_all(self._connection, [lanes.CONTRACTS])
        values = [value for message in messages if (value := message.value()) is not None]
        self._facts = contracts_in_force(self._patiently(partial(self._decode, value)) for value in values)
        self._schema_ids.clear()

    def _request(
        self,
        model: str,
        row: Mapping[str, Any],
        key: str | int | None,
        request_id: str | None,
        event_time: Time | None,
    ) -> Draft:
        try:
            return records.request(self.facts(model), row, key, request_id, event_time)
        except Rejected:
            with self._lock:  # the contract may have gained the field since it was read
                self._read_contracts()
            return records.request(self.facts(model), row, key, request_id, event_time)

    def _answers_of(self, facts: ModelFacts) -> AnswerReader:
        with self._lock:
            if facts.lane.name not in self._answers:
                self._answers[facts.lane.name] = AnswerReader(self._connection, facts.lane, self._decode)
            return self._answers[facts.lane.name]

    def _decode(self, value: bytes | None) -> dict[str, Any]:
        return dict(self._codec.decode(value).record)

    def _send(self, facts: ModelFacts, kind: str, draft: Draft) -> None:
        self._raise_failures()

        def delivered(error: KafkaError | None, _: Any) -> None:
            if error is not None:
                with self._lock:
                    self._failures.append((draft.request_id or draft.key, error))

        self._produce(facts, kind, draft, delivered)

    def _produce(
        self,
        facts: ModelFacts,
        kind: str,
        draft: Draft,
        delivered: Delivered,
    ) -> None:
        topic = f"{facts.lane.name}.{kind}"
        value = self._encode(facts, topic, draft.record)
        try:
            self._producer.produce(topic, value, draft.key.encode(), on_delivery=delivered)
        except KafkaException as error:
            raise DeliveryFailed(error.args[0].str(), [draft.request_id or draft.key]) from error

    def _encode(self, facts: ModelFacts, topic: str, record: dict[str, Any]) -> bytes:
        schema_subject = subject(topic, facts.model, facts.lane.name)
        with self._lock:
            schema_id = self._schema_ids.get(schema_subject)
            if schema_id is None:
                found = self._patiently(lambda: self._registry.latest(schema_subject))
                if found is None:
                    raise TailraceError(
                        f"the registry has no schema {schema_subject}: `tailrace apply` registers it"
                    )
                schema_id = self._schema_ids[schema_subject] = found.id
        try:
            return self._patiently(lambda: self._codec.encode(schema_id, record))
        except BadRecord as bad:
            raise Rejected(bad.code, bad.reason, bad.field) from bad

    def _follow(self, topic: str, from_start: bool, idle: float | None) -> Iterator[dict[str, Any]]:
        follower = kafka.Follower(
            self._connection, [topic], kafka.at_start if from_start else kafka.at_end
        )  # now, not at the first next()

        def events() -> Iterator[dict[str, Any]]:
            try:
                last = time.monotonic()
                while idle is None or time.monotonic() - last < idle:
                    message = follower.poll(0.1 if idle is None else min(0.1, idle))
                    if message is None or message.value() is None:
                        continue
                    yield self._patiently(partial(self._decode, message.value()))
                    last = time.monotonic()
            finally:
                follower.close()

        return events()

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Asks again while the registry is away, for a while."""
        deadline = time.monotonic() + _REGISTRY_S
        while True:
            try:
                return ask()
            except Unavailable as away:
                if time.monotonic() > deadline or self._closed.wait(0.2):
                    raise TailraceError(str(away)) from away

    def _report_deliveries(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)

    def _raise_failures(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            raise _failed(failures)


def _failed(failures: Sequence[tuple[str, KafkaError]]) -> DeliveryFailed:
    unknown = [name for name, error in failures if is_unknown(error)]
    return DeliveryFailed(failures[0][1].str(), [name for name, _ in failures], unknown)
