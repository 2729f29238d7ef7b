"""How people spell the classes of a target, and how its contract does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from tailrace.contracts.expressions.compiler import (
    ExpressionError,
    column_names,
    compile_expression,
    frame_columns,
)
from tailrace.contracts.language.model_contract import ModelContract

_BOOLEANS = dict.fromkeys(("1", "1.0", "true"), "true") | dict.fromkeys(("0", "0.0", "false"), "false")


class ClassNames:
    """What classes are called where rows and models come from, and what the contract calls them.

    Args:
        target: the truth as an expression over the columns of a data file, as contracts/data has it.
        values: all values of the target. The expression counts where it tells of each of them which class it is, and of
            all of them that they are every class; else they are read as `class_text` does.
    """

    def __init__(
        self, contract: ModelContract, target: str | None = None, values: Iterable[Any] = ()
    ) -> None:
        self._contract = contract
        distinct = list({str(plain): plain for v in values if (plain := _plain(v)) is not None}.values())
        self._by_text = {} if target is None else _by_expression(contract, target, distinct)

    def of(self, value: Any) -> str:
        """The class as the contract spells it; its text where it is none of the contract's."""
        return self._by_text.get(str(_plain(value))) or class_text(value, self._contract)


def class_text(value: Any, contract: ModelContract) -> str:
    """A class as the contract spells it: 1, 1.0, True and "1" are ``true`` where the target is boolean, and where its
    classes are texts in the order of the alphabet their numbers stand for them.
    """
    text = str(_plain(value))
    if contract.target.type == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    if text in contract.classes:
        return text
    text = text.removesuffix(".0")
    return contract.classes[int(text)] if text.isdecimal() and int(text) < _codes(contract) else text


def _codes(contract: ModelContract) -> int:
    """How many numbers stand for classes: as many as there are where they are in the order of the alphabet, in which
    scikit-learn's LabelEncoder numbers them, and none is called a number itself.
    """
    classes = contract.classes
    named = classes == sorted(classes) and not any(name.isdecimal() for name in classes)
    return len(classes) if named else 0


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _by_expression(contract: ModelContract, target: str, values: list[Any]) -> dict[str, str]:
    """The contract's class by the text of each value; empty where the expression does not tell."""
    try:
        columns = column_names(target)
        if len(columns) != 1:
            return {}
        frame = pl.DataFrame({next(iter(columns)): pl.Series(values)})
        evaluated = compile_expression(target, frame_columns(frame)).evaluate(frame).to_list()
    except (ExpressionError, pl.exceptions.PolarsError, TypeError):
        return {}  # the values are not those of the file: a booster's numbers, or booleans already
    classes = [class_text(each, contract) for each in evaluated]
    return dict(zip(map(str, values), classes, strict=True)) if {*classes} == {*contract.classes} else {}
