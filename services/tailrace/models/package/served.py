"""An estimator on X as it was given, beside X as requests will bring it.

A scorer hands numbers over as floats and categories as texts. An estimator that was fitted on whole numbers as
categories, or on another value for what is missing, takes those for something that it never saw, and answers without a
word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.columns import Array, Columns, taken
from tailrace.models.errors import first_line
from tailrace.models.formats.compare import compare
from tailrace.models.formats.original import Original
from tailrace.models.formats.skops.run import estimator_table
from tailrace.models.inputs import Input
from tailrace.models.package.rows import absent

_MOST_ROWS = 1000


def served_alike(
    original: Original, x: Any, columns: Columns, contract: ModelContract, most: float
) -> Original:
    """The estimator as it is served, with what stands for a missing category so that it answers rows alike.

    Rows in which the contract imputes or rejects are left out: there what is served is another thing on purpose.

    Args:
        x: the rows as given.
        columns: the same as requests bring them.
        most: largest difference of the answers, as a share of their spread.

    Raises:
        TailraceError: it answers rows as served in another way; names the column and what to do.
    """
    rows = _compared_rows(columns, original.inputs, contract)
    given = _rows_of(x, rows)
    if not len(rows) or (expected := _answers(original, given)) is None:
        return original  # nothing to compare with: it takes no rows as given
    served = taken(columns, rows)
    for each in (original, original.with_other_missing()):
        if _is_alike(_run(each, served, len(rows)), expected, original, most):
            return each
    raise TailraceError(_why(original, given, served, expected, most))


def _is_alike(answers: Array | None, expected: Array, original: Original, most: float) -> bool:
    return answers is not None and compare(answers, expected, original.task).of_spread <= most


def _run(original: Original, served: Columns, rows: int) -> Array | None:
    try:
        return original.run(served, rows)
    except Exception:  # whatever an estimator raises on what it was not fitted on
        return None


def _compared_rows(columns: Columns, inputs: tuple[Input, ...], contract: ModelContract) -> Array:
    keep = np.ones(len(next(iter(columns.values()))), dtype=bool)
    for i in inputs:
        if contract.features[i.name].missing != "pass":
            keep &= ~absent(columns[i.name], i)
    rows = np.flatnonzero(keep)
    if len(rows) <= _MOST_ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _MOST_ROWS).astype(np.int64)]


def _rows_of(x: Any, rows: Array) -> Any:
    if hasattr(x, "iloc"):
        return x.iloc[rows]
    return x[rows.tolist()] if hasattr(x, "columns") else np.asarray(x)[rows]


def _answers(original: Original, table: Any) -> Array | None:
    """The estimator's answers to a table, None where it raises."""
    try:
        answers = getattr(original.estimator, original.method)(table)
    except Exception:  # whatever it raises
        return None
    return np.asarray(answers, dtype=np.float64).reshape(len(table), -1)


def _why(original: Original, given: Any, served: Columns, expected: Array, most: float) -> str:
    """The sentence for the first column whose served values alone change the answers."""
    table = estimator_table(served, original.inputs, original.feed, original.missing_category)
    for at, i in enumerate(original.inputs):
        if not hasattr(given, "columns"):
            mixed = given.copy()
            mixed[:, at] = np.asarray(table)[:, at]
            was: list[Any] = given[:, at].tolist()
        else:
            mixed = _as_pandas(given)
            was = mixed[i.called].tolist()
            mixed[i.called] = np.asarray(table[i.called])
        answers = _answers(original, mixed)
        if not _is_alike(answers, expected, original, most):
            return _sentence(original.name, i, was, served[i.name], answers is None)
    error = _error_of(original, table)
    return (
        f"{original.name} answers other things to requests than to X, where requests bring numbers as floats and "
        f"categories as texts{error}: fit it on X with such columns"
    )


def _as_pandas(table: Any) -> Any:
    """A copy of a data frame, of pandas."""
    import pandas as pd

    if hasattr(table, "iloc"):
        return table.copy()
    return pd.DataFrame({name: table[name].to_list() for name in table.columns})


def _sentence(name: str, i: Input, was: list[Any], now: Array, raises: bool) -> str:
    pairs = list(zip(map(_plain, was), map(_plain, now), strict=True))
    differs = next((at for at, (a, b) in enumerate(pairs) if type(a) is not type(b) or a != b), 0)
    effect = "does not take that" if raises else "answers other things to that"
    column = f"X[{i.called!r}]"
    if i.type != "category":
        remedy = f"{column} = {column}.astype(float)"
    elif now[differs] is None:
        remedy = f"{column} = {column}.fillna(...) with a category of the contract"
    else:
        remedy = f"{column} = {column}.astype(str)"
    return (
        f"{i.called} is {pairs[differs][0]!r} in X where requests bring {pairs[differs][1]!r}, and {name} {effect}: "
        f"fit it on what requests bring, {remedy}"
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _error_of(original: Original, table: Any) -> str:
    try:
        getattr(original.estimator, original.method)(table)
    except Exception as error:
        return f" ({first_line(error)})"
    return ""
