"""What a contract would refuse of the requests that producers send now, and the one in force does not."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from tailrace.avro.codec import Codec, is_json
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.contracts.language.fields import ContextField, Feature
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.errors import BadRecord
from tailrace.streaming.backends.abstract import read_to_end
from tailrace.streaming.backends.kafka.reading import Ends, HistoryReader
from tailrace.streaming.records import Message, TopicPartition

LATEST = 1_000
"""So many requests of a lane are looked at, the latest of each of its partitions alike."""


class SentRequest(NamedTuple):
    """A request as it was sent. ``form`` says how: Kafka names no producer, but each schema is somebody's."""

    form: str
    record: Mapping[str, Any]


def refused_requests(connection: Connection, current: ModelContract, new: ModelContract) -> list[str]:
    """A sentence for each field for which requests would become dead letters that are none now.

    Raises:
        TailraceError: the lane cannot be read.
        Unavailable: the registry is away.
    """
    codec = Codec(RegistryClient(connection.registry, connection.registry_auth))
    sent = (_sent(message, codec) for message in _latest(connection, Lane(new.lane).requests))
    own = (each for each in sent if each is not None and each.record.get("model") in (None, new.model))
    return newly_refused(own, current, new)


def newly_refused(sent: Iterable[SentRequest], current: ModelContract, new: ModelContract) -> list[str]:
    """As `refused_requests`, of these requests."""
    forms: Counter[str] = Counter()
    refused: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for form, record in sent:
        forms[form] += 1
        for reason in set(_reasons(record, new)) - set(_reasons(record, current)):
            refused[reason][form] += 1
    total = sum(forms.values())
    return [
        f"{name} {what} in {sum(by_form.values()):,} of the latest {total:,} requests, which would become dead "
        "letters: "
        + ", ".join(f"{by_form[form]:,} of {forms[form]:,} in {form}" for form in sorted(by_form))
        + f". Have their producers changed first, or write {_REMEDY[what]}"
        for (name, what), by_form in sorted(refused.items())
    ]


MISSING, OUTSIDE, UNSEEN = (
    "is missing",
    "is outside of min and max",
    "has a category that the contract has not",
)
_REMEDY = {MISSING: "missing: pass or impute", OUTSIDE: "wider limits", UNSEEN: "unseen: CATEGORY"}


def _reasons(record: Mapping[str, Any], contract: ModelContract) -> Iterator[tuple[str, str]]:
    declared: dict[str, Feature | ContextField] = {**contract.features, **contract.context}
    for name, field in declared.items():
        what = _reason(record.get(name), field)
        if what is not None:
            yield name, what


def _reason(value: Any, field: Feature | ContextField) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING if field.missing == "reject" else None
    if field.type in ("number", "integer") and isinstance(value, int | float):
        low, high = (field.min, field.max)
        is_inside = (low is None or value >= low) and (high is None or value <= high)
        return None if is_inside else OUTSIDE
    is_unseen = field.type == "category" and value not in (field.categories or ())
    return UNSEEN if is_unseen and field.unseen == "reject" else None


def _latest(connection: Connection, topic: str) -> Iterator[Message]:
    with closing(Ends(connection)) as asked:
        ends = asked.of([topic])
    each = -(-LATEST // len(ends))
    stretches: dict[TopicPartition, tuple[int, int | None]] = {
        partition: (max(0, end - each), end) for partition, end in ends.items()
    }
    with closing(HistoryReader(connection, stretches)) as reader:
        yield from read_to_end(reader)


def _sent(message: Message, codec: Codec) -> SentRequest | None:
    """None for a watermark record, and for what is no request at all and a dead letter whatever the contract."""
    value = message.value()
    if not value:
        return None
    try:
        if is_json(value):
            record = json.loads(value)
            return SentRequest("JSON", record) if isinstance(record, dict) else None
        schema_id, record = codec.decode(value)
    except (BadRecord, ValueError, RecursionError):
        return None
    return SentRequest(f"Avro of schema {schema_id}", record)
