"""The reference profile: what the training data looked like, in the form that drift tests count against.

A number is kept as a sorted sample of at most 1,000 points with their multiplicities, so that integer counts
of later values at and between the points give the exact two-sample Kolmogorov-Smirnov statistic against that
sample (2m + 1 slots, ties included). The sample is the order statistics at evenly spaced ranks of all
training rows: it is the same for the same data, and closer to their distribution than a random sample of the same size.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tailrace.models.columns import Array, Columns, column_of
from tailrace.models.errors import PackageRefused
from tailrace.models.frozen import Finite
from tailrace.models.guards.domain import TrainingDomain
from tailrace.models.inputs import Input
from tailrace.signing.canonical import canonical_json

POINTS = 1000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class NumberProfile(_Frozen):
    """Distinct points in ascending order, how often each is in the sample, rows with and without a value."""

    kind: Literal["number"] = "number"
    points: tuple[Finite, ...]
    counts: tuple[Annotated[int, Field(ge=1)], ...]
    present: int
    missing: int

    @model_validator(mode="after")
    def _ascending(self) -> NumberProfile:
        if len(self.points) != len(self.counts) or any(a >= b for a, b in itertools.pairwise(self.points)):
            raise ValueError("points must ascend, each with a count")
        return self

    @property
    def sample(self) -> Array:
        """The sorted sample of m points, with repetitions."""
        return np.repeat(np.array(self.points, dtype=np.float64), self.counts)


class CategoryProfile(_Frozen):
    """Exact number of training rows by category, and of rows without one."""

    kind: Literal["category"] = "category"
    counts: dict[str, int]
    present: int
    missing: int


class Reference(_Frozen):
    """Profiles by feature (of the training rows) and of the model's own outputs (on the holdout, because a
    model's scores on the rows that it was fitted on are not those that it gives to others).

    ``domain`` says where the training rows lie; None in a package of before that was known. ``background`` holds a few
    of the training rows by input, against which answers are explained. ``score`` is the profile of the positive class's
    probability or of the value; ``predicted_class`` counts classes.
    """

    rows: int
    features: dict[str, NumberProfile | CategoryProfile]
    output_rows: int
    score: NumberProfile | None
    predicted_class: CategoryProfile | None
    domain: TrainingDomain | None = None
    background: dict[str, tuple[Finite | str | None, ...]] | None = None

    def background_columns(self, inputs: tuple[Input, ...]) -> Columns:
        """The background in the form in which models take rows."""
        assert self.background is not None
        return {i.name: column_of(list(self.background[i.name]), i.type) for i in inputs}

    def to_bytes(self) -> bytes:
        absent = {name for name in ("domain", "background") if getattr(self, name) is None}
        return canonical_json(self.model_dump(mode="json", exclude=absent))

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            what = f"the reference profile cannot be read: {error}"
            raise PackageRefused("reference", what[:300]) from None


def number_profile(values: Array, limit: int = POINTS) -> NumberProfile:
    """Profile of float64 values, NaN where missing."""
    present = np.sort(values[~np.isnan(values)])
    n = len(present)
    sample = present if n <= limit else present[((2 * np.arange(limit) + 1) * n) // (2 * limit)]
    points, counts = np.unique(sample, return_counts=True)
    return NumberProfile(
        points=tuple(float(p) for p in points),
        counts=tuple(int(c) for c in counts),
        present=n,
        missing=len(values) - n,
    )


def category_profile(values: Array, categories: tuple[str, ...]) -> CategoryProfile:
    """Profile of objects, None where missing; every category of the contract is counted, unseen ones as 0."""
    seen = Counter(v for v in values if v is not None)
    present = sum(seen.values())
    counts = {c: seen.pop(c, 0) for c in categories} | dict(sorted(seen.items()))
    return CategoryProfile(counts=counts, present=present, missing=len(values) - present)


def feature_profiles(
    columns: Columns, inputs: tuple[Input, ...]
) -> dict[str, NumberProfile | CategoryProfile]:
    """The profile of each input; booleans are the categories ``false`` and ``true``."""
    return {i.name: _profile(columns[i.name], i) for i in inputs}


def _profile(column: Array, wanted: Input) -> NumberProfile | CategoryProfile:
    if wanted.type == "category":
        return category_profile(column, wanted.categories)
    if wanted.type == "boolean":
        texts = np.array([None if np.isnan(v) else "true" if v else "false" for v in column], dtype=object)
        return category_profile(texts, ("false", "true"))
    return number_profile(column)
