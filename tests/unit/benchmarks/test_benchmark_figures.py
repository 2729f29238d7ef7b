"""The arithmetic of the benchmarks, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import latency, memory
from benchmarks.figures import longest_gap, percentile, slope
from benchmarks.harness import Measured
from benchmarks.peers.__main__ import compared
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
    fitted, expected = slope(x.tolist(), y.tolist()), stats.linregress(x, y)
    assert fitted.per_unit == pytest.approx(expected.slope, rel=1e-6, abs=1e-9)
    assert fitted.error == pytest.approx(expected.stderr, rel=1e-5, abs=1e-9)


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


def test_memory_grows_by_what_it_grows_in_the_second_half() -> None:
    warming_up = [(float(at), 100 * 2**20 + at * 2**20) for at in range(60)]
    after = [(60.0 + at, 160 * 2**20 + at * 2**20 / 60) for at in range(60)]
    facts = memory.facts([*warming_up, *after])
    assert facts["mib_per_hour"] == {"slope": 60.0, "standard_error": 0.0}
    assert facts["mib"] == {"first": 100.0, "half": 160.0, "last": 161.0}
    assert (facts["samples"], facts["minutes"]) == (120, 1.98)


def test_ratios_are_taken_within_a_round() -> None:
    rounds = {latency.BASE: [{"p99": 10.0}, {"p99": 40.0}], "scorer": [{"p99": 12.0}, {"p99": 40.0}]}
    found = latency.summary(rounds)["scorer"]["p99"]
    assert found["ratio"] == {"median": 1.1, "least": 1.0, "most": 1.2}
    assert found["median"] == 26.0


def test_a_peer_is_compared_by_speed_and_by_what_a_cpu_second_moves() -> None:
    scorer = [Measured(100, 1.0, 0.5), Measured(100, 2.0, 0.5)]
    peer = [Measured(100, 5.0, 5.0), Measured(100, 20.0, 2.0)]
    ratios = compared(scorer, peer)
    assert ratios["times_as_fast"] == {"median": 7.5, "least": 5.0, "most": 10.0}
    assert ratios["records_per_cpu_second"] == {"median": 7.0, "least": 4.0, "most": 10.0}
