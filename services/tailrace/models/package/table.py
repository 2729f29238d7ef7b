"""Reads what users have (a data frame, a matrix, records) as the contract's columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.files.data_mapping import DataMapping
from tailrace.models.class_names import ClassNames
from tailrace.models.columns import Array, Columns
from tailrace.models.inputs import Input

_NUMBERED = (
    " (numbers stand for them only where they are in the alphabet's order, as LabelEncoder numbers them)"
)

LARGEST = 1e100
"""The square of what is larger may be no number, and its spread none."""


def table_of(x: Any) -> Any:
    """X in a form of which rows can be taken: a sparse matrix as a dense one.

    Raises:
        TailraceError: it is neither a data frame nor a matrix.
    """
    if hasattr(x, "toarray"):
        return x.toarray()
    if hasattr(x, "collect") or isinstance(x, (dict, str)) or (not hasattr(x, "columns") and np.ndim(x) != 2):
        raise TailraceError(
            f"X is a {type(x).__name__}, no table: pass a data frame (of pandas, or collected of polars) whose columns "
            "are named after the features, or a matrix of rows and columns"
        )
    return x


def feature_names(table: Any, contract: ModelContract, mapping: DataMapping | None = None) -> list[str]:
    """The features that the table gives, in the order of its columns.

    Args:
        mapping: what a data file calls them.

    Raises:
        TailraceError: a column is not a feature of the contract, or is there twice; or a matrix has another width than
            the contract.
    """
    if not hasattr(table, "columns"):
        width = np.asarray(table).shape[1] if np.asarray(table).ndim == 2 else None
        names = list(contract.features)
        if width != len(names):
            raise TailraceError(
                f"X is a matrix of {width} columns, the contract has {len(names)} features "
                f"({', '.join(names)}): pass a data frame whose columns are named after the features"
            )
        return names
    feature_of = {} if mapping is None else {column: name for name, column in mapping.columns.items()}
    feature_of |= {name: name for name in contract.features}
    columns = list(table.columns)
    if foreign := [column for column in columns if column not in feature_of]:
        raise TailraceError(
            f"X has columns that are not features of {contract.model}: {', '.join(map(str, foreign))}; drop "
            "them, or add them to the contract and `tailrace apply` it"
        )
    names = [feature_of[column] for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TailraceError(f"X has {', '.join(twice)} more than once: drop all but one of these columns")
    return names


def inputs_of(names: Sequence[str], table: Any, contract: ModelContract) -> tuple[Input, ...]:
    """The features of these names, which are those of the table's columns in their order."""
    columns = list(table.columns) if hasattr(table, "columns") else names
    return tuple(
        Input(
            name=name,
            type=contract.features[name].type,
            categories=tuple(contract.features[name].categories or ()),
            levels=_levels(table, column),
            column=None if column == name else str(column),
        )
        for name, column in zip(names, columns, strict=True)
    )


def columns_of(table: Any, inputs: Sequence[Input]) -> dict[str, Array]:
    """The table as the columns that models are given.

    Raises:
        TailraceError: a value is not of its feature's type, is infinite, or is a category that the contract has not.
    """
    columns = {}
    for at, wanted in enumerate(inputs):
        values = _values(table, wanted, at)
        read = _categories if wanted.type == "category" else _floats
        columns[wanted.name] = read(values, wanted)
    return columns


def target_of(values: Any, contract: ModelContract, names: ClassNames | None = None) -> Array:
    """The truth by row: class texts as the contract spells them, or float64 of a regression.

    Args:
        names: what classes are called.

    Raises:
        TailraceError: a value is missing or not one of the contract's classes.
    """
    listed = values_of_target(values)
    target = contract.target.name
    if missing := sum(_absent(v) for v in listed):
        raise TailraceError(
            f"{target} is missing in {missing} rows: leave those rows out, they teach nothing"
        )
    if contract.task == "regression":
        try:
            numbers = np.array([float(v) for v in listed], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TailraceError(f"{target} is a number, and y holds something else: {error}") from None
        if infinite := int((~np.isfinite(numbers)).sum()):
            raise TailraceError(f"{target} is infinite in {infinite} rows: leave those rows out")
        return numbers
    named = names or ClassNames(contract)
    texts = [named.of(v) for v in listed]
    if unknown := sorted({t for t in texts if t not in contract.classes}):
        raise TailraceError(
            f"{target} is {', '.join(unknown[:5])} in some rows; the contract's classes are "
            f"{', '.join(contract.classes)}{_remedy(unknown)}"
        )
    return np.array(texts, dtype=np.object_)


def values_of_target(values: Any) -> list[Any]:
    """What users have as the truth, as a list."""
    listed: list[Any] = (
        values.to_list() if hasattr(values, "to_list") else np.asarray(values, dtype=object).ravel().tolist()
    )
    return listed


def _remedy(unknown: Sequence[str]) -> str:
    if all(text.isdecimal() for text in unknown):
        return _NUMBERED
    try:
        scores = [float(text) for text in unknown]
    except ValueError:
        return ""
    between = any(not score.is_integer() for score in scores)
    return ". Scores are no classes: compare them with a threshold" if between else ""


def data_digest(columns: Columns, truth: Array) -> str:
    """SHA-256 (hex) of the rows: names, bits of the numbers, texts, in order."""
    digest = hashlib.sha256()
    for name, column in [*columns.items(), ("", truth)]:
        digest.update(f"{name}\x00{len(column)}\x00".encode())
        if column.dtype == np.object_:
            digest.update("\x1f".join("\x00" if v is None else str(v) for v in column).encode())
        else:
            digest.update(np.where(np.isnan(column), np.nan, column).astype("<f8").tobytes())
    return digest.hexdigest()


def _values(table: Any, wanted: Input, at: int) -> list[Any]:
    if hasattr(table, "columns"):
        column = table[wanted.called if wanted.called in list(table.columns) else wanted.name]
        listed: list[Any] = column.to_list() if hasattr(column, "to_list") else list(column)
    else:
        listed = np.asarray(table)[:, at].tolist()
    return listed


def _floats(values: list[Any], wanted: Input) -> Array:
    try:
        column = np.array([np.nan if _absent(v) else float(v) for v in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        what = f"{wanted.name} is a {wanted.type}, and X holds something else"
        raise TailraceError(f"{what}: {error}") from None
    if np.isinf(column).any():
        raise TailraceError(f"{wanted.name} is infinite in {int(np.isinf(column).sum())} rows of X")
    if (beyond := int((np.abs(column) > LARGEST).sum())) > 0:
        largest = column[np.nanargmax(np.abs(column))]
        what = f"{wanted.name} is {largest:.4g}, beyond {LARGEST:.0e}, in {beyond} rows of X"
        raise TailraceError(f"{what}: leave them out, or give it a min and a max in the contract")
    return column


def _categories(values: list[Any], wanted: Input) -> Array:
    column = np.empty(len(values), dtype=np.object_)
    column[:] = [None if _absent(v) else str(v) for v in values]
    unknown = sorted({v for v in column if v is not None} - set(wanted.categories))
    if unknown:
        raise TailraceError(
            f"{wanted.name} has categories in X that the contract has not: {', '.join(unknown[:5])}; add "
            "them to the contract and `tailrace apply` it, or leave those rows out"
        )
    return column


def _absent(value: Any) -> bool:
    """None, NaN and pandas' NA are all 'missing'."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _levels(table: Any, name: str) -> tuple[str, ...] | None:
    dtype = table[name].dtype if hasattr(table, "columns") else None
    levels = getattr(dtype, "categories", None)
    return None if levels is None else tuple(str(level) for level in levels)
