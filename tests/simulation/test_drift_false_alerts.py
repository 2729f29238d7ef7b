"""How often drift cries wolf, and whether it finds the wolf: many streams of windows, each with a training set of its
own, drawn as rows and judged as they are in service.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.drift.alerts import drift_alerts
from tailrace.drift.count import DriftSubject
from tailrace.drift.counts import DriftCounts
from tailrace.drift.judge import DriftWindow, judge
from tailrace.drift.layout import SlotLayout
from tailrace.models.reference import (
    CategoryProfile,
    NumberProfile,
    Reference,
    category_profile,
    number_profile,
)

DAY = 86_400_000
DAYS = 30
ROWS = 500
NUMBERS = {"a": "normal", "b": "lognormal", "c": "counts", "d": "rounded"}
CATEGORIES = {"e": [0.5, 0.3, 0.15, 0.05], "f": [0.9, 0.1]}
_CONTRACT = """
model: m
owner: {team: t}
features:
  a: {type: number, missing: pass}
  b: {type: number}
  c: {type: integer}
  d: {type: number}
  e: {categories: [p, q, r, s], unseen: s}
  f: {categories: [p, q], missing: pass}
target: {name: y, type: boolean}
drift: {window: 1d, min_rows: ROWS, false_alerts: {at_most: 1, per: 30d}, min_effect: FLOORS}
"""
FLOORS = "{ks: 0.1, cramers_v: 0.1}"
NO_FLOORS = "{ks: 0.0, cramers_v: 0.0}"


def applied(floors: str) -> AppliedContract:
    contract = load_contract(_CONTRACT.replace("ROWS", str(ROWS)).replace("FLOORS", floors))
    return AppliedContract("m", 1, contract.digest, contract.resolved_json, "", "t", 0)


def draw(rng: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "a": rng.normal(shift, 1, n),
        "b": rng.lognormal(0, 1, n),
        "c": rng.poisson(3, n).astype(float),
        "d": np.round(rng.normal(0, 1, n), 1),
    }
    columns["a"][rng.random(n) < 0.02] = np.nan
    for name, shares in CATEGORIES.items():
        columns[name] = rng.choice(np.array(["p", "q", "r", "s"][: len(shares)], dtype=object), n, p=shares)
    columns["f"][rng.random(n) < 0.1] = None
    columns["score"] = 1 / (1 + np.exp(-np.nan_to_num(columns["a"]) - columns["d"]))
    columns["predicted_class"] = np.where(columns["score"] > 0.5, "true", "false").astype(object)
    return columns


def layout(columns: dict[str, Any]) -> SlotLayout:
    features: dict[str, NumberProfile | CategoryProfile] = {
        name: number_profile(columns[name]) for name in NUMBERS
    }
    for name, shares in CATEGORIES.items():
        features[name] = category_profile(columns[name], ("p", "q", "r", "s")[: len(shares)])
    n = len(columns["a"])
    classes = category_profile(columns["predicted_class"], ("false", "true"))
    reference = Reference(
        rows=n,
        features=features,
        output_rows=n,
        score=number_profile(columns["score"]),
        predicted_class=classes,
    )
    return SlotLayout.of(reference, [*NUMBERS, *CATEGORIES])


def as_column(values: Any) -> Column:
    if values.dtype == object:
        return Column([None if v is None else v.encode() for v in values], None)
    return Column(values, None)


def stream(seed: int, contract: AppliedContract, trained_on: int, shift_from: int | None = None) -> list[int]:
    """The days of a month of windows that alerts began with; from a day on a number moves by half its width."""
    rng = np.random.default_rng(seed)
    slots = layout(draw(rng, trained_on))
    raised: dict[str, int] = {}
    memory: dict[str, Any] = {}
    for day in range(DAYS):
        shift = 0.5 if shift_from is not None and day >= shift_from else 0.0
        columns = {name: as_column(values) for name, values in draw(rng, ROWS, shift).items()}
        at = np.concatenate(slots.slots(columns, ROWS))
        counts = DriftCounts(ROWS, 0, np.bincount(at, minlength=slots.width))
        window = DriftWindow("m", contract, day * DAY)
        report = judge(window, DriftSubject(1, "d", "champion", ""), counts, slots)
        alerts = drift_alerts(window, [report], memory)
        memory = alerts.open
        for alert in alerts.records:
            raised.setdefault(alert["alert_id"], day)
    return sorted(raised.values())


@pytest.mark.parametrize("trained_on", [500, 1_000, 5_000])
def test_a_quiet_stream_raises_no_more_alerts_than_its_budget(trained_on: int) -> None:
    """Also where no change is too small to matter, so that the statistics alone keep the budget of one a month."""
    months = 20
    contract = applied(NO_FLOORS)
    alerts = sum(len(stream(seed, contract, trained_on)) for seed in range(months))
    assert alerts <= months + 2 * months**0.5


def test_with_the_default_floors_a_quiet_stream_raises_next_to_none() -> None:
    contract = applied(FLOORS)
    assert sum(len(stream(seed, contract, 2_000)) for seed in range(20)) <= 4  # a fifth of the budget


def test_a_change_is_found_in_its_first_window() -> None:
    contract = applied(FLOORS)
    for seed in range(8):
        assert [day for day in stream(seed, contract, 2_000, shift_from=10) if day >= 10] == [10]  # and lasts
