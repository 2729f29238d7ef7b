"""Counting predictions into windows, from columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.drift.count import CountedPredictions, count
from tailrace.drift.counts import DriftCounts, SparseCounts
from tailrace.drift.layout import SlotLayout
from tailrace.drift.read_predictions import PredictionIdentity, PredictionRows
from tailrace.models.reference import Reference, category_profile, number_profile
from tailrace.windows.kinds import NO_TIME

SECOND = 1_000
CONTRACT = """
model: m
owner: {team: t}
features:
  x: {type: number}
  colour: {categories: [red, blue], unseen: red}
context:
  vip: {type: boolean}
target: {name: y, type: TYPE}
event_time: {lateness: 5s}
drift: {window: 10s, by: [vip, colour]}
"""
TRAINED = np.arange(1_000.0)


def contract(target: str = "boolean") -> ModelContract:
    return load_contract(CONTRACT.replace("TYPE", target))


def layout(*, classes: bool = True) -> SlotLayout:
    colours = np.array(["red"] * 600 + ["blue"] * 400, dtype=object)
    answers = np.array(["false"] * 900 + ["true"] * 100, dtype=object)
    reference = Reference(
        rows=1_000,
        features={"x": number_profile(TRAINED), "colour": category_profile(colours, ("red", "blue"))},
        output_rows=1_000,
        score=number_profile(TRAINED / 1_000),
        predicted_class=category_profile(answers, ("false", "true")) if classes else None,
    )
    return SlotLayout.of(reference, ["x", "colour"])


def predictions(times: Any, **changed: Column) -> PredictionRows:
    n = len(times)
    nothing = Column(np.full(n, np.nan), np.zeros(n, dtype=np.bool_))
    columns = {
        "x": Column(np.zeros(n), None),
        "colour": Column([b"red"] * n, None),
        "vip": Column(np.zeros(n), None),
        "score": Column(np.full(n, 0.5), None),
        "value": nothing,
        "predicted_class": Column([b"false"] * n, None),
    } | changed
    request = {name: columns[name] for name in ("x", "colour", "vip")}
    outputs = {name: columns[name] for name in ("score", "value", "predicted_class")}
    identity = PredictionIdentity("m", 1, "artifact", "contract", "champion", "model")
    return PredictionRows(identity, np.arange(n), np.array(times, dtype=np.int64), request, outputs)


def counted(
    rows: PredictionRows, of: SlotLayout | None = None, before: Any = None, under: ModelContract | None = None
) -> list[CountedPredictions]:
    clocks = np.full(len(rows.at), NO_TIME) if before is None else np.array(before)
    return list(count(rows, under or contract(), of or layout(), clocks))


def by_segment(counts_of: list[CountedPredictions]) -> dict[str, DriftCounts]:
    return {one.subject.segment: one.counts for one in counts_of}


def field(counts: DriftCounts, of: SlotLayout, name: str) -> list[int]:
    slots = next(f for f in of.fields if f.name == name)
    return [int(n) for n in counts.slots[slots.first : slots.first + slots.width]]


def test_rows_belong_to_all_and_to_one_segment_of_each_field() -> None:
    vip = Column(np.array([0.0, 1.0, 1.0, np.nan]), np.array([True, True, True, False]))
    colours = Column([b"red", b"blue", b"green", None], np.array([True, True, True, False]))
    segments = by_segment(counted(predictions([0, 1, 2, 3], vip=vip, colour=colours)))
    assert {segment: counts.rows for segment, counts in segments.items()} == {
        "": 4,
        "vip=false": 1,
        "vip=true": 2,
        "colour=red": 1,
        "colour=blue": 1,
    }
    assert field(segments[""], layout(), "colour") == [1, 1, 1, 1]  # missing, unseen, red, blue
    assert field(segments["vip=true"], layout(), "colour") == [0, 1, 0, 1]


def test_values_are_counted_at_and_between_the_points_of_training() -> None:
    values = np.array([-1.0, 0.0, 0.5, 1.0, 999.0, 1_000.0, np.inf, -np.inf, np.nan])
    [counts] = [
        c.counts for c in counted(predictions(range(9), x=Column(values, None))) if not c.subject.segment
    ]
    slots = field(counts, layout(), "x")
    assert {at: n for at, n in enumerate(slots) if n} == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 2_000: 1, 2_001: 2}


def test_a_regressions_values_are_its_scores() -> None:
    nothing = Column(np.full(2, np.nan), np.zeros(2, dtype=np.bool_))
    rows = predictions([0, 1], score=nothing, value=Column(np.array([0.0, 0.5]), None))
    of = layout(classes=False)
    counts = by_segment(counted(rows, of, under=contract("number")))[""]
    slots = field(counts, of, "score")
    assert (sum(slots), slots[0], slots[2]) == (2, 0, 1)


def test_a_batch_of_very_many_windows_is_counted_piece_by_piece() -> None:
    n = 1_100
    rng = np.random.default_rng(0)
    x = rng.normal(500, 300, n)
    rows = predictions(np.arange(n) * 10 * SECOND, x=Column(x, None))
    of = layout()
    assert of.width * n > 1 << 22
    counts_of = [c for c in counted(rows, of) if not c.subject.segment]
    assert [c.window_start for c in counts_of] == [at * 10 * SECOND for at in range(n)]
    assert all(c.counts.rows == 1 for c in counts_of)
    total = counts_of[0].counts
    for one in counts_of[1:]:
        total = total.plus(one.counts)
    at_once = by_segment(counted(predictions([0] * n, x=Column(x, None)), of))[""]
    assert total.to_bytes() == at_once.to_bytes()


def test_a_row_is_late_from_the_moment_its_window_closes_for_its_partition() -> None:
    rows = predictions([9_999] * 3)
    counts_of = {
        (c.window_start, c.subject.segment): (c.counts.rows, c.counts.late)
        for c in counted(rows, before=[14_999, 15_000, 31_000])
    }
    assert counts_of[0, ""] == (1, 0)
    assert counts_of[10_000, ""] == (0, 1)
    assert counts_of[30_000, ""] == (0, 1)
    assert counts_of[30_000, "vip=false"] == (0, 1)


def test_without_a_reference_rows_are_counted_alone() -> None:
    rows = predictions([0, 1, 2])
    counts_of = list(count(rows, contract(), None, np.full(3, NO_TIME)))
    assert {(c.counts.rows, len(c.counts.slots)) for c in counts_of} == {(3, 0)}
    later = by_segment(counted(rows))[""]
    assert counts_of[0].counts.plus(later).rows == 6
    assert (counts_of[0].counts.plus(later).slots == later.slots).all()
    assert (later.plus(counts_of[0].counts).slots == later.slots).all()


@pytest.mark.parametrize("largest", [0, 1, 255, 256, 70_000, 2**33])
@pytest.mark.parametrize("filled", [0, 1, 500])
def test_counts_come_back_from_bytes(largest: int, filled: int) -> None:
    slots = np.zeros(500, dtype=np.int64)
    slots[:filled] = largest
    back = DriftCounts.from_bytes(DriftCounts(7, 2, slots).to_bytes())
    assert (back.rows, back.late) == (7, 2)
    assert back.slots.dtype == np.int64
    assert back.slots.tolist() == slots.tolist()


@pytest.mark.parametrize("filled", [0, 1, 166, 167, 500])
def test_few_counts_among_many_slots_take_little_memory(filled: int) -> None:
    slots = np.zeros(500, dtype=np.int64)
    slots[500 - filled :] = 2**33
    lean = DriftCounts(7, 2, slots).lean()
    assert isinstance(lean, SparseCounts) == (filled <= 166)
    whole = lean.whole()
    assert (whole.rows, whole.late, whole.slots.dtype) == (7, 2, np.int64)
    assert whole.slots.tolist() == slots.tolist()
