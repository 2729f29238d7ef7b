"""What arms earned, from reports on closed windows: against the rewards that the reports sum up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.reports import DAY, earned

from tailrace.models.rollout_state.rewards import Rewards

Floats = NDArray[np.float64]


def fold(*reports: dict[str, Any]) -> Rewards:
    found = Rewards()
    for offset, report in enumerate(reports):
        found.apply(report, offset)
    return found


def test_within_a_window_it_is_the_mean_over_all_requests_and_its_standard_error() -> None:
    rewards = np.array([1.0, 5.0, -2.0, 0.0, 0.0, 3.0])
    # Two of its requests have no label: they are worth nothing.
    report = earned(1, 1, [1.0, 5.0, -2.0, 3.0], requests=6)
    (worth, other) = fold(report, earned(2, 1, [1.0] * 9)).worth([1, 2], None) or ()
    assert (worth.requests, worth.labelled, worth.windows) == (6, 4, 1)
    assert worth.mean == pytest.approx(rewards.mean())
    assert worth.deviation == pytest.approx(rewards.std(ddof=1) / math.sqrt(6))
    assert worth.interval == pytest.approx(
        (worth.mean - 1.959964 * worth.deviation, worth.mean + 1.959964 * worth.deviation)
    )
    assert (other.mean, other.deviation) == (1.0, 0.0)


def test_over_windows_it_is_weighed_by_one_over_the_share_that_the_arm_had() -> None:
    """An arm that had most of the requests in a bad week is not worse for it."""
    random = np.random.default_rng(3)
    counts = {1: [(1, 900), (2, 100)], 2: [(1, 50), (2, 450)]}
    made: dict[tuple[int, int], Floats] = {
        (day, version): random.normal(10.0 * (day == 1) + version, size=n)
        for day, values in counts.items()
        for version, n in values
    }
    rewards = fold(*(earned(version, day, values.tolist()) for (day, version), values in made.items()))
    worths = rewards.worth([1, 2], None) or []
    for version, worth in zip((1, 2), worths, strict=True):
        total = 0.0
        for day, values in counts.items():
            here = sum(n for _, n in values)
            share = dict(values)[version] / here
            total += (made[day, version] / share).sum()  # Horvitz and Thompson
        assert worth.mean == pytest.approx(total / 1500)
        parts = [made[day, version] for day in (1, 2)]
        variance = sum(((p - p.mean()) ** 2).sum() for p in parts) / (sum(map(len, parts)) - 2)
        spread = math.sqrt(
            variance * sum((w * w) / len(p) for w, p in zip((2 / 3, 1 / 3), parts, strict=True))
        )
        assert worth.deviation == pytest.approx(spread)
    assert worths[1].mean - worths[0].mean == pytest.approx(1.0, abs=4 * worths[1].deviation)
    plain = [np.concatenate([made[day, version] for day in (1, 2)]).mean() for version in (1, 2)]
    assert plain[1] - plain[0] < -4


def test_a_window_counts_once_every_arm_has_a_mature_report_on_it_at_one_age() -> None:
    first, later = earned(1, 1, [1.0] * 4), earned(2, 1, [2.0] * 4)
    assert fold(first).worth([1, 2], None) is None
    assert fold(first, earned(2, 1, [2.0] * 4, mature=False)).worth([1, 2], None) is None
    assert fold(first, earned(2, 1, [2.0] * 4, age=DAY)).worth([1, 2], None) is None
    assert fold(first, earned(2, 1, [2.0])).worth([1, 2], None) is None, "one says nothing of a spread"
    (one, _) = fold(first, later).worth([1, 2], None) or ()
    assert one.mean == 1.0
    # At a later age it counts only when all arms have it.
    again = [first, later, earned(1, 1, [3.0] * 4, age=DAY)]
    (one, _) = fold(*again).worth([1, 2], None) or ()
    assert one.mean == 1.0
    (one, _) = fold(*again, earned(2, 1, [4.0] * 4, age=DAY)).worth([1, 2], None) or ()
    assert one.mean == 3.0


def test_only_all_rows_of_arms_count_of_windows_that_began_afterwards() -> None:
    both = [earned(1, 2, [1.0, 2.0]), earned(2, 2, [1.0, 2.0])]
    assert fold(*both).worth([1, 2], 2 * DAY) is None
    assert fold(*both).worth([1, 2], 2 * DAY - 1) is not None
    others: list[dict[str, Any]] = [{"role": "canary"}, {"segment": "region=a"}, {"value_total": None}]
    for changes in others:
        assert fold(both[0], both[1] | changes).worth([1, 2], None) is None
    other = [r | {"contract_digest": "d" * 64} for r in both[1:]]
    assert fold(both[0], *other).worth([1, 2], None) is None, "under another contract"


def test_order_and_what_is_let_go_change_nothing() -> None:
    random = np.random.default_rng(1)
    reports = [
        earned(version, day, random.normal(size=30).tolist()) for day in range(20) for version in (1, 2, 3)
    ]
    whole = fold(*reports)
    mixed = Rewards()
    for offset in random.permutation(len(reports)).tolist():
        mixed.apply(reports[offset], offset)
    assert mixed.worth([1, 2, 3], None) == whole.worth([1, 2, 3], None)
    expected = whole.worth([2, 3], None)
    copied = whole.copy()
    copied.keep([2, 3])
    assert copied.worth([2, 3], None) == expected
    assert {about.version for about in whole.reports} == {1, 2, 3}
