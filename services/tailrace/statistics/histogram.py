"""A small picture of a distribution beside that of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from tailrace.statistics.result import Floats, Ints

BINS = 10
"""Of numbers; of categories there are at most twice as many, the rest in one."""
OTHERS = "(others)"


class Bin(TypedDict):
    """``label`` is the upper bound (part of the bin) or the category, ``reference`` a share."""

    label: str
    count: int
    reference: float


def number_histogram(counts: Ints, points: Floats, reference: Ints) -> list[Bin]:
    """Between the deciles of the reference; what lies beyond its last point is in a bin of its own, ``inf``.

    ``counts`` are those of `ks.ks_test`.
    """
    if not len(points):
        return []
    below = reference.cumsum()
    ranks = np.arange(1, BINS + 1) * below[-1] / BINS
    bounds = np.unique(np.minimum(np.searchsorted(below, ranks), len(points) - 1))
    window = np.diff(counts.cumsum()[2 * bounds + 1], prepend=0)
    shares = np.diff(below[bounds], prepend=0) / below[-1]
    bins = [
        Bin(label=repr(float(points[bound])), count=int(count), reference=float(share))
        for bound, count, share in zip(bounds, window, shares, strict=True)
    ]
    return [*bins, Bin(label="inf", count=int(counts[-1]), reference=0.0)]


def category_histogram(counts: Ints, categories: Sequence[str], reference: Ints) -> list[Bin]:
    """The most frequent categories of the reference, in their own order."""
    total = int(reference.sum())
    shown = set(np.argsort(-reference, kind="stable")[: 2 * BINS].tolist())
    bins = [
        Bin(label=category, count=int(counts[at]), reference=int(reference[at]) / total)
        for at, category in enumerate(categories)
        if at in shown
    ]
    if rest := [at for at in range(len(categories)) if at not in shown]:
        share = int(reference[rest].sum()) / total
        bins.append(Bin(label=OTHERS, count=int(counts[rest].sum()), reference=share))
    return bins
