"""The registry's versions: their numbers, and how they are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from tailrace.local.registry_api import SubjectsApi
from tailrace.local.registry_requests import ApiError
from tailrace.local.registry_state import LogRecord, RegistryState, SchemaVersion, schema_record


class Log:
    """What the registry's log in Kafka is to the endpoints that read."""

    def __init__(self, *records: LogRecord) -> None:
        self._state = RegistryState()
        for key, value in records:
            self._state.apply(json.dumps(key).encode(), None if value is None else json.dumps(value).encode())

    def read(self) -> RegistryState:
        return self._state


def version(number: int, *, deleted: bool = False) -> LogRecord:
    return schema_record("s", SchemaVersion(number, number, f'{{"type":"fixed","size":{number}}}', deleted))


def gone(number: int) -> LogRecord:
    """Another registry has deleted a version for good."""
    key, _ = version(number)
    return key, None


def shown(log: Any, text: str) -> int:
    path = {"subject": "s", "version": text}
    request = Request({"type": "http", "path_params": path, "query_string": b"", "headers": []})
    return int(json.loads(bytes(SubjectsApi(log).version(request).body))["version"])


@pytest.mark.parametrize("text", ["latest", "-1"])
def test_the_latest_version_has_two_names(text: str) -> None:
    assert shown(Log(version(1), version(2), version(3, deleted=True)), text) == 2


@pytest.mark.parametrize(("text", "code"), [("2", 40402), ("0", 42202), ("-2", 42202), ("١", 42202)])
def test_what_is_no_version_is_refused(text: str, code: int) -> None:
    assert shown(Log(version(1)), "1") == 1
    with pytest.raises(ApiError) as refused:
        shown(Log(version(1)), text)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("records", "number"),
    [
        ([], 1),
        ([version(1), version(2)], 3),
        ([version(1), version(2, deleted=True)], 3),
        ([version(1), version(2), gone(1)], 3),
        ([version(7)], 8),
    ],
)
def test_a_number_is_given_once(records: list[LogRecord], number: int) -> None:
    assert Log(*records).read().next_version("s") == number
