"""A schema registry in memory, without a network: a real one, only not remote and not kept."""

from __future__ import annotations

import json

from tailrace.avro.registry import IncompatibleSchema, Registered, Schema, UnknownSchema, schema_text
from tailrace.contracts.records.compatibility import breaks
from tailrace.errors import Unavailable


class MemoryRegistry:
    """Ids count from 1 in the order of registration. Set ``away`` to have every call raise `Unavailable`."""

    def __init__(self) -> None:
        self.away = False
        self._texts: list[str] = []
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, str] = {}

    def register(self, subject: str, schema: Schema) -> int:
        compatible, reasons = self.check_compatible(subject, schema)
        if not compatible:
            raise IncompatibleSchema(f"{subject}: {reasons}")
        text = schema_text(schema)
        if text not in self._texts:
            self._texts.append(text)
        schema_id = self._texts.index(text) + 1
        versions = self._subjects.setdefault(subject, [])
        if schema_id not in versions:
            versions.append(schema_id)
        return schema_id

    def schema(self, schema_id: int) -> Schema:
        self._reach()
        if not 1 <= schema_id <= len(self._texts):
            raise UnknownSchema(schema_id)
        schema: Schema = json.loads(self._texts[schema_id - 1])
        return schema

    def latest(self, subject: str) -> Registered | None:
        self._reach()
        versions = self._subjects.get(subject)
        return Registered(versions[-1], len(versions), self.schema(versions[-1])) if versions else None

    def check_compatible(self, subject: str, schema: Schema) -> tuple[bool, list[str]]:
        self._reach()
        earlier = [self._texts[schema_id - 1] for schema_id in self._subjects.get(subject, [])]
        if schema_text(schema) in earlier:
            return True, []
        reasons = breaks(self._levels.get(subject, "BACKWARD"), schema_text(schema), earlier)
        return not reasons, reasons

    def set_level(self, subject: str, level: str) -> None:
        self._reach()
        self._levels[subject] = level

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the registry is away")
