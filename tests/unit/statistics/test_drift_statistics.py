"""Drift's statistics against scipy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.stats.contingency import association

from tailrace.drift.false_alerts import adjusted, level
from tailrace.statistics.chi_squared import chi_squared_test, cramers_v
from tailrace.statistics.fisher import share_test
from tailrace.statistics.ks import ks_test, p_value, slots_of

CLOSE = 1e-9
few = st.sampled_from([-np.inf, -1.5, -1.0, 0.0, 0.5, 1.0, 2.0, np.inf])
any_number = st.floats(allow_nan=False)


def counted(values: list[float] | NDArray[Any], reference: list[float] | NDArray[Any]) -> tuple[Any, Any]:
    points, at = np.unique(np.array(reference, dtype=float), return_counts=True)
    slots = slots_of(np.array(values, dtype=float), points)
    return np.bincount(slots, minlength=2 * len(points) + 1), at


def agree(values: Any, reference: Any) -> None:
    tested = ks_test(*counted(values, reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.ks_2samp(values, reference)
    assert tested is not None
    assert tested.statistic == pytest.approx(expected.statistic, abs=CLOSE)
    assert tested.p_value == pytest.approx(expected.pvalue, abs=CLOSE)
    assert tested.effect == tested.statistic


@given(
    st.lists(few | any_number, min_size=1, max_size=40),
    st.lists(few | any_number, min_size=1, max_size=40),
)
@settings(max_examples=300)
def test_ks_is_scipys_with_ties_and_infinities(values: list[float], reference: list[float]) -> None:
    agree(values, reference)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 5.0]))
@settings(max_examples=100)
def test_ks_is_scipys_at_any_sizes(n: int, m: int, seed: int, shift: float) -> None:
    draw = np.random.default_rng(seed)
    decimals = int(draw.integers(0, 5))
    agree(np.round(draw.normal(shift, 1, n), decimals), np.round(draw.normal(0, 1, m), decimals))


@pytest.mark.parametrize(
    ("n", "m"), [(9_999, 1_000), (10_000, 1_000), (10_001, 1_000), (40_000, 997), (3, 1)]
)
@pytest.mark.parametrize("shift", [0.0, 0.05, 3.0])
def test_ks_is_scipys_where_exact_becomes_asymptotic(n: int, m: int, shift: float) -> None:
    draw = np.random.default_rng(n)
    agree(draw.normal(shift, 1, n), draw.normal(0, 1, m))


@given(st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40)
def test_a_p_value_is_that_of_all_samples_of_its_sizes_and_distance(n: int, m: int) -> None:
    common = np.gcd(n, m)
    reachable = {abs(a * m - b * n) // common for a in range(n + 1) for b in range(m + 1)}
    p_values = [p_value(n, m, int(h)) for h in sorted(reachable)]
    assert p_values[0] == 1.0
    assert p_values == sorted(p_values, reverse=True)
    for impossible in set(range(n * m // common + 2)) - reachable:
        with pytest.raises(ValueError, match="no distance"):
            p_value(n, m, impossible)


@pytest.mark.parametrize(("n", "m"), [(3, 1_000), (60, 60), (500, 1_000), (1_993, 997), (5_000, 1_000)])
def test_ks_is_scipys_at_any_distance(n: int, m: int) -> None:
    values = np.arange(m)
    for cut in np.linspace(0, m, 12).astype(int):
        agree(np.linspace(cut, m, n), values)


def test_ks_of_nothing_is_not_defined() -> None:
    assert ks_test(*counted([], [1.0, 2.0])) is None
    assert ks_test(np.array([5]), np.array([], dtype=np.int64)) is None


def test_merging_windows_is_adding_counts() -> None:
    draw = np.random.default_rng(1)
    one, other, reference = draw.normal(0, 1, 70), draw.normal(1, 1, 30), draw.normal(0, 1, 50)
    (first, at), (second, _) = counted(one, reference), counted(other, reference)
    assert ks_test(first + second, at) == ks_test(*counted(np.concatenate([one, other]), reference))


rows = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12)


@given(rows)
@settings(max_examples=300)
def test_chi_squared_is_scipys(pairs: list[tuple[int, int]]) -> None:
    counts, reference = np.array(pairs).T
    table = np.stack([counts, reference])[:, (counts + reference) > 0]
    tested = chi_squared_test(counts, reference)
    if table.shape[1] < 2 or not counts.sum() or not reference.sum():
        assert tested is None
        return
    expected = stats.chi2_contingency(table)
    assert tested is not None
    assert tested.statistic == pytest.approx(expected.statistic, abs=CLOSE, rel=CLOSE)
    assert tested.p_value == pytest.approx(expected.pvalue, abs=CLOSE)


@given(rows)
@settings(max_examples=200)
def test_cramers_v_is_scipys_once_both_rows_are_of_one_size(pairs: list[tuple[int, int]]) -> None:
    counts, reference = np.array(pairs).T
    if not counts.sum() or not reference.sum():
        return
    balanced = np.stack([counts * reference.sum(), reference * counts.sum()])
    balanced = balanced[:, balanced.sum(axis=0) > 0]
    expected = association(balanced, method="cramer") if balanced.shape[1] > 1 else 0.0
    assert cramers_v(counts, reference) == pytest.approx(expected, abs=CLOSE)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=200)
def test_shares_are_judged_by_scipys_exact_test(count: int, rest: int, others: int, other_rest: int) -> None:
    tested = share_test(count, count + rest, others, others + other_rest)
    if count + rest == 0 or others + other_rest == 0:
        assert tested is None
        return
    assert tested is not None
    assert tested.statistic == count / (count + rest)
    assert tested.p_value == pytest.approx(
        stats.fisher_exact([[count, rest], [others, other_rest]]).pvalue, abs=CLOSE
    )


@given(st.lists(st.floats(0, 1), max_size=40))
@settings(max_examples=200)
def test_q_values_are_scipys(p_values: list[float]) -> None:
    expected = stats.false_discovery_control(p_values) if p_values else []
    assert adjusted(p_values) == pytest.approx(list(expected), abs=CLOSE)


def test_the_budget_is_shared_by_windows_and_segments() -> None:
    day = 86_400_000
    assert level(1, 30 * day, day, 1) == pytest.approx(1 / 30)
    assert level(1, 30 * day, day, 5) == pytest.approx(1 / 150)
    assert level(1, 30 * day, day // 24, 1) == pytest.approx(1 / 720)
    assert level(100, day, day, 1) == 0.05
