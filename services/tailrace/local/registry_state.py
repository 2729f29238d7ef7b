"""What a schema registry knows, as a fold of its log. The log's records are those of Confluent's registry."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from tailrace.contracts.records.compatibility import LEVELS

log = logging.getLogger(__name__)

_LEAP = 1_000_000

LogRecord = tuple[dict[str, Any], dict[str, Any] | None]
"""Key and value of a record of the log, as JSON objects; a null value deletes."""


class Setting(NamedTuple):
    """What can be set for a subject, or for everybody: its name in records and answers, and its values."""

    keytype: str
    name: str
    values: tuple[str, ...]
    default: str


LEVEL = Setting("CONFIG", "compatibilityLevel", LEVELS, "BACKWARD")
MODE = Setting("MODE", "mode", ("READWRITE", "READONLY"), "READWRITE")
_SETTINGS = {setting.keytype: setting for setting in (LEVEL, MODE)}


class SchemaVersion(NamedTuple):
    version: int
    id: int
    schema: str
    deleted: bool


@dataclass
class RegistryState:
    """Subjects with their versions, schemas by id; settings by subject, those of None being everybody's."""

    schemas: dict[int, str] = field(default_factory=dict)
    settings: dict[Setting, dict[str | None, str]] = field(default_factory=lambda: {LEVEL: {}, MODE: {}})
    _subjects: dict[str, dict[int, SchemaVersion]] = field(default_factory=dict)
    _ids: dict[str, int] = field(default_factory=dict)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Folds one record. Kinds that are not known here (other products' extensions) change nothing, nor do records
        that no registry writes.
        """
        try:
            self._apply(_object(key) or {}, _object(value))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            log.warning("skipped a record of the registry's log", extra={"why": repr(error)[:200]})

    def _apply(self, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        kind, subject = key.get("keytype"), key.get("subject")
        if subject is not None and not isinstance(subject, str):
            raise TypeError("a subject is a text")
        if kind == "SCHEMA" and subject is not None:
            self._schema(subject, _number(key["version"]), value)
        elif kind == "DELETE_SUBJECT" and subject is not None and value:
            self._delete_subject(subject, _number(value["version"]))
        elif setting := _SETTINGS.get(str(kind)):
            self._set(setting, subject, (value or {}).get(setting.name))

    def subjects(self, deleted: bool = False) -> list[str]:
        return sorted(name for name in self._subjects if any(True for _ in self.versions(name, deleted)))

    def versions(self, subject: str, deleted: bool = False) -> Iterator[SchemaVersion]:
        """The subject's versions, oldest first; with those that were deleted where asked for."""
        versions = self._subjects.get(subject, {})
        return (versions[n] for n in sorted(versions) if deleted or not versions[n].deleted)

    def next_version(self, subject: str) -> int:
        """Numbers are never given twice, not even those of deleted versions."""
        return max(self._subjects.get(subject, {}), default=0) + 1

    def id_of(self, schema: str) -> int:
        """The schema's id, or the next free one. One schema has one id under all subjects."""
        return self._ids.get(schema_key(schema)) or max(self.schemas, default=0) + 1

    def uses(self, schema_id: int) -> list[tuple[str, int]]:
        """Subjects and versions that have this id, deleted ones aside."""
        return [(s, v.version) for s in self.subjects() for v in self.versions(s) if v.id == schema_id]

    def value(self, setting: Setting, subject: str | None) -> str:
        values = self.settings[setting]
        return values.get(subject) or values.get(None, setting.default)

    def _set(self, setting: Setting, subject: str | None, value: str | None) -> None:
        if value is None:
            self.settings[setting].pop(subject, None)
        elif value in setting.values:
            self.settings[setting][subject] = value

    def _schema(self, subject: str, number: int, value: dict[str, Any] | None) -> None:
        if value is None:
            self._subjects.get(subject, {}).pop(number, None)
            return
        versions = self._subjects.setdefault(subject, {})
        version = SchemaVersion(number, _number(value["id"]), value["schema"], bool(value.get("deleted")))
        content = schema_key(version.schema)
        if schema_key(self.schemas.get(version.id, version.schema)) != content:
            raise ValueError(f"id {version.id} is of another schema")
        if version.id > max(self.schemas, default=0) + _LEAP or number > max(versions, default=0) + _LEAP:
            raise ValueError("no registry leaps so far: numbers would run out")
        versions[number] = version
        self.schemas[version.id] = version.schema
        self._ids.setdefault(content, version.id)

    def _delete_subject(self, subject: str, up_to: int) -> None:
        versions = self._subjects.get(subject, {})
        versions |= {n: version._replace(deleted=True) for n, version in versions.items() if n <= up_to}


def schema_record(subject: str, version: SchemaVersion) -> LogRecord:
    key = {"keytype": "SCHEMA", "subject": subject, "version": version.version, "magic": 1}
    value = {"subject": subject, "version": version.version, "id": version.id, "schema": version.schema}
    return key, {**value, "deleted": version.deleted}


def delete_subject_record(subject: str, up_to: int) -> LogRecord:
    key = {"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}
    return key, {"subject": subject, "version": up_to}


def setting_record(setting: Setting, subject: str | None, value: str | None) -> LogRecord:
    """What sets it; what takes it back, where the value is None."""
    key = {"keytype": setting.keytype, "subject": subject, "magic": 0}
    return key, {"subject": subject, setting.name: value} if value else None


def schema_key(schema: str) -> str:
    """What two texts of one schema share: the JSON, whatever its spaces and the order of its names."""
    return json.dumps(json.loads(schema), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=10_000)
def guid_of(schema: str) -> str:
    """A schema's name in all registries of the world: it follows from what the schema says alone."""
    return str(uuid.UUID(bytes=hashlib.md5(schema_key(schema).encode(), usedforsecurity=False).digest()))


def _object(data: bytes | None) -> dict[str, Any] | None:
    """The JSON object in a record's key or value."""
    parsed: Any = json.loads(data) if data else None
    if parsed is not None and not isinstance(parsed, dict):
        raise TypeError("no JSON object")
    return parsed


def _number(value: Any) -> int:
    number = int(value)
    if not 0 < number < 2**31:
        raise ValueError(f"{str(value)[:50]} is no number of a schema or version")
    return number
