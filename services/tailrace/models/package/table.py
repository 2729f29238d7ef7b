"""Reads what users have (a data frame, a matrix, records) as the contract's columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.class_names import class_text
from tailrace.models.columns import Array, Columns
from tailrace.models.inputs import Input

_NUMBERED = (
    " (numbers stand for them only where they are in the alphabet's order, as LabelEncoder numbers them)"
)


def feature_names(table: Any, contract: ModelContract) -> list[str]:
    """The columns that the table gives, in its order.

    Raises:
        TailraceError: a column is not a feature of the contract, or a matrix has another width than the contract.
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
    names = list(table.columns)
    if foreign := [name for name in names if name not in contract.features]:
        raise TailraceError(
            f"X has columns that are not features of {contract.model}: {', '.join(map(str, foreign))}; drop "
            "them, or add them to the contract and `tailrace apply` it"
        )
    return [str(n) for n in names]


def inputs_of(names: Sequence[str], table: Any, contract: ModelContract) -> tuple[Input, ...]:
    return tuple(
        Input(
            name=name,
            type=contract.features[name].type,
            categories=tuple(contract.features[name].categories or ()),
            levels=_levels(table, name),
        )
        for name in names
    )


def columns_of(table: Any, inputs: Sequence[Input]) -> dict[str, Array]:
    """The table as the columns that models are given.

    Raises:
        TailraceError: a value is not of its feature's type, is infinite, or is a category that the contract has not.
    """
    columns = {}
    for at, wanted in enumerate(inputs):
        values = _values(table, wanted.name, at)
        read = _categories if wanted.type == "category" else _floats
        columns[wanted.name] = read(values, wanted)
    return columns


def target_of(values: Any, contract: ModelContract) -> Array:
    """The truth by row: class texts as the contract spells them, or float64 of a regression.

    Raises:
        TailraceError: a value is missing or not one of the contract's classes.
    """
    listed = values.to_list() if hasattr(values, "to_list") else np.asarray(values).ravel().tolist()
    if contract.task == "regression":
        numbers = np.array([float(v) for v in listed], dtype=np.float64)
        if missing := int((~np.isfinite(numbers)).sum()):
            raise TailraceError(f"{contract.target.name} is missing or infinite in {missing} rows")
        return numbers
    texts = [class_text(v, contract) for v in listed]
    if unknown := sorted({t for t in texts if t not in contract.classes}):
        numbers_only = all(text.isdecimal() for text in unknown)
        raise TailraceError(
            f"{contract.target.name} is {', '.join(unknown[:5])} in some rows; the contract's classes are "
            f"{', '.join(contract.classes)}{_NUMBERED if numbers_only else ''}"
        )
    return np.array(texts, dtype=np.object_)


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


def _values(table: Any, name: str, at: int) -> list[Any]:
    if hasattr(table, "columns"):
        column = table[name]
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
