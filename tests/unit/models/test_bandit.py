"""Shares of arms: Thompson's probabilities against closed forms, other integrators and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from tailrace.models.rollout_state.bandit import UNITS, assigned, in_units, probability_of_best

Means = st.lists(st.floats(-100, 100), min_size=2, max_size=6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=25).filter(lambda weights: sum(weights) > 1e-3))
def test_shares_are_whole_units_and_make_one(weights: list[float]) -> None:
    shares = in_units(weights)
    assert sum(shares) == 1.0
    for share, weight in zip(shares, weights, strict=True):
        assert (share * UNITS).is_integer()
        assert abs(share - weight / sum(weights)) <= 1.001 / UNITS


def test_the_first_of_equals_get_what_is_left() -> None:
    assert in_units([1, 1, 1]) == [349526 / UNITS, 349525 / UNITS, 349525 / UNITS]
    assert in_units([1.0] * 4) == [0.25] * 4


@pytest.mark.parametrize(
    ("means", "deviations"),
    [
        ((0.0, 1.0), (1.0, 1.0)),
        ((5.0, 5.1), (0.01, 2.0)),
        ((-3e6, 1e6), (4e6, 1.0)),
        ((2.0, 2.0), (1e-7, 3.0)),
    ],
)
def test_of_two_it_is_the_normal_distribution_of_their_difference(
    means: tuple[float, float], deviations: tuple[float, float]
) -> None:
    second = stats.norm.cdf((means[1] - means[0]) / np.hypot(*deviations))
    assert probability_of_best(means, deviations) == pytest.approx([1 - second, second], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_of_several_it_is_what_quadrature_and_simulation_say(seed: int) -> None:
    random = np.random.default_rng(seed)
    means, deviations = random.normal(size=4), np.exp(random.normal(size=4))
    probabilities = probability_of_best(means.tolist(), deviations.tolist())
    for arm in range(4):
        others = [stats.norm(means[i], deviations[i]) for i in range(4) if i != arm]
        own = stats.norm(means[arm], deviations[arm])
        exact, _ = integrate.quad(
            lambda x, own=own, others=others: own.pdf(x) * np.prod([o.cdf(x) for o in others]),
            means[arm] - 9 * deviations[arm],
            means[arm] + 9 * deviations[arm],
            limit=200,
        )
        assert probabilities[arm] == pytest.approx(exact, abs=1e-4)
    best = np.argmax(random.normal(means, deviations, size=(200_000, 4)), axis=1)
    assert probabilities == pytest.approx(np.bincount(best, minlength=4) / 200_000, abs=0.006)


def test_what_is_certain_and_what_is_equal() -> None:
    assert probability_of_best([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == [0.0, 0.0, 1.0]
    assert probability_of_best([0.0, 0.0], [0.0, 0.0]) == [0.5, 0.5]
    assert probability_of_best([7.0, 7.0, 7.0, 7.0], [2.0, 2.0, 2.0, 2.0]) == [0.25] * 4


@given(Means, st.floats(0.01, 1), st.sampled_from(["epsilon-greedy", "thompson"]))
def test_no_arm_falls_below_its_part_of_epsilon(means: list[float], epsilon: float, assign: str) -> None:
    best = probability_of_best(means, [1.0] * len(means))
    shares = assigned(assign, epsilon, means, best)
    assert sum(shares) == 1.0
    assert min(shares) >= epsilon / len(means) - 1 / UNITS
    assert max(shares) == pytest.approx(shares[int(np.argmax(means))], abs=1e-3)


def test_greedy_gives_the_rest_to_the_best_and_thompson_to_each_as_it_probably_is() -> None:
    greedy = assigned("epsilon-greedy", 0.3, [1.0, 3.0, 3.0], [0.1, 0.5, 0.4])
    assert greedy == pytest.approx([0.1, 0.8, 0.1], abs=2 / UNITS)
    thompson = assigned("thompson", 0.3, [1.0, 3.0, 3.0], [0.1, 0.5, 0.4])
    assert thompson == pytest.approx([0.17, 0.45, 0.38], abs=2 / UNITS)
