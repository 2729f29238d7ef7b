"""Ids and keys: the same everywhere, and never shared by two requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import BadRecord
from tailrace.streaming.ids import key_text, prediction_id, request_id, request_key, truth_key
from tailrace.streaming.records import RecordRef

TOPICS = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
SOURCES = st.builds(RecordRef, TOPICS, st.integers(0, 10**4), st.integers(0, 2**63 - 1))
ROLES = st.sampled_from(["champion", "shadow", "canary", "arm"])
HERE = RecordRef("credit.requests", 3, 42)


def test_a_prediction_id_is_what_the_documents_say() -> None:
    assert prediction_id("champion", HERE, version=7) == "champion:credit.requests/3/42"
    assert prediction_id("shadow", HERE, version=7) == "shadow-7:credit.requests/3/42"


PREDICTIONS = st.tuples(ROLES, SOURCES, st.integers(1, 3))


@given(PREDICTIONS, PREDICTIONS)
def test_predictions_share_an_id_where_role_and_source_are_the_same_and_in_shadow_the_version(
    one: tuple[str, RecordRef, int], other: tuple[str, RecordRef, int]
) -> None:
    same = one == other or (one[:2] == other[:2] and one[0] != "shadow")
    assert (prediction_id(*one) == prediction_id(*other)) == same


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_have_one_text(number: int) -> None:
    assert int(key_text(number)) == number
    assert key_text(number) == str(number)


@given(st.text())
def test_text_is_its_own_text(text: str) -> None:
    assert key_text(text) == text


@pytest.mark.parametrize("value", [True, 1.0, None, b"x"])
def test_nothing_else_is_a_key(value: object) -> None:
    with pytest.raises(BadRecord, match="wrong-type"):
        key_text(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("record", [{}, {"request_id": None}, {"request_id": ""}])
def test_a_request_without_an_id_goes_by_its_coordinates(record: dict[str, None]) -> None:
    assert request_id(record, HERE) == "credit.requests/3/42"
    assert request_key("request_id", record, HERE) == "credit.requests/3/42"


def test_a_key_is_the_field_that_the_contract_names() -> None:
    record = {"request_id": "r-1", "loan": 7, "empty": ""}
    assert request_id(record, HERE) == "r-1"
    assert request_key("loan", record, HERE) == truth_key("loan", record) == "7"
    assert request_key("loan", {"loan": 0}, HERE) == "0"
    assert request_key("empty", record, HERE) == str(HERE)


@pytest.mark.parametrize("record", [{}, {"loan": None}, {"loan": ""}])
def test_a_label_without_its_key_says_so(record: dict[str, None]) -> None:
    with pytest.raises(BadRecord) as caught:
        truth_key("loan", record)
    assert (caught.value.code, caught.value.field) == ("missing-key", "loan")
