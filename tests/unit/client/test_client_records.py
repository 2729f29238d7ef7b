from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from tailrace.client import records
from tailrace.client.errors import Rejected
from tailrace.client.facts import ModelFacts, contracts_in_force
from tailrace.errors import UsageError

RESOLVED = {
    "model": "credit",
    "lane": "loans",
    "key": {"name": "loan_id", "type": "integer"},
    "event_time": {"name": "applied_at"},
    "features": {"income": {"type": "number"}, "age": {"type": "integer"}},
    "context": {"region": {"categories": ["north", "south"]}},
    "target": {"name": "defaulted", "type": "boolean"},
}
FACTS = ModelFacts.from_resolved(RESOLVED)
BY_ID = ModelFacts.from_resolved({**RESOLVED, "key": {"name": "request_id", "type": "string"}})


def test_request_carries_ids_time_and_fields() -> None:
    draft = records.request(
        FACTS,
        {"income": np.float64(1.5), "age": np.int64(40), "loan_id": 7},
        event_time="2026-01-01T00:00:00Z",
    )
    assert draft.key == "7"
    assert draft.record == {
        "request_id": draft.request_id,
        "model": "credit",
        "loan_id": 7,
        "applied_at": 1767225600000,
        "income": 1.5,
        "age": 40,
    }
    assert type(draft.record["age"]) is int
    assert len(draft.request_id) == 32


def test_what_the_caller_names_goes_before_what_the_row_says() -> None:
    row = {"age": 40, "loan_id": 7, "request_id": "r1", "applied_at": 5}
    by_row = records.request(FACTS, row)
    assert (by_row.key, by_row.request_id, by_row.record["applied_at"]) == ("7", "r1", 5)
    named = records.request(FACTS, row, key=8, request_id="r2", event_time=9)
    assert (named.key, named.request_id, named.record["applied_at"]) == ("8", "r2", 9)
    assert named.record["loan_id"] == 8


def test_request_ids_differ_and_a_given_one_is_kept() -> None:
    first, second = (records.request(BY_ID, {"age": 40}) for _ in range(2))
    assert first.request_id != second.request_id
    assert first.key == first.request_id
    assert records.request(BY_ID, {"age": 40}, request_id="r1").key == "r1"
    assert records.request(BY_ID, {"age": 40, "request_id": "r1"}).request_id == "r1"
    assert records.request(BY_ID, {"age": 40}, key="r1").request_id == "r1"


def test_a_name_that_the_contract_does_not_know_is_refused_before_sending() -> None:
    with pytest.raises(Rejected) as refused:
        records.request(BY_ID, {"agee": 40})
    assert (refused.value.code, refused.value.field) == ("unknown-field", "agee")


def test_a_request_without_the_contracts_key_says_what_to_give() -> None:
    with pytest.raises(UsageError, match="loan_id"):
        records.request(FACTS, {"age": 40})
    with pytest.raises(UsageError, match="integer"):
        records.request(FACTS, {"age": 40}, key="seven")


@pytest.mark.parametrize(
    "moment",
    [
        1_000,
        "1970-01-01T00:00:01Z",
        "1970-01-01T00:00:01",
        "1970-01-01T01:00:01+01:00",
        datetime.datetime(1970, 1, 1, 0, 0, 1),
        datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC),
    ],
)
def test_times_are_utc_where_they_name_no_zone(moment: records.Time) -> None:
    assert records.to_ms(moment) == 1_000


@pytest.mark.usefixtures("far_zone")
def test_the_zone_of_the_machine_is_nothing_to_them() -> None:
    east = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    assert records.to_ms("1970-01-01T00:00:01") == 1_000
    assert records.to_ms(datetime.datetime(1970, 1, 1, 0, 0, 1)) == 1_000
    assert records.to_ms(datetime.datetime(1970, 1, 1, 5, 30, 1, tzinfo=east)) == 1_000
    assert records.to_ms("1970-01-01T05:30:01+05:30") == 1_000


def test_times_before_1970_round_down_to_the_millisecond() -> None:
    assert records.to_ms(datetime.datetime(1969, 12, 31, 23, 59, 59, 999_500)) == -1


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(UsageError, match="ISO 8601"):
        records.to_ms("yesterday")


@pytest.mark.parametrize(("given", "kept"), [(True, True), (0, False), (np.bool_(True), True), (None, None)])
def test_boolean_label(given: object, kept: object) -> None:
    draft = records.label(BY_ID, given, request_id="r1", by="back office")
    assert draft.record["defaulted"] is kept
    assert (draft.key, draft.record["labelled_by"], draft.record["applied_at"]) == ("r1", "back office", None)


@pytest.mark.parametrize("value", ["yes", 2, float("nan")])
def test_a_label_that_is_none_of_the_targets_values_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="defaulted"):
        records.label(BY_ID, value, request_id="r1")


def test_labels_and_actions_must_say_what_they_are_about() -> None:
    with pytest.raises(UsageError, match="request_id="):
        records.label(BY_ID, True)
    with pytest.raises(UsageError, match="loan_id"):
        records.action(FACTS, "approve", request_id="r1")
    draft = records.action(FACTS, "approve", key=7)
    assert (draft.key, draft.record["loan_id"], draft.record["request_id"]) == ("7", 7, None)


def test_of_two_contracts_that_follow_the_same_revision_the_first_is_in_force() -> None:
    def record(revision: int, follows: int, digest: str) -> dict[str, object]:
        return {
            "model": "credit",
            "revision": revision,
            "follows": follows,
            "digest": digest,
            "resolved": json.dumps(RESOLVED),
        }

    applied = [record(1, 0, "a"), record(2, 1, "b"), record(2, 1, "loser"), record(1, 0, "loser")]
    assert contracts_in_force(applied)["credit"].digest == "b"
