"""The types of control records are those of the schemas."""

from __future__ import annotations

from typing import get_type_hints

from tools.record_types import TYPES, source

from tailrace.contracts.records import record_types
from tailrace.contracts.records.control_codec import CONTROL_RECORDS


def test_the_types_are_made_from_the_schemas_as_they_are() -> None:
    assert TYPES.read_text() == source(), "run `make pages`"


def test_each_control_record_has_a_type() -> None:
    names = {name for name in vars(record_types) if name.endswith("Record")}
    assert {f"{name}Record" for name in CONTROL_RECORDS} <= names


def test_a_type_has_the_fields_of_its_schema() -> None:
    hints = get_type_hints(record_types.RolloutRecord)
    assert hints["champion"] == int | None
    assert hints["shadow"] == list[int]
    assert hints["canary"] == record_types.CanaryRecord | None
    assert hints["source"] is record_types.SourceRecord
