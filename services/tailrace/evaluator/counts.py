"""What is counted of one version in one window: numbers that add up, in any order, and can be taken away again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tailrace.errors import BadRecord
from tailrace.statistics.exact_sum import Sum
from tailrace.statistics.metric_counts import MetricCounts
from tailrace.statistics.result import Ints
from tailrace.statistics.score_counts import ScoreCounts

_KINDS = ("<i1", "<i2", "<i4", "<i8")
_MOST_ZEROS = 1 << 13


@dataclass(frozen=True, kw_only=True)
class PerformanceCounts(MetricCounts):
    """Additive counts. Adding is commutative and associative to the last bit.

    Attributes:
        tallies: whole numbers by name (see count.py).
    """

    tallies: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: PerformanceCounts) -> PerformanceCounts:
        tallies, table, sums = Counter(self.tallies), Counter(self.table), dict(self.sums)
        tallies.update(other.tallies)
        table.update(other.table)
        for name, total in other.sums.items():
            sums[name] = sums[name].plus(total) if name in sums else total
        if self.scores is None or other.scores is None:
            scores = self.scores or other.scores
        else:
            scores = self.scores + other.scores
        return PerformanceCounts(tallies=tallies, table=table, sums=sums, scores=scores)

    def to_bytes(self) -> bytes:
        """A line of JSON, then the scores' keys as little-endian 64-bit integers and their counts as the least that
        holds them all.
        """
        head: dict[str, object] = {
            "tallies": {name: n for name, n in sorted(self.tallies.items()) if n},
            "table": [[*cell, n] for cell, n in sorted(self.table.items()) if n],
            "sums": {
                name: [total.n, *_short(total.total), *_short(total.squares), total.beyond]
                for name, total in sorted(self.sums.items())
                if any(total)
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
                tallies=Counter(head["tallies"]),
                table=Counter({tuple(cell): n for *cell, n in head["table"]}),
                sums={
                    name: Sum(n, total << _shift(up), squares << _shift(more), beyond)
                    for name, (n, total, up, squares, more, beyond) in head["sums"].items()
                },
                scores=scores,
            )
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise BadRecord("corrupt", f"counts that cannot be read: {error!r}", "cells.counts") from error


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
