"""Counts by score: exact up to the limit, within the stated error beyond it, whatever the order of merging."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tailrace.evaluator.counts import PerformanceCounts
from tailrace.statistics import score_counts
from tailrace.statistics.score_counts import LIMIT, ScoreCounts, count_scores, score_keys


def counted(scores: np.ndarray, positive: np.ndarray, sign: int = 1) -> ScoreCounts:
    return count_scores(score_keys(scores)[:, np.newaxis], positive, np.full(len(scores), sign))


def same(one: ScoreCounts, other: ScoreCounts) -> bool:
    arrays = ((one.keys, other.keys), (one.counts, other.counts))
    return one.shift == other.shift and all(np.array_equal(a, b) for a, b in arrays)


@given(st.lists(st.floats(-10, 2), min_size=2, max_size=2))
def test_keys_keep_the_order_and_tell_scores_apart(scores: list[float]) -> None:
    (low, high), (a, b) = sorted(scores), score_keys(np.array(sorted(scores)))
    assert a <= b
    if low >= 0:  # probabilities: one key for each
        assert (a == b) == (low == high)


def test_keys_lose_bits_alike_at_both_ends() -> None:
    near = np.array([1e-9, 1.0001e-9, 1 - 1e-9, 1 - 1.01e-9])
    keys = score_keys(near) >> 40
    assert len(set(keys.tolist())) == 4 or len(set((score_keys(near) >> 36).tolist())) == 4


@pytest.mark.parametrize("shape", ["even", "rare", "certain", "heaped"])
def test_beyond_the_limit_the_auc_is_within_the_stated_error(shape: str) -> None:
    rng = np.random.default_rng(0)
    n = 4 * LIMIT
    raw = {
        "even": rng.random(n),
        "rare": rng.random(n) ** 30,
        "certain": 1 - rng.random(n) ** 30,
        "heaped": np.clip(0.5 + 1e-6 * rng.normal(size=n), 0, 1),
    }[shape]
    truth = rng.random(n) < raw
    truth[:2] = True, False
    binned = counted(raw, truth)
    assert len(binned.keys) <= LIMIT < len(np.unique(raw))
    auc = binned.auc()
    assert auc is not None
    assert auc.error is not None
    assert abs(auc.value - roc_auc_score(truth, raw)) <= auc.error + 1e-12
    assert auc.error < 1e-3


def test_at_the_limit_it_is_exact() -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.random(LIMIT), rng.random(LIMIT) < 0.3
    auc = counted(scores, truth).auc()
    assert auc is not None
    assert auc.error is None
    assert auc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("width", [1, 2])
def test_parts_merge_to_the_same_counts_in_any_order(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_counts, "LIMIT", 40)
    rng = np.random.default_rng(2)
    scores = rng.random((300, width)) ** 4
    truth = rng.random(300) < 0.5
    keys = np.column_stack([score_keys(scores[:, c]) for c in range(width)])
    whole = count_scores(keys, truth, np.ones(300, dtype=np.int64))
    assert len(whole.keys) <= 40
    shuffled = random.Random(3)
    for size in (1, 7, 50):
        order = rng.permutation(300)
        parts = [
            count_scores(keys[part], truth[part], np.ones(len(part), dtype=np.int64))
            for part in np.array_split(order, 300 // size)
        ]
        while len(parts) > 1:
            parts.append(
                parts.pop(shuffled.randrange(len(parts))) + parts.pop(shuffled.randrange(len(parts)))
            )
        assert same(parts[0], whole)


def test_what_is_taken_back_leaves_no_rows_and_the_same_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_counts, "LIMIT", 5)
    rng = np.random.default_rng(4)
    parts = [counted(rng.random(4), np.array([True, False, True, False])) for _ in range(3)]
    back = ScoreCounts(parts[0].keys, -parts[0].counts, parts[0].shift)
    orders = [sum_of([*order]) for order in itertools.permutations([*parts, back])]
    assert all(same(one, orders[0]) for one in orders)
    assert orders[0].n == 8


def sum_of(parts: list[ScoreCounts]) -> ScoreCounts:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def test_without_both_classes_there_is_no_auc() -> None:
    assert counted(np.array([0.1, 0.2]), np.array([True, True])).auc() is None
    assert counted(np.empty(0), np.empty(0, dtype=bool)).auc() is None


def test_with_one_row_of_a_class_there_is_an_auc_of_unknown_variance() -> None:
    auc = counted(np.array([0.1, 0.2, 0.3]), np.array([False, True, False])).auc()
    assert auc == (0.5, None, None)


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 40_000, 2**31])
def test_they_keep_their_form_in_bytes(rows: int) -> None:
    one = counted(np.array([0.25, 0.75]), np.array([True, False]))
    many = ScoreCounts(one.keys, one.counts * rows, 0)
    assert same(PerformanceCounts.from_bytes(PerformanceCounts(scores=many).to_bytes()).scores, many)
    nothing = counted(np.empty(0), np.empty(0, dtype=bool))
    assert same(PerformanceCounts.from_bytes(PerformanceCounts(scores=nothing).to_bytes()).scores, nothing)
