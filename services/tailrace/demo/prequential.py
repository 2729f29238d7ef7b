"""How right the answers were as they were given, with the loop and without it, on the same requests. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Comparison(NamedTuple):
    """Accuracy with and without the loop, and the gain with its 95 % interval."""

    n: int
    with_loop: float
    without_loop: float
    gain: float
    low: float
    high: float


def first_version_answers(
    predictions: Sequence[Mapping[str, Any]], shadow: Sequence[Mapping[str, Any]], version: int
) -> dict[str, str]:
    """By request id, what a version said: as the champion while it was, in shadow afterwards."""
    rows = (row for row in (*shadow, *predictions) if row["version"] == version)
    return {row["request_id"]: row["predicted_class"] for row in rows}


def compare(
    times: Sequence[int], with_loop: Sequence[bool], without_loop: Sequence[bool], block_ms: int
) -> Comparison | None:
    """Compares whether each of the same requests was answered rightly; None where there are too few.

    Neighbours in time resemble each other, so the interval of the gain rests on blocks of time rather than rows: it
    is the t-interval of a ratio estimate over blocks (Cochran, "Sampling Techniques", 1977, ch. 6).
    """
    block = np.asarray(times, dtype=np.int64) // block_ms
    ours, theirs = np.asarray(with_loop, dtype=np.float64), np.asarray(without_loop, dtype=np.float64)
    blocks, index = np.unique(block, return_inverse=True)
    if len(blocks) < 2:
        return None
    size = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=ours - theirs)
    gain = float(sums.sum() / size.sum())
    residual = sums - gain * size
    error = math.sqrt(len(blocks) / (len(blocks) - 1) * float(residual @ residual)) / float(size.sum())
    reach = float(stats.t.ppf(0.975, len(blocks) - 1)) * error
    return Comparison(
        len(ours), float(ours.mean()), float(theirs.mean()), gain, low=gain - reach, high=gain + reach
    )
