from __future__ import annotations

import datetime
import json
import math
from typing import Any

import numpy as np
import pandas as pd
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
NEW_YEAR = 1_767_225_600_000
BY_ID = ModelFacts.from_resolved({**RESOLVED, "key": {"name": "request_id", "type": "string"}})
OF_CLASSES = ModelFacts.from_resolved(
    {**RESOLVED, "target": {"name": "defaulted", "categories": ["1", "b", "c"]}}
)
OF_NUMBERS = ModelFacts.from_resolved({**RESOLVED, "target": {"name": "defaulted", "type": "number"}})


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
    row = {"age": 40, "loan_id": 7, "request_id": "r1", "applied_at": NEW_YEAR}
    by_row = records.request(FACTS, row)
    assert (by_row.key, by_row.request_id, by_row.record["applied_at"]) == ("7", "r1", NEW_YEAR)
    named = records.request(FACTS, row, key=8, request_id="r2", event_time=NEW_YEAR + 9)
    assert (named.key, named.request_id, named.record["applied_at"]) == ("8", "r2", NEW_YEAR + 9)
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


LAST_MOMENT = "2025-12-31T23:59:59.9996"


@pytest.mark.parametrize(
    "moment",
    [
        LAST_MOMENT,
        datetime.datetime(2025, 12, 31, 23, 59, 59, 999_600),
        pd.Timestamp(LAST_MOMENT),
        pd.Timestamp(LAST_MOMENT, tz="UTC"),
        np.datetime64(LAST_MOMENT + "00000", "ns"),
        datetime.date(2026, 1, 1),
        np.datetime64("2026-01-01"),
        np.int64(NEW_YEAR),
        float(NEW_YEAR),
    ],
)
def test_an_instant_is_the_same_whoever_writes_it(moment: records.Time) -> None:
    assert records.to_ms(moment) == NEW_YEAR
    assert records.request(FACTS, {"applied_at": moment}, key=1).record["applied_at"] == NEW_YEAR


def test_times_round_to_the_nearest_millisecond() -> None:
    before_1970 = datetime.datetime(1969, 12, 31, 23, 59, 59)
    assert records.to_ms(before_1970.replace(microsecond=998_600)) == -1
    assert records.to_ms(before_1970.replace(microsecond=999_500)) == 0
    assert records.to_ms(before_1970.replace(microsecond=998_499)) == -2


@pytest.mark.parametrize("moment", ["yesterday", 1.5, True, b"2026", float("nan"), float("inf"), 2**70])
def test_what_is_no_time_is_refused(moment: Any) -> None:
    with pytest.raises(UsageError, match="ISO 8601"):
        records.to_ms(moment)


@pytest.mark.parametrize("nothing", [None, pd.NaT, np.datetime64("NaT"), pd.NA])
def test_no_time_is_no_time_whoever_writes_it(nothing: Any) -> None:
    assert records.request(FACTS, {"applied_at": nothing}, key=1).record["applied_at"] is None


@pytest.mark.parametrize("moment", [0, 1_767_225_600, 10**10, "1970-01-02"])
def test_seconds_where_milliseconds_are_meant_are_refused_with_the_remedy(moment: records.Time) -> None:
    early = ModelFacts.from_resolved({**RESOLVED, "event_time": {"name": "applied_at", "early_1970": True}})
    for make in (
        lambda facts: records.request(facts, {}, key=1, event_time=moment),
        lambda facts: records.label(facts, True, "r1", key=1, event_time=moment),
        lambda facts: records.action(facts, "approve", "r1", key=1, event_time=moment),
    ):
        with pytest.raises(Rejected, match="early_1970") as refused:
            make(FACTS)
        assert (refused.value.code, refused.value.field) == ("event-time-in-seconds", "applied_at")
        assert make(early).record["applied_at"] == records.to_ms(moment)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (40.0, 40),
        (np.float64(40.0), 40),
        (np.int32(40), 40),
        (float("nan"), None),
        (pd.NA, None),
        (None, None),
    ],
)
def test_a_whole_number_is_one_however_it_is_written(given: Any, kept: int | None) -> None:
    taken = records.request(FACTS, {"age": given}, key=7.0).record["age"]
    assert (taken, type(taken)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("given", "code"), [(40.5, "wrong-type"), (True, "wrong-type"), (2.0**63, "out-of-range")]
)
def test_what_is_no_whole_number_is_refused(given: Any, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        records.request(FACTS, {"age": given}, key=7)
    assert (refused.value.code, refused.value.field) == (code, "age")


def test_a_missing_category_of_pandas_is_missing_and_a_nan_stays_one() -> None:
    draft = records.request(FACTS, {"region": float("nan"), "income": float("nan")}, key=7)
    assert draft.record["region"] is None
    assert math.isnan(draft.record["income"])


@pytest.mark.parametrize("key", [7.5, True, float("nan"), pd.NA])
def test_a_key_that_is_no_integer_is_refused(key: Any) -> None:
    with pytest.raises(UsageError, match="integer"):
        records.request(FACTS, {"age": 40}, key=key)


@pytest.mark.parametrize("nothing", [None, pd.NA])
@pytest.mark.parametrize("facts", [FACTS, OF_CLASSES, OF_NUMBERS])
def test_a_label_says_something(facts: ModelFacts, nothing: Any) -> None:
    with pytest.raises(UsageError, match="None says nothing"):
        records.label(facts, nothing, request_id="r1", key=7)


@pytest.mark.parametrize("value", [float("nan"), "d", 1.0, True])
def test_a_label_that_is_no_category_names_those(value: Any) -> None:
    with pytest.raises(UsageError, match="one of 1, b, c"):
        records.label(OF_CLASSES, value, request_id="r1", key=7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "4", 10**400])
def test_a_label_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="finite number"):
        records.label(OF_NUMBERS, value, request_id="r1", key=7)


def test_labels_of_categories_and_numbers() -> None:
    assert [
        records.label(OF_CLASSES, v, "r", key=7).record["defaulted"] for v in (1, "b", np.str_("c"))
    ] == list("1bc")
    assert records.label(OF_NUMBERS, 4, "r", key=7).record["defaulted"] == 4.0


@pytest.mark.parametrize(("given", "kept"), [(True, True), (0, False), (np.bool_(True), True)])
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
    with pytest.raises(UsageError, match="request_id="):
        records.action(FACTS, "approve", key=7)
    with pytest.raises(UsageError, match="what was done"):
        records.action(FACTS, "", request_id="r1", key=7)
    draft = records.action(FACTS, "approve", request_id="r1", key=7)
    assert (draft.key, draft.record["loan_id"], draft.record["request_id"]) == ("7", 7, "r1")


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
