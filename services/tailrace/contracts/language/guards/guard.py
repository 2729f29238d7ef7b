"""A guard: one entry of GUARDS (guards.py), which contracts, the scorer and documents read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Finding(NamedTuple):
    """What a guard found, about which field, for people."""

    guard: str
    field: str | None
    detail: str


class Distances(NamedTuple):
    """How far rows are from those in training. ``furthest`` numbers the one of the ``inputs`` that is furthest off, and
    ``usual`` is the quantile that was asked for.
    """

    distances: Numbers
    furthest: NDArray[np.int64]
    inputs: Sequence[str]
    usual: float


class GuardedRows(Protocol):
    """Rows of one model at a version.

    Attributes:
        columns: features and context by name, as the model takes them.
        outputs: what the version says before calibration (`Predictions` of models/); nothing while rows are looked at.
    """

    @property
    def columns(self) -> Mapping[str, Any]: ...

    @property
    def outputs(self) -> Any: ...

    def distances(self, level: float) -> Distances | None:
        """None where the package is of before it could know."""
        ...


@dataclass(frozen=True)
class ModelGuard:
    """A guard.

    Attributes:
        name: that of its field in ``guardrails``, and of its findings.
        section: the type of that field; None where there is nothing to set, and the guard always looks.
        looks_at: ``rows`` in which it finds something are flagged; ``outputs`` are answered by the fallback, where the
            contract has one; ``certainty`` is data of the event.
        doc: a sentence for documents and editors.
        look: from the setting and rows to what it finds, by row.
    """

    name: str
    section: Any
    looks_at: Literal["rows", "outputs", "certainty"]
    doc: str
    look: Callable[[Any, GuardedRows], Mapping[int, Finding]] | None = None
