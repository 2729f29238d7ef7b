"""A guard: one entry of GUARDS (guards.py), which contracts, the scorer and documents read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Outputs(Protocol):
    """What a model says, by row: see models/predictions.py."""

    @property
    def probabilities(self) -> Any: ...

    @property
    def score(self) -> Any: ...

    @property
    def value(self) -> Any: ...


class GuardedRows(Protocol):
    """Rows of one model at a version, as a guard sees them.

    Attributes:
        columns: features and context by name, as the model takes them.
        outputs: what the version says, before calibration; nothing while the rows are looked at.
    """

    @property
    def columns(self) -> Mapping[str, Any]: ...

    @property
    def outputs(self) -> Outputs: ...

    def distances(self, level: float) -> Distances | None:
        """None where the package is of before it could know."""
        ...


def finds_nothing(setting: Any, rows: GuardedRows) -> Mapping[int, Finding]:
    return {}


def _no_problems(setting: Any) -> Iterator[tuple[str, str]]:
    yield from ()


@dataclass(frozen=True)
class Guard:
    """A guard.

    Attributes:
        name: that of its field in ``guardrails``, and of its findings.
        section: the type of that field; None where there is nothing to set, and the guard always looks.
        looks_at: ``rows`` that it finds something in are flagged; ``outputs`` are answered by the fallback, where the
            contract has one; ``certainty`` is data of the event.
        doc: a sentence for documents and editors.
        look: what it finds, by row.
        problems: what is wrong with a setting, and what to do.
    """

    name: str
    section: Any
    looks_at: Literal["rows", "outputs", "certainty"]
    doc: str
    look: Callable[[Any, GuardedRows], Mapping[int, Finding]] = finds_nothing
    problems: Callable[[Any], Iterator[tuple[str, str]]] = _no_problems
