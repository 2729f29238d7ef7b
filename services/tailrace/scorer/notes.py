"""What is noted about rows on their way: what guards find, and the flags that the policy reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from tailrace.kit.avro_columns import Mask
from tailrace.models.columns import Array

Flag = Literal["uncertain", "guarded"]


class Finding(NamedTuple):
    """What a guard found, about which field, for people."""

    guard: str
    field: str | None
    detail: str


class Contribution(NamedTuple):
    feature: str
    contribution: float


@dataclass
class Notes:
    """``findings`` by row, in the order of the steps; ``flags`` by name, absent where none of the ``rows`` has it."""

    rows: int
    findings: dict[int, list[Finding]] = field(default_factory=dict)
    flags: dict[str, Mask] = field(default_factory=dict)

    def add(self, found: Mapping[int, Finding], flag: Flag | None = None) -> None:
        """Notes a finding about each of these rows, and raises a flag for them."""
        for row, finding in found.items():
            self.findings.setdefault(row, []).append(finding)
        if flag is not None and found:
            raised = self.flags.setdefault(flag, np.zeros(self.rows, dtype=np.bool_))
            raised[list(found)] = True

    def take(self, some: Array) -> Notes:
        """A copy for some of the rows, in their order."""
        wanted = some.tolist() if self.findings else ()
        findings = {at: list(self.findings[row]) for at, row in enumerate(wanted) if row in self.findings}
        return Notes(len(some), findings, {name: raised[some] for name, raised in self.flags.items()})
