"""How the keys of an experiment are shared among its arms, given what is known of each arm's worth.

Plain functions, whose results are multiples of 2^-20: they make exactly one, and what differs in the last bits from one
machine to the next is gone. They are written into the log, and read from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

UNITS = 1 << 20

_POINTS = np.linspace(-8.0, 8.0, 1601)
_LEAST_DEVIATION = 1e-9


def in_units(weights: Sequence[float]) -> list[float]:
    """Shares in these proportions, multiples of 1 / UNITS that make 1 (by largest remainders, the first of equals)."""
    total = sum(weights)
    wanted = [weight / total * UNITS for weight in weights]
    units = [int(share) for share in wanted]
    by_remainder = sorted(range(len(wanted)), key=lambda arm: units[arm] - wanted[arm])
    for arm in by_remainder[: UNITS - sum(units)]:
        units[arm] += 1
    return [count / UNITS for count in units]


def probability_of_best(means: Sequence[float], deviations: Sequence[float]) -> list[float]:
    """With what probability each of some independent normal quantities is the greatest: those by which Thompson
    sampling chooses (Thompson 1933; Russo, Van Roy, Kazerouni, Osband and Wen 2018).

    For each it is the integral, over its own distribution, of the probability that all others are less: by the
    trapezoidal rule over points that are dense where any of them changes (error below 1e-4).
    """
    scale = max(*(abs(mean) for mean in means), *deviations) or 1.0
    center = np.array(means, dtype=np.float64) / scale
    spread = np.maximum(np.array(deviations, dtype=np.float64) / scale, _LEAST_DEVIATION)
    at = np.sort((center[:, None] + spread[:, None] * _POINTS).ravel())
    below = ndtr((at - center[:, None]) / spread[:, None])
    probabilities = []
    for arm in range(len(center)):
        others = np.prod(np.delete(below, arm, axis=0), axis=0)
        probabilities.append(float(np.sum(np.diff(below[arm]) * (others[1:] + others[:-1]) / 2)))
    return in_units(probabilities)


def assigned(assign: str, epsilon: float, means: Sequence[float], best: Sequence[float]) -> list[float]:
    """With what probability a key is to go to each arm: no less than ``epsilon`` over the number of arms, so that what
    every arm is worth can be weighed out of the log. The rest goes to the arm with the greatest mean (epsilon-greedy:
    Sutton and Barto 2018, 2.2), or to each as it is probably the best (thompson).
    """
    count = len(means)
    if assign == "epsilon-greedy":
        greatest = max(range(count), key=lambda arm: means[arm])
        best = [float(arm == greatest) for arm in range(count)]
    return in_units([epsilon / count + (1 - epsilon) * share for share in best])
