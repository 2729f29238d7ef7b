"""How often each score came with each class: all that an AUC and its interval need, and it adds up.

A score is counted under an integer key that keeps the order. Up to ``LIMIT`` distinct keys nothing is lost. Beyond
them the keys lose their lowest bits, as few as bring them within the limit. The bins are nested and a key once
counted is never forgotten, so how many bits are lost follows from all scores that were ever added: not from their
order, nor from how they were split into parts. Near 0 and 1 the bins are finer in proportion, so that the scores of
rare events are told apart.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.statistics.result import Floats, Ints

LIMIT = 10_000
"""Distinct scores (or pairs of them) that are kept apart."""

_WIDEST = 63


class Auc(NamedTuple):
    """Area under the ROC curve.

    Attributes:
        value: probability that a positive scores higher than a negative, ties counted half.
        variance: by DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988); None with a class of one row.
        error: how far ``value`` may be off because scores were binned; None where it is exact.
    """

    value: float
    variance: float | None
    error: float | None


@dataclass(frozen=True)
class ScoreCounts:
    """Counts of rows by score and class.

    Attributes:
        keys: [k, d] distinct rows in lexicographic order: one key, or two of two versions that scored the same row.
        counts: [k, 2] of negatives and of positives. Zero where what was counted was taken back.
        shift: how many bits the keys have lost.
    """

    keys: Ints
    counts: Ints
    shift: int = 0

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def __add__(self, other: ScoreCounts) -> ScoreCounts:
        """What both counted."""
        shift = max(self.shift, other.shift)
        keys = np.concatenate([self.keys >> (shift - self.shift), other.keys >> (shift - other.shift)])
        return within_limit(keys, np.concatenate([self.counts, other.counts]), shift)

    def auc(self, column: int = 0) -> Auc | None:
        """The AUC of one of the columns; None where a class is missing."""
        negatives, positives = (int(c) for c in self.counts.sum(axis=0))
        if negatives <= 0 or positives <= 0:
            return None
        placed = self._placed(column)
        # By integers: twice the number of pairs in the right order, ties counted once.
        doubled = sum(map(int, (placed.counts[:, 1] * placed.doubled_below).tolist()))
        variance = _covariance(self.counts, placed, placed)
        ties = int((placed.counts[:, 0] * placed.counts[:, 1]).sum())
        error = ties / (2 * positives * negatives) if self.shift else None
        return Auc(doubled / (2 * positives * negatives), variance, error)

    def auc_covariance(self) -> float | None:
        """Covariance of the AUCs of the two columns, by the same method."""
        return _covariance(self.counts, self._placed(0), self._placed(1))

    def _placed(self, column: int) -> _Placed:
        distinct, where = np.unique(self.keys[:, column], return_inverse=True)
        counts = np.zeros((len(distinct), 2), dtype=np.int64)
        np.add.at(counts, where, self.counts)
        below = np.cumsum(counts, axis=0) - counts
        doubled = 2 * below + counts
        totals = counts.sum(axis=0)
        # DeLong's structural components by row of the counts: the share of negatives below, of positives above.
        of_positive = (doubled[:, 0] / (2 * totals[0]))[where]
        of_negative = (1 - doubled[:, 1] / (2 * totals[1]))[where]
        return _Placed(counts, doubled[:, 0], of_positive, of_negative)


class _Placed(NamedTuple):
    counts: Ints
    doubled_below: Ints
    of_positive: Floats
    of_negative: Floats


def count_scores(keys: Ints, positive: NDArray[np.bool_], signs: Ints) -> ScoreCounts:
    """Counts of rows: ``keys`` [n, d], whether each is a positive, and 1 where it is added, -1 where taken back."""
    counts = np.zeros((len(keys), 2), dtype=np.int64)
    counts[np.arange(len(keys)), positive.astype(np.int64)] = signs
    return within_limit(keys, counts, 0)


def count_all_scores(scores: Floats, positive: NDArray[np.bool_]) -> ScoreCounts:
    """Counts of rows that are all there: nothing is lost, however many distinct scores there are."""
    counts = np.column_stack([~positive, positive]).astype(np.int64)
    return ScoreCounts(*_merged(score_keys(scores)[:, np.newaxis], counts))


def score_keys(scores: Floats) -> Ints:
    """Integers in the order of the scores, one for one for all from 0 to 1; what is below -1 or above 2 is as these.

    From 0.5 on it is the distance to 1 that counts, so that bits lost later are lost alike at both ends.
    """
    scores = np.clip(scores, -1.0, 2.0)
    middle = _ordered(np.array([0.5]))[0]
    return np.asarray(np.where(scores < 0.5, _ordered(scores) - middle, middle - _ordered(1.0 - scores)))


def _ordered(values: Floats) -> Ints:
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def within_limit(keys: Ints, counts: Ints, shift: int) -> ScoreCounts:
    """Equal keys as one; with the least further loss of bits that leaves at most ``LIMIT`` of them."""
    keys, counts = _merged(keys, counts)
    if len(keys) > LIMIT:
        candidates = range(_WIDEST - shift)
        lost = bisect_left(
            candidates, True, 1, key=lambda bits: len(np.unique(keys >> bits, axis=0)) <= LIMIT
        )
        keys, counts = _merged(keys >> lost, counts)
        shift += lost
    return ScoreCounts(keys, counts, shift)


def _merged(keys: Ints, counts: Ints) -> tuple[Ints, Ints]:
    order: Any = np.lexsort(keys.T[::-1])
    keys, counts = keys[order], counts[order]
    new = np.ones(len(keys), dtype=np.bool_)
    new[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    return keys[starts], np.add.reduceat(counts, starts, axis=0) if len(starts) else counts


def _covariance(counts: Ints, first: _Placed, second: _Placed) -> float | None:
    covariance = 0.0
    for cls, a, b in ((1, first.of_positive, second.of_positive), (0, first.of_negative, second.of_negative)):
        weights = counts[:, cls]
        n = int(weights.sum())
        if n < 2:
            return None
        a_mean, b_mean = (math.fsum(weights * c) / n for c in (a, b))
        covariance += math.fsum(weights * (a - a_mean) * (b - b_mean)) / (n - 1) / n
    return covariance
