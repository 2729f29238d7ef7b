"""What is predicted: the target's name, its declaration, the expression for contracts/data; and the task, said."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import polars as pl

from tailrace.contracts.expressions.compiler import ExpressionError, compile_expression, frame_columns
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import UsageError
from tailrace.files.drafting.features import MOST_CATEGORIES
from tailrace.files.drafting.names import field_name, words
from tailrace.files.table import Table

MOST_CLASSES = 10
"""Whole numbers of at most so many kinds are classes."""
EARLIEST_SHARE = 0.2
"""What train takes without being told."""
Task = Literal["binary", "multiclass", "regression"]
Say = Callable[[str], None]


class DraftedTarget(NamedTuple):
    """A target.

    Attributes:
        name: of the field.
        kind: its declaration in the contract, without the name.
        expression: for contracts/data.
        used: columns that it uses up: they are no features.
    """

    name: str
    kind: dict[str, Any]
    expression: str
    used: frozenset[str]


def draft_target(
    table: Table, target: str, positive: str | None, task: Task | None, say: Say
) -> DraftedTarget:
    """What a column, or an expression over columns, asks for.

    Raises:
        UsageError: the file has no such column, the options contradict each other or the file.
    """
    if target not in table.frame.columns:
        return _expression(table, target, positive, task)
    column = table.truths()[target]
    if column.null_count() == len(column):
        raise UsageError(f"--target {target!r} has no values")
    if column.null_count():
        say(
            f"{column.null_count()} rows have no {target!r}: they are replayed without a label, and not trained on"
        )
    drafted = _column(table, column, positive, task, say)
    _say_rare(table, drafted, say)
    return drafted


def _expression(table: Table, target: str, positive: str | None, task: Task | None) -> DraftedTarget:
    if positive is not None:
        raise UsageError("--positive is for a target that is a column: say it in the expression instead")
    frame = table.truths()
    try:
        expression = compile_expression(target, frame_columns(frame))
    except ExpressionError as error:
        raise UsageError(f"--target {target!r} is neither a column nor an expression: {error}") from None
    tasks = {"boolean": "binary", "text": "multiclass", "number": "regression"}
    if task is not None and tasks[expression.kind] != task:
        raise UsageError(
            f"--target {target!r} makes a {tasks[expression.kind]} task, not {task}: write another expression"
        )
    if expression.kind == "text":
        kind: dict[str, Any] = {"categories": _categories(expression.evaluate(frame), target)}
    else:
        kind = {"type": expression.kind}
    return DraftedTarget(field_name(words(target)), kind, target, expression.names)


def _column(
    table: Table, column: pl.Series, positive: str | None, task: Task | None, say: Say
) -> DraftedTarget:
    target = column.name
    name, quoted, used = field_name(target), _identifier(target), frozenset([target])
    kinds = {_plain(value): value for value in sorted(column.drop_nulls().unique().to_list())}
    if positive is None and task in (None, "binary"):
        positive = _yes(column, kinds, task, say)
    if positive is not None:
        if task not in (None, "binary"):
            raise UsageError(f"--positive makes a binary task: leave it out, or --task {task}")
        if positive not in kinds:
            hint = did_you_mean(positive, list(kinds)[:20])
            raise UsageError(f"--positive {positive!r}: no row has it; {hint}")
        return DraftedTarget(name, {"type": "boolean"}, _is(quoted, positive, column.dtype), used)
    if column.dtype == pl.Boolean:
        return DraftedTarget(name, {"type": "boolean"}, quoted, used)
    if task == "binary":
        raise UsageError(
            f"--task binary: {target!r} has {len(kinds)} kinds of values: name one of them with --positive"
        )
    if column.dtype.is_numeric() and _is_regression(column, kinds, task, say):
        return DraftedTarget(name, {"type": "number"}, quoted, used)
    if task == "regression":
        raise UsageError(f"--task regression: {target!r} holds texts, such as {next(iter(kinds))!r}")
    texts = column if column.dtype == pl.String else column.cast(pl.String)
    return DraftedTarget(name, {"categories": _categories(texts, target)}, quoted, used)


def _is_regression(column: pl.Series, kinds: dict[str, Any], task: Task | None, say: Say) -> bool:
    """Whether numbers are values, or names of classes; which is said where nobody has told."""
    target, whole = column.name, all(float(value).is_integer() for value in kinds.values())
    if task is not None:
        if task == "multiclass" and not (whole and len(kinds) <= MOST_CATEGORIES):
            raise UsageError(
                f"--task multiclass: {target!r} has {len(kinds)} different numbers, where classes are at most "
                f"{MOST_CATEGORIES} whole ones"
            )
        return task == "regression"
    if whole and 2 <= len(kinds) <= MOST_CLASSES:
        say(
            f"{target!r} has {len(kinds)} whole numbers ({', '.join(kinds)}), which are taken for classes: the task is "
            "multiclass; `--task regression` predicts the number itself"
        )
        return False
    say(
        f"{target!r} has {len(kinds):,} different numbers: the task is a regression"
        + ("; `--task multiclass` takes them for classes" if whole and len(kinds) <= MOST_CATEGORIES else "")
    )
    return True


def _yes(column: pl.Series, kinds: dict[str, Any], task: Task | None, say: Say) -> str | None:
    """Of two values the one that says yes: its probability is what is predicted. None where neither does."""
    if len(kinds) != 2 or column.dtype == pl.Boolean:
        return None
    no, yes = kinds
    lowered = [no.lower(), yes.lower()]
    if lowered in (["no", "yes"], ["n", "y"]):
        say(f"{column.name!r} asks yes or no: what is predicted is the probability of {yes!r}")
        return yes
    if column.dtype.is_numeric():
        if not all(float(value).is_integer() for value in kinds.values()):
            return None
        if lowered == ["0", "1"]:
            say(
                f"{column.name!r} is 0 or 1: the task is binary, and what is predicted is the probability of 1"
            )
        else:
            say(
                f"{column.name!r} has two whole numbers, {no} and {yes}, which are taken for classes: what is "
                f"predicted is the probability of {yes} (`--positive {shlex.quote(no)}` asks for the other, "
                "`--task regression` for the number)"
            )
        return yes
    if task == "binary":
        say(
            f"what is predicted is the probability of {yes!r}; `--positive {shlex.quote(no)}` asks for the other"
        )
        return yes
    say(
        f"{column.name!r} has two values: `--positive {shlex.quote(yes)}` has the probability of that one predicted"
    )
    return None


def _say_rare(table: Table, drafted: DraftedTarget, say: Say) -> None:
    """Classes that the earliest rows are likely to lack, which training needs."""
    column = table.truths()[next(iter(drafted.used))]
    if drafted.kind.get("type") == "number":
        return
    counts = column.drop_nulls().value_counts()
    rare = counts.filter(pl.col("count") * EARLIEST_SHARE < 3)
    if rare.height and column.len() >= 100:
        shown = ", ".join(f"{_plain(value)} ({count})" for value, count in rare.sort("count").rows()[:5])
        say(
            f"few rows have {drafted.name!r} = {shown}: the earliest {EARLIEST_SHARE:.0%} that train takes may lack "
            "them; `tailrace train --until TIME` or `--where CONDITION` takes others"
        )


def _categories(texts: pl.Series, target: str) -> list[str]:
    values = sorted(texts.drop_nulls().unique().to_list())
    if not 2 <= len(values) <= MOST_CATEGORIES:
        raise UsageError(
            f"--target {target!r} has {len(values)} different values, where 2 to {MOST_CATEGORIES} are needed"
        )
    return values


def _is(column: str, value: str, kind: pl.DataType) -> str:
    if kind == pl.Boolean:
        return f"{column} = {value.upper()}"
    return f"{column} = {value}" if kind.is_numeric() else f"{column} = '" + value.replace("'", "''") + "'"


def _identifier(column: str) -> str:
    """As SQL names it."""
    return column if column.isidentifier() and column.isascii() else '"' + column.replace('"', '""') + '"'


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
