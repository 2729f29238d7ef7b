"""What a schema registry knows, as a fold of its log. The log's records are those of Confluent's registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DEFAULT_LEVEL = "BACKWARD"
DEFAULT_MODE = "READWRITE"

LogRecord = tuple[dict[str, Any], dict[str, Any] | None]
"""Key and value of a record of the log, as JSON objects; a null value deletes."""


class Version(NamedTuple):
    version: int
    id: int
    schema: str
    deleted: bool


@dataclass
class RegistryState:
    """Subjects with their versions, schemas by id; levels and modes, those of None being everybody's."""

    schemas: dict[int, str] = field(default_factory=dict)
    levels: dict[str | None, str] = field(default_factory=dict)
    modes: dict[str | None, str] = field(default_factory=dict)
    _subjects: dict[str, dict[int, Version]] = field(default_factory=dict)
    _ids: dict[str, int] = field(default_factory=dict)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Folds one record. Kinds that are not known here (other products' extensions) change nothing."""
        about: dict[str, Any] = json.loads(key) if key else {}
        said: dict[str, Any] | None = json.loads(value) if value else None
        kind, subject = about.get("keytype"), about.get("subject")
        if kind == "SCHEMA":
            self._schema(about["subject"], int(about["version"]), said)
        elif kind == "DELETE_SUBJECT" and said:
            self._delete_subject(about["subject"], int(said["version"]))
        elif kind == "CONFIG":
            _set(self.levels, subject, (said or {}).get("compatibilityLevel"))
        elif kind == "MODE":
            _set(self.modes, subject, (said or {}).get("mode"))

    def subjects(self, deleted: bool = False) -> list[str]:
        return sorted(name for name in self._subjects if any(True for _ in self.versions(name, deleted)))

    def versions(self, subject: str, deleted: bool = False) -> Iterator[Version]:
        """The subject's versions, oldest first; with those that were deleted where asked for."""
        found = self._subjects.get(subject, {})
        return (found[n] for n in sorted(found) if deleted or not found[n].deleted)

    def next_version(self, subject: str) -> int:
        """Numbers are never given twice, not even those of deleted versions."""
        return max(self._subjects.get(subject, {}), default=0) + 1

    def id_of(self, schema: str) -> int:
        """The schema's id, or the next free one. One schema has one id under all subjects."""
        return self._ids.get(schema_key(schema)) or max(self.schemas, default=0) + 1

    def uses(self, schema_id: int) -> list[tuple[str, int]]:
        """Subjects and versions that have this id, deleted ones aside."""
        return [(s, v.version) for s in self.subjects() for v in self.versions(s) if v.id == schema_id]

    def level(self, subject: str) -> str:
        return self.levels.get(subject) or self.levels.get(None, DEFAULT_LEVEL)

    def mode(self, subject: str) -> str:
        return self.modes.get(subject) or self.modes.get(None, DEFAULT_MODE)

    def _schema(self, subject: str, number: int, said: dict[str, Any] | None) -> None:
        versions = self._subjects.setdefault(subject, {})
        if said is None:
            versions.pop(number, None)
            return
        version = Version(number, int(said["id"]), said["schema"], bool(said.get("deleted")))
        versions[number] = version
        self.schemas[version.id] = version.schema
        self._ids.setdefault(schema_key(version.schema), version.id)

    def _delete_subject(self, subject: str, up_to: int) -> None:
        versions = self._subjects.get(subject, {})
        for number, version in versions.items():
            if number <= up_to:
                versions[number] = version._replace(deleted=True)


def schema_record(subject: str, version: Version) -> LogRecord:
    key = {"keytype": "SCHEMA", "subject": subject, "version": version.version, "magic": 1}
    value = {"subject": subject, "version": version.version, "id": version.id, "schema": version.schema}
    return key, {**value, "deleted": version.deleted}


def delete_subject_record(subject: str, up_to: int) -> LogRecord:
    key = {"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}
    return key, {"subject": subject, "version": up_to}


def level_record(subject: str | None, level: str | None) -> LogRecord:
    value = level and {"subject": subject, "compatibilityLevel": level}
    return {"keytype": "CONFIG", "subject": subject, "magic": 0}, value or None


def mode_record(subject: str | None, mode: str | None) -> LogRecord:
    value = mode and {"subject": subject, "mode": mode}
    return {"keytype": "MODE", "subject": subject, "magic": 0}, value or None


def schema_key(schema: str) -> str:
    """What two texts of one schema share: the JSON, whatever its spaces and the order of its names."""
    return json.dumps(json.loads(schema), sort_keys=True, separators=(",", ":"))


def _set(values: dict[str | None, str], subject: str | None, value: str | None) -> None:
    if value is None:
        values.pop(subject, None)
    else:
        values[subject] = value
