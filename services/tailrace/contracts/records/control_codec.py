"""The records of control topics in Avro: which schema is on which topic, and both ways between records and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tailrace.avro.codec import Codec
from tailrace.avro.registry import Registry, Schema
from tailrace.avro.strict_types import conforms
from tailrace.contracts.records import lanes
from tailrace.package_data import data_dir
from tailrace.streaming.records import Headers, Record


class ControlCodec:
    """Encodes and decodes the records of the control topics, by the schemas in schemas/avro.

    Args:
        registry: where the schemas are registered, each when it is first needed, under the topic's usual subject.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._codec = Codec(registry)
        self._ids: dict[str, int] = {}

    def encode(self, name: str, record: Mapping[str, Any]) -> bytes:
        """The wire format of a record of the schema called so, e.g. ``encode("Rollout", {...})``."""
        schema_id = self._ids.get(name)
        if schema_id is None:
            schema_id = self._registry.register(f"{CONTROL_RECORDS[name]}-value", control_schema(name))
            self._ids[name] = schema_id
        return self._codec.encode(schema_id, record)

    def decode(self, name: str, value: bytes | None) -> Any:
        """The record, resolved to the schema called so; `record_types` has its type.

        Raises `BadRecord` and `Unavailable` as `Codec.decode`.
        What could not be written again is bad too: Avro's bytes hold an int of 64 bits as well as one of 32.
        """
        record = self._codec.decode(value, control_schema(name)).record
        _conforms(name)(record)
        return record

    def record(
        self, name: str, record: Mapping[str, Any], headers: Headers = (), key: str | None = None
    ) -> Record:
        """The record as it is produced to the topic of its kind, under its model's name or, where it is about no model,
        under ``key``.
        """
        key = record["model"] if key is None else key
        return Record(CONTROL_RECORDS[name], self.encode(name, record), key.encode(), headers)


CONTROL_RECORDS = {
    "Contract": lanes.CONTRACTS,
    "ModelManifest": lanes.MANIFESTS,
    "Rollout": lanes.ROLLOUTS,
    "Command": lanes.COMMANDS,
    "Alert": lanes.ALERTS,
    "WindowPart": lanes.WINDOW_PARTS,
    "DriftReport": lanes.DRIFT_REPORTS,
    "PerformanceReport": lanes.PERFORMANCE_REPORTS,
    "TrainingRun": lanes.TRAINING_RUNS,
    "Clock": lanes.CLOCKS,
}
"""The control records and the topic that each of them is on."""

CONTROL_NAMES = {topic: name for name, topic in CONTROL_RECORDS.items()}
"""The control topics and the record that is on each of them."""


@cache
def control_schema(name: str) -> Schema:
    """The schema of a control record, as in schemas/avro; the same object each time."""
    return _avsc()[name]


@cache
def _conforms(name: str) -> Callable[[Any], None]:
    return conforms(control_schema(name))


@cache
def _avsc() -> dict[str, Schema]:
    schemas = [json.loads(path.read_text()) for path in sorted(data_dir("schemas", "avro").glob("*.avsc"))]
    return {schema["name"]: schema for schema in schemas}
