"""Distances from the training rows, against the same in numpy; and what a domain must be to be one."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tailrace.avro.columns import bytes_column as spans
from tailrace.avro.columns import categorical_column as texts
from tailrace.models.columns import Array, Coded, Columns, column_of, taken
from tailrace.models.guards import domain_layout
from tailrace.models.guards.conformal import conformal_quantiles
from tailrace.models.guards.domain import MOST_DEVIATIONS, TrainingDomain, fit_domain
from tailrace.models.inputs import Input

NOTHING = conformal_quantiles(np.empty(0))


class Case(NamedTuple):
    inputs: tuple[Input, ...]
    columns: Columns
    rows: int
    domain: TrainingDomain


def encoded(columns: Columns, i: Input, marked: tuple[str, ...]) -> list[list[float]]:
    """The encoded columns of an input, NaN where a number is missing."""
    values = columns[i.name].tolist()
    if i.type == "category":
        return [[float(v == known) for v in values] for known in (*i.categories, None)]
    marks = [[float(math.isnan(v)) for v in values]] if i.name in marked else []
    return [values, *marks]


def expected(case: Case) -> tuple[Array, Array]:
    """How far each row is off by encoded column, and in each input at most: [rows, columns] and [rows, inputs]."""
    by_input = [encoded(case.columns, i, case.domain.marked) for i in case.inputs]
    every = np.array([column for columns in by_input for column in columns]).T
    with np.errstate(over="ignore"):
        off = (every - np.array(case.domain.centre)) / np.array(case.domain.scale)
    away = np.nan_to_num(np.clip(off, -MOST_DEVIATIONS, MOST_DEVIATIONS), nan=0.0)
    edges = np.cumsum([len(columns) for columns in by_input])[:-1]
    return away, np.array([part.max(axis=1) for part in np.split(np.abs(away), edges, axis=1)]).T


def assert_as_expected(case: Case) -> None:
    away, by_input = expected(case)
    whiten = np.eye(away.shape[1]) if case.domain.whiten is None else np.array(case.domain.whiten)
    distances, furthest = case.domain.measure(case.columns, case.rows, case.inputs)
    # What cancels out leaves its rounding.
    rounding = 1e-12 * np.linalg.norm(np.abs(away) @ np.abs(whiten), axis=1)
    assert (np.abs(distances - np.linalg.norm(away @ whiten, axis=1)) <= rounding).all()
    assert (by_input[np.arange(case.rows), furthest] >= by_input.max(axis=1) * (1 - 1e-12)).all()


TEXTS = ["a", "b", "c", "d", None]
FIELDS = st.lists(st.sampled_from(["number", "marked", *range(5)]), min_size=1, max_size=6)


def columns_for(fields: list[Any], numbers: Any, texts: Any) -> tuple[tuple[Input, ...], Columns]:
    """A number, one that may be missing, or a category of so many values, by field."""
    inputs: list[Input] = []
    columns: dict[str, Array] = {}
    for at, kind in enumerate(fields):
        name = f"{kind}_{at}"
        if isinstance(kind, int):
            inputs.append(Input(name=name, type="category", categories=tuple(TEXTS[:kind])))
            columns[name] = column_of(texts(), "category")
        else:
            inputs.append(Input(name=name, type="number"))
            columns[name] = np.array(numbers(), dtype=np.float64)
    return tuple(inputs), columns


def domain_for(inputs: tuple[Input, ...], whitened: bool, seed: int) -> TrainingDomain:
    draw = np.random.default_rng(seed)
    marked = tuple(i.name for i in inputs if i.name.startswith("marked"))
    width = sum(len(i.categories) + 1 if i.type == "category" else 1 + (i.name in marked) for i in inputs)
    whiten = np.tril(draw.normal(size=(width, width))).tolist() if whitened else None
    return TrainingDomain(
        marked=marked,
        centre=tuple(draw.normal(size=width).tolist()),
        scale=tuple((10.0 ** draw.uniform(-6, 6, width)).tolist()),
        whiten=None if whiten is None else tuple(map(tuple, whiten)),
        distances=NOTHING,
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = draw(st.integers(1, 5))
    number = st.floats(allow_infinity=False) | st.floats(-10, 10)
    inputs, columns = columns_for(
        draw(FIELDS),
        lambda: draw(st.lists(number, min_size=rows, max_size=rows)),
        lambda: draw(st.lists(st.sampled_from([*TEXTS, "unheard of"]), min_size=rows, max_size=rows)),
    )
    return Case(inputs, columns, rows, domain_for(inputs, draw(st.booleans()), draw(st.integers(0, 99))))


def drawn(fields: list[Any], rows: int, whitened: bool = True, seed: int = 0) -> Case:
    """Rows of ordinary numbers, of which some are missing."""
    draw = np.random.default_rng(seed)
    named = np.array([*TEXTS, "unheard of"], dtype=np.object_)
    inputs, columns = columns_for(
        fields,
        lambda: np.where(draw.random(rows) < 0.1, np.nan, draw.normal(size=rows)),
        lambda: named[draw.integers(0, len(named), rows)].tolist(),
    )
    return Case(inputs, columns, rows, domain_for(inputs, whitened, seed))


@given(cases())
def test_distances_are_those_of_numpy(case: Case) -> None:
    assert_as_expected(case)


@pytest.mark.parametrize("whitened", [True, False])
@pytest.mark.parametrize("fields", [["number"], ["marked"] * 20 + [4] * 10, ["number"] * 80])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
def test_distances_of_many_rows_and_columns_are_those_of_numpy(
    fields: list[Any], rows: int, whitened: bool
) -> None:
    assert_as_expected(drawn(fields, rows, whitened))


@given(st.lists(st.integers(0, 149), min_size=1, max_size=200), st.booleans())
def test_a_distance_has_the_same_bits_wherever_its_row_stands(places: list[int], whitened: bool) -> None:
    case = drawn(["number", "marked", 3, "marked", 4], 150, whitened)
    every, _ = case.domain.measure(case.columns, case.rows, case.inputs)
    rows = np.array(places)
    distances, _ = case.domain.measure(taken(case.columns, rows), len(rows), case.inputs)
    assert distances.tobytes() == every[rows].tobytes()


def test_of_inputs_equally_far_off_the_first_is_named() -> None:
    case = drawn(["number"] * 3, 1)
    columns = {i.name: np.array([value]) for i, value in zip(case.inputs, (0.0, -1e300, 1e300), strict=True)}
    assert case.domain.measure(columns, 1, case.inputs)[1].tolist() == [1]


def test_a_fitted_domain_lies_where_the_training_rows_do() -> None:
    case = drawn(["number", "marked", 3, 0], 3000)
    domain = fit_domain(case.columns, case.columns, case.inputs, case.domain.marked, 0.77)
    every = np.array([c for i in case.inputs for c in encoded(case.columns, i, domain.marked)])
    np.testing.assert_allclose(domain.centre, np.nanmean(every, axis=1), rtol=1e-12)
    np.testing.assert_allclose(domain.scale, np.nanstd(every, axis=1), rtol=1e-12)
    assert_as_expected(case._replace(domain=domain))
    distances, _ = domain.measure(case.columns, case.rows, case.inputs)
    assert domain.distances == conformal_quantiles(distances, 0.77)  # bit for bit


def test_domains_are_compared_by_what_they_say_also_once_they_have_measured() -> None:
    case = drawn(["number", 2], 3)
    again = TrainingDomain.model_validate_json(case.domain.model_dump_json())
    for domain in (case.domain, again):
        domain.measure(case.columns, case.rows, case.inputs)
    assert again == case.domain
    assert again.model_dump_json() == case.domain.model_dump_json()


@pytest.mark.parametrize(
    "broken",
    [
        {"scale": (1.0,)},
        {"centre": (1.0, 1.0, 1.0)},
        {"whiten": ((1.0, 0.0),)},
        {"whiten": ((1.0,), (1.0, 1.0))},
        {"whiten": ((1.0, 0.5), (0.0, 1.0))},
    ],
)
def test_a_domain_whose_columns_do_not_fit_each_other_is_refused(broken: dict[str, Any]) -> None:
    fine = {"marked": (), "centre": (0.0, 0.0), "scale": (1.0, 1.0), "whiten": ((1.0, 0.0), (0.5, 1.0))}
    assert TrainingDomain(**fine, distances=NOTHING).whiten is not None
    with pytest.raises(ValidationError):
        TrainingDomain(**{**fine, **broken}, distances=NOTHING)


@pytest.mark.parametrize("fields", [["number"], ["number", "number", 1]])
def test_rows_of_other_inputs_are_not_measured(fields: list[Any]) -> None:
    other = drawn(fields, 2)
    with pytest.raises(ValueError, match="columns"):
        drawn(["number", "number"], 2).domain.measure(other.columns, 2, other.inputs)


def test_codes_are_those_that_texts_have_elsewhere() -> None:
    assert domain_layout.NULL == texts.UNKNOWN == spans.NULL


def test_categories_are_measured_by_their_codes_as_by_their_names() -> None:
    case = drawn(["number", 3, 4], 40)
    every, furthest = case.domain.measure(case.columns, case.rows, case.inputs)
    coded: dict[str, Coded] = {
        i.name: texts.CategoricalColumn.of(case.columns[i.name].tolist())
        if i.type == "category"
        else case.columns[i.name]
        for i in case.inputs
    }
    again, same = case.domain.measure(coded, case.rows, case.inputs)
    assert again.tobytes() == every.tobytes()
    assert same.tolist() == furthest.tolist()
