"""The checks at the door: each rule of the contract, and that a bad row harms no other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.scoring import CONTRACT, NOW, REQUEST, avro

from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.strict_types import plain
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.schemas import request_schema
from tailrace.scorer.steps.check_input import Checked, InputCheck

CREDIT = load_contract(CONTRACT)


def run(*requests: dict[str, Any], contract: ModelContract = CREDIT) -> Checked:
    schema = request_schema(contract)
    columns, good, _ = ColumnDecoder(schema, header=0).decode([avro(plain(schema), r) for r in requests])
    assert good is None
    times = columns[contract.event_time.name].values
    return InputCheck(contract).run(columns, times, np.full(len(requests), NOW))


def verdict(**changes: Any) -> tuple[str, str | None] | None:
    bad = run(REQUEST | changes).bad
    return (bad[0].code, bad[0].field) if bad else None


def test_a_good_request_passes() -> None:
    checked = run(REQUEST)
    assert not checked.bad
    assert not checked.replaced
    assert not checked.impute
    assert checked.columns["income"].tolist() == [40_000.0]
    assert checked.columns["age"].tolist() == [40.0]
    assert checked.columns["purpose"].tolist() == ["car"]
    assert checked.columns["vip"].tolist() == [0.0]
    assert checked.columns["note"].tolist() == [None]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"debt_ratio": None}, ("missing", "debt_ratio")),
        ({"purpose": None}, ("missing", "purpose")),
        ({"debt_ratio": math.nan}, ("not-finite", "debt_ratio")),
        ({"debt_ratio": math.inf}, ("not-finite", "debt_ratio")),
        ({"income": -math.inf}, ("not-finite", "income")),
        ({"amount": math.inf}, ("not-finite", "amount")),
        ({"income": -0.01}, ("out-of-range", "income")),
        ({"income": 1_000_000.5}, ("out-of-range", "income")),
        ({"age": 17}, ("out-of-range", "age")),
        ({"age": 121}, ("out-of-range", "age")),
        ({"amount": -1.0}, ("out-of-range", "amount")),
        ({"grade": "z"}, ("unseen-category", "grade")),
        ({"grade": ""}, ("unseen-category", "grade")),
        ({"region": "north "}, ("unseen-category", "region")),
        ({"debt_ratio": 1.0, "income": 0.0}, ("rule", "debt-needs-income")),
        ({"applied_at": NOW + 300_001}, ("event-time-ahead", "applied_at")),
        ({"applied_at": 4_102_444_800_000}, ("event-time-ahead", "applied_at")),
        ({"applied_at": NOW + 300_000}, None),
        ({"applied_at": -1}, None),
        ({"applied_at": 0}, ("event-time-in-seconds", "applied_at")),
        ({"applied_at": NOW // 1000}, ("event-time-in-seconds", "applied_at")),
        ({"applied_at": 10**10}, ("event-time-in-seconds", "applied_at")),
        ({"applied_at": 10**10 + 1}, None),
        ({"applied_at": None}, None),
        ({"income": 0.0, "debt_ratio": 0.0}, None),
        ({"income": 1_000_000.0, "age": 18}, None),
        ({"age": None}, None),
        ({"amount": None, "region": None, "vip": None, "note": "ünseen"}, None),
        ({"amount": math.nan}, None),
        ({"income": None}, None),
        ({"income": math.nan}, None),
        ({"grade": None}, None),
        ({"purpose": "boat"}, None),
    ],
)
def test_each_rule_of_the_contract(changes: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert verdict(**changes) == expected


def test_what_is_replaced_is_said() -> None:
    checked = run(REQUEST, REQUEST | {"purpose": "boat"}, REQUEST | {"income": None, "grade": None})
    assert checked.columns["purpose"].tolist() == ["car", "other", "car"]
    assert {row: [tuple(r) for r in replacements] for row, replacements in checked.replaced.items()} == {
        1: [("purpose", "other", "unseen")]
    }
    assert {name: missing.tolist() for name, missing in checked.impute.items()} == {
        "income": [False, False, True],
        "grade": [False, False, True],
    }


def test_the_first_thing_wrong_is_said() -> None:
    assert verdict(income=-1.0, age=5) == ("out-of-range", "income")


def test_an_unknown_rule_does_not_break_a_row() -> None:
    assert verdict(income=None) is None


FLAWS: dict[str, Any] = {
    "income": st.sampled_from([-1.0, 2e6, math.inf]),
    "debt_ratio": st.sampled_from([None, math.nan, -1.0]),
    "age": st.sampled_from([1, 200]),
    "grade": st.sampled_from(["q", ""]),
    "region": st.just("west"),
}


@given(st.data())
@settings(max_examples=60)
def test_a_row_is_judged_alike_alone_and_among_others(data: st.DataObject) -> None:
    requests = [dict(REQUEST) for _ in range(data.draw(st.integers(1, 6)))]
    flawed = set()
    for row, request in enumerate(requests):
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(FLAWS)))
            request[name] = data.draw(FLAWS[name])
            flawed.add(row)
    together = run(*requests)
    assert together.bad.keys() == flawed
    for row, request in enumerate(requests):
        alone = run(request).bad
        assert str(alone.get(0)) == str(together.bad.get(row))
