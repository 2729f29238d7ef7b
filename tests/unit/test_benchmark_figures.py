"""The arithmetic of the benchmarks, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.figures import longest_gap, percentile, slope
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=200), st.floats(0.01, 100))
def test_percentiles_are_numpys_by_the_inverted_distribution(values: list[float], at: float) -> None:
    share = np.arange(1, len(values) + 1) * 100 / len(values)
    if np.abs(share - at).min() > 1e-9:  # on the step itself rounding decides
        assert percentile(values, at) == np.percentile(values, at, method="inverted_cdf")


def test_percentiles_on_the_step() -> None:
    values = [float(number) for number in range(1_000, 0, -1)]
    assert [percentile(values, at) for at in (50, 99, 99.9, 100)] == [500, 990, 999, 1_000]


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@given(st.integers(3, 100), st.floats(-100, 100), st.integers(0, 2**31))
def test_slopes_and_their_errors_are_scipys(count: int, rise: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.uniform(0, 10, count)
    y = rise * x + draw.normal(size=count)
    found, expected = slope(x.tolist(), y.tolist()), stats.linregress(x, y)
    assert found.per_unit == pytest.approx(expected.slope, rel=1e-6, abs=1e-9)
    assert found.error == pytest.approx(expected.stderr, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("x", [[1.0, 2.0], [1.0, 1.0, 1.0]])
def test_a_slope_of_too_little_is_refused(x: list[float]) -> None:
    with pytest.raises(ValueError, match="three points"):
        slope(x, x)


@given(
    st.lists(st.floats(0, 100), max_size=50),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_gaps_are_numpys_differences_within_the_window(times: list[float], one: float, other: float) -> None:
    start, end = sorted((one, other))
    all_times = np.sort(np.array(times))
    edges = np.concatenate([[start], all_times[(all_times >= start) & (all_times <= end)], [end]])
    assert longest_gap(sorted(times), start, end) == pytest.approx(np.diff(edges).max())
