"""A drift test: one entry of DRIFT_TESTS (drift_tests.py), which contracts, drift service and documents read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tailrace.statistics.histogram import Bin, category_histogram, number_histogram
from tailrace.statistics.result import Floats, Ints, TestResult

Kind = Literal["number", "category"]


@dataclass(frozen=True)
class FieldCounts:
    """How often each value of a field is in a window and in the reference.

    Attributes:
        kind: a boolean is a category.
        labels: of a number the points of the reference, distinct and ascending; of a category those that it has.
        values: of the window; by slot (ks.py) of a number, by category of a category that the reference has.
        reference: by point, or by category.
        rows: of the window, those in which the field is missing or was never seen among them.
        reference_present, reference_missing: rows of the training data with and without the field.
        may_miss: whether the field may be missing, by what is allowed or by the reference.
        may_be_unseen: whether it may have a category that the reference has not.
    """

    kind: Kind
    labels: Floats | tuple[str, ...]
    values: Ints
    reference: Ints
    rows: int
    missing: int
    unseen: int
    reference_present: int
    reference_missing: int
    may_miss: bool
    may_be_unseen: bool


class EffectSize(NamedTuple):
    """A size of change between 0 and 1, by the name that contracts set a floor for.

    ``floor`` is the default: smaller changes raise nothing.
    """

    name: str
    doc: str
    floor: float = 0.1


class TestedField(NamedTuple):
    """What a test says, None where it is not defined, of how many values, and a picture of them."""

    result: TestResult | None
    n: int
    reference_n: int
    histogram: list[Bin]


@dataclass(frozen=True)
class DriftTest:
    """Whether a field's values have changed, by counts.

    Attributes:
        name: as contracts and reports have it.
        kinds: of fields that it is for.
        effect: what its effect is.
        doc: what it is, in one line.
        compare: without a p-value in its result, the effect alone decides, and the budget of false alerts is not held.
        applies: whether it is made of a field, by what the field may be. Never by what a window holds: a test that is
            left out because nothing happened would make the rest too sure.
    """

    name: str
    kinds: tuple[Kind, ...]
    effect: EffectSize
    doc: str
    compare: Callable[[FieldCounts], TestedField]
    applies: Callable[[FieldCounts], bool] = lambda field: True


def of_values(test: Callable[[Ints, Ints], TestResult | None]) -> Callable[[FieldCounts], TestedField]:
    """Compares how the values are distributed, by a test of ``values`` and ``reference``."""

    def compare(field: FieldCounts) -> TestedField:
        values, reference = field.values, field.reference
        if isinstance(field.labels, tuple):
            histogram = category_histogram(values, field.labels, reference)
        else:
            histogram = number_histogram(values, field.labels, reference)
        return TestedField(test(values, reference), int(values.sum()), int(reference.sum()), histogram)

    return compare


def of_share(
    name: str,
    test: Callable[[int, int, int, int], TestResult | None],
    counts: Callable[[FieldCounts], tuple[int, int, int, int]],
) -> Callable[[FieldCounts], TestedField]:
    """Compares a share: so many of so many, and so many of so many in the reference."""

    def compare(field: FieldCounts) -> TestedField:
        count, n, reference_count, reference_n = counts(field)
        share = reference_count / reference_n if reference_n else 0.0
        histogram = [Bin(label=name, count=count, reference=share)]
        return TestedField(test(count, n, reference_count, reference_n), n, reference_n, histogram)

    return compare
