"""Exact sums, against math.fsum and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.statistics.exact_sum import SCALE, exact_sums, nearest

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def exact_sum(values):
    """In units of 1 / SCALE."""
    return exact_sums(values, np.zeros(len(values), np.int64), 1)[0]


@given(st.lists(FINITE, max_size=60))
def test_it_is_the_sum_of_fractions(values: list[float]) -> None:
    assert exact_sum(np.array(values)) == sum((Fraction(v) for v in values), Fraction(0)) * SCALE


@given(st.lists(st.floats(-1e300, 1e300), max_size=60))
def test_read_it_is_fsum(values: list[float]) -> None:
    assert nearest(exact_sum(np.array(values))) == math.fsum(values)


@given(st.lists(st.tuples(FINITE, st.integers(0, 3)), max_size=40), st.randoms())
def test_order_and_batches_do_not_matter_and_what_was_added_can_be_taken_away(rows, random) -> None:
    def sums(parts):
        values, groups = np.array([v for v, _ in parts], float), np.array([g for _, g in parts], np.int64)
        return exact_sums(values, groups, 4)

    whole = sums(rows)
    shuffled = random.sample(rows, len(rows))
    cut = len(rows) // 2
    assert [a + b for a, b in zip(sums(shuffled[:cut]), sums(shuffled[cut:]), strict=True)] == whole
    taken = sums(rows + [(-v, g) for v, g in rows])
    assert taken == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "value", [5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -0.0, 0.1]
)
def test_the_edges_of_float64(value: float) -> None:
    assert nearest(exact_sum(np.array([value]))) == value


def test_a_sum_beyond_all_floats_is_infinite_and_comes_back() -> None:
    most = np.array([1.7976931348623157e308] * 3)
    assert nearest(exact_sum(most)) == math.inf
    assert nearest(-exact_sum(most)) == -math.inf
    assert nearest(exact_sum(most), 3) == most[0]
