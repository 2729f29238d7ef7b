"""Door: whoever may write to ``_schemas``. What no registry writes changes nothing, and ends nothing."""

from __future__ import annotations

import json
import random

import pytest

from tailrace.local.registry_state import (
    LEVEL,
    MODE,
    RegistryState,
    SchemaVersion,
    delete_subject_record,
    schema_record,
)

FIRST, SECOND = '{"type": "long"}', '{"type": "string"}'


def applied(*records: tuple[object, object]) -> RegistryState:
    state = RegistryState()
    for key, value in records:
        state.apply(_bytes(key), _bytes(value))
    return state


def _bytes(data: object) -> bytes | None:
    return data if data is None or isinstance(data, bytes) else json.dumps(data).encode()


GOOD = [
    schema_record("s", SchemaVersion(1, 1, FIRST, False)),
    schema_record("s", SchemaVersion(2, 2, SECOND, False)),
]


def facts(state: RegistryState) -> object:
    return state.schemas, [
        state.versions(s, True) and list(state.versions(s, True)) for s in state.subjects()
    ]


@pytest.mark.parametrize(
    "hostile",
    [
        (b"\xff", b"\xff"),
        (b"[1]", b"{}"),
        (b"5", b"5"),
        (b"[" * 100_000, None),
        ({"keytype": "SCHEMA"}, {}),
        ({"keytype": "SCHEMA", "subject": "s", "version": "x"}, {}),
        ({"keytype": "SCHEMA", "subject": ["s"], "version": 3}, {"id": 3, "schema": FIRST}),
        ({"keytype": "SCHEMA", "subject": "s", "version": 3}, {"id": 3, "schema": "no JSON"}),
        ({"keytype": "SCHEMA", "subject": "s", "version": 3}, {"id": 2**31 - 1, "schema": '"int"'}),
        ({"keytype": "SCHEMA", "subject": "s", "version": 2**31 - 1}, {"id": 3, "schema": '"int"'}),
        ({"keytype": "SCHEMA", "subject": "s", "version": 3}, {"id": 2**80, "schema": '"int"'}),
        ({"keytype": "SCHEMA", "subject": "other", "version": 1}, {"id": 1, "schema": SECOND}),
        ({"keytype": "DELETE_SUBJECT", "subject": "s"}, {"version": "all"}),
        ({"keytype": "CONFIG", "subject": "s"}, {"compatibilityLevel": "WHATEVER"}),
        ({"keytype": "MODE", "subject": None}, {"mode": {}}),
    ],
    ids=str,
)
def test_what_no_registry_writes_changes_nothing(hostile: tuple[object, object]) -> None:
    state = applied(*GOOD, hostile)
    assert facts(state) == facts(applied(*GOOD))
    assert (state.id_of('"int"'), state.next_version("s")) == (3, 3)
    assert (state.value(LEVEL, "s"), state.value(MODE, "s")) == ("BACKWARD", "READWRITE")


def test_mutated_records_end_nothing() -> None:
    rng = random.Random(1)
    state = applied(*GOOD)
    honest = [(_bytes(key), _bytes(value)) for key, value in (*GOOD, delete_subject_record("t", 1))]
    for _ in range(5_000):
        key, value = (bytearray(part or b"") for part in rng.choice(honest))
        for part in (key, value):
            for _ in range(rng.randrange(3)):
                part[rng.randrange(len(part))] = rng.randrange(256)
        state.apply(bytes(key), bytes(value) if rng.random() < 0.9 else None)
    assert state.next_version("s") < 10**6
    assert state.id_of('"int"') < 10**6
