"""What is counted of one version in one window: numbers that add up, in any order, and can be taken away again."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tailrace.errors import BadRecord
from tailrace.evaluator.arrays import Ints
from tailrace.evaluator.score_counts import ScoreCounts
from tailrace.statistics.exact_sum import SCALE, nearest

_EXPONENT = SCALE.bit_length() - 1
_KINDS = ("<i1", "<i2", "<i4", "<i8")
_MOST_ZEROS = 1 << 13


class Sum(NamedTuple):
    """How many values, their exact sum and that of their squares, in units of 1 / SCALE; and how many of the values
    have squares ``beyond`` all floats, which are in neither sum.
    """

    n: int = 0
    total: int = 0
    squares: int = 0
    beyond: int = 0

    def plus(self, other: Sum) -> Sum:
        return Sum(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def value(self) -> float | None:
        """The sum, rounded once; None where something is beyond all floats."""
        total = nearest(self.total)
        return None if self.beyond or not math.isfinite(total) else total

    @property
    def total_squares(self) -> float | None:
        """The sum of the squares, rounded once; None where something is beyond all floats."""
        return self._replace(total=self.squares).value

    @property
    def mean(self) -> float | None:
        """Rounded once; None without values, or where something is beyond all floats."""
        return nearest(self.total, self.n) if self.n > 0 and not self.beyond else None

    @property
    def variance(self) -> float | None:
        """Sample variance (n - 1 below the line); None with fewer than two values."""
        if self.n < 2 or self.beyond:
            return None
        above = self.n * self.squares * SCALE - self.total * self.total
        found = max(nearest(above, SCALE * self.n * (self.n - 1)), 0.0)
        return found if math.isfinite(found) else None


@dataclass(frozen=True)
class PerformanceCounts:
    """Additive counts. Adding is commutative and associative to the last bit.

    Attributes:
        tallies: whole numbers by name (see count.py).
        table: rows by (class, predicted class), or by (class, predicted by one, predicted by the other).
        sums: sums over rows by name.
        scores: rows by score and class; None where there are none.
    """

    tallies: Counter[str] = field(default_factory=Counter)
    table: Counter[tuple[int, ...]] = field(default_factory=Counter)
    sums: dict[str, Sum] = field(default_factory=dict)
    scores: ScoreCounts | None = None

    def __add__(self, other: PerformanceCounts) -> PerformanceCounts:
        tallies, table, sums = Counter(self.tallies), Counter(self.table), dict(self.sums)
        tallies.update(other.tallies)
        table.update(other.table)
        for name, found in other.sums.items():
            sums[name] = sums[name].plus(found) if name in sums else found
        if self.scores is None or other.scores is None:
            scores = self.scores or other.scores
        else:
            scores = self.scores + other.scores
        return PerformanceCounts(tallies, table, sums, scores)

    def to_bytes(self) -> bytes:
        """A line of JSON, then the scores' keys as little-endian 64-bit integers and their counts as the least that
        holds them all.
        """
        head: dict[str, object] = {
            "tallies": {name: n for name, n in sorted(self.tallies.items()) if n},
            "table": [[*cell, n] for cell, n in sorted(self.table.items()) if n],
            "sums": {
                name: [found.n, *_short(found.total), *_short(found.squares), found.beyond]
                for name, found in sorted(self.sums.items())
                if any(found)
            },
        }
        body = b""
        if self.scores is not None:
            kind = _least_type(self.scores.counts)
            head["scores"] = [self.scores.shift, *self.scores.keys.shape, kind]
            body = self.scores.keys.astype("<i8").tobytes() + self.scores.counts.astype(kind).tobytes()
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> PerformanceCounts:
        """Raises `BadRecord` where `to_bytes` writes no such bytes."""
        try:
            return cls._from_bytes(data)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise BadRecord("corrupt", f"counts that cannot be read: {error!r}", "cells.counts") from error

    @classmethod
    def _from_bytes(cls, data: bytes) -> PerformanceCounts:
        line, _, body = data.partition(b"\n")
        head = json.loads(line)
        scores = None
        if "scores" in head:
            shift, rows, width, kind = head["scores"]
            if kind not in _KINDS or not (0 <= shift < 64 and 0 <= rows <= len(body) and 1 <= width <= 2):
                raise ValueError("no such scores")
            keys = np.frombuffer(body, dtype="<i8", count=rows * width).astype(np.int64)
            counts = np.frombuffer(body, dtype=kind, offset=8 * rows * width).astype(np.int64)
            scores = ScoreCounts(keys.reshape(rows, width), counts.reshape(rows, 2), shift)
        return cls(
            Counter(head["tallies"]),
            Counter({tuple(cell): n for *cell, n in head["table"]}),
            {
                name: Sum(n, total << _shift(up), squares << _shift(more), beyond)
                for name, (n, total, up, squares, more, beyond) in head["sums"].items()
            },
            scores,
        )


def _short(units: int) -> tuple[int, int]:
    """The integer without its trailing zero bits, and how many there were."""
    zeros = (units & -units).bit_length() - 1 if units else 0
    return units >> zeros, zeros


def _shift(bits: int) -> int:
    """So many zero bits as a sum of floats may end in."""
    if not 0 <= bits <= _MOST_ZEROS:
        raise ValueError("no sum ends in so many zeros")
    return bits


def _least_type(numbers: Ints) -> str:
    least, most = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    return next(kind for kind in _KINDS if np.iinfo(kind).min <= least <= most <= np.iinfo(kind).max)
