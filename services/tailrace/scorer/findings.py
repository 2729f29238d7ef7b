"""What is noted about rows on their way: what guards find, and the flags that the policy reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Ints, Mask
from tailrace.avro.columns.numbering import distinct_numbers
from tailrace.models.guards.prediction_sets import Uncertainty

Flag = Literal["uncertain", "guarded"]


class Finding(NamedTuple):
    """What a guard found, about which field, for people."""

    guard: str
    field: str | None
    detail: str


class Contribution(NamedTuple):
    feature: str
    contribution: float


class Findings:
    """What is noted about some rows. Many rows have the same, so that it is kept once.

    Attributes:
        kinds: what there is to be said of a row, the findings in the order of the steps; the first of them is nothing.
        which: by row, which of them it is.
        flags: by name, absent where no row has it.
        uncertainty: sets or intervals, where they are known.
    """

    def __init__(self, rows: int) -> None:
        self.kinds: list[tuple[Finding, ...]] = [()]
        self.which: Ints = np.zeros(rows, dtype=np.int64)
        self.flags: dict[str, Mask] = {}
        self.uncertainty: Uncertainty | None = None

    def add(self, found: Mapping[int, Finding], flag: Flag | None = None) -> None:
        """Notes a finding about each of these rows, and raises a flag for them."""
        numbers = {finding: number for number, finding in enumerate(dict.fromkeys(found.values()))}
        which = [numbers[finding] for finding in found.values()]
        self.add_some(np.array(list(found), dtype=np.int64), list(numbers), np.array(which), flag)

    def add_some(
        self, rows: Ints, findings: Sequence[Finding], which: Ints, flag: Flag | None = None
    ) -> None:
        """Notes about each of these rows the finding of its number in ``which``, and raises a flag for them."""
        if not len(rows):
            return
        pairs, kind = distinct_numbers(self.which[rows] * len(findings) + which)
        self.which[rows] = len(self.kinds) + kind
        for pair in pairs.tolist():
            before, finding = divmod(pair, len(findings))
            self.kinds.append((*self.kinds[before], findings[finding]))
        if flag is not None:
            self.flags.setdefault(flag, np.zeros(len(self.which), dtype=np.bool_))[rows] = True

    def take(self, some: Ints) -> Findings:
        """A copy for some of the rows, in their order."""
        taken = Findings(len(some))
        taken.kinds, taken.which = list(self.kinds), self.which[some]
        taken.flags = {name: raised[some] for name, raised in self.flags.items()}
        taken.uncertainty = None if self.uncertainty is None else self.uncertainty.take(some)
        return taken
