"""The SQL expressions of contracts: checked against what is known, then worked out column-wise.

sqlglot parses, an allow-list of its nodes decides what may be said, and the same walk over the tree makes the functions
that work it out, so that what is checked is what is evaluated. What SQL leaves open is decided here:

- Numbers are Float64. NaN and infinities, given or computed, and division by zero are null.
- Null is unknown, as in SQL: ``a AND NULL`` is false or null, a comparison with null is null.
  :meth:`Expression.matches` takes null for no match.
- A text literal that is compared with a field must be one of the field's categories.
"""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import and_, invert, or_
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import sqlglot
from sqlglot import exp

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.contracts.expressions.values import (
    Columns,
    Floats,
    FrameColumns,
    Mask,
    TruthColumn,
    Value,
    equal,
    finite,
    known,
    series,
    where,
)
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import TailraceError

# What it warns of is refused here anyway.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

Kind = Literal["number", "boolean", "text", "null"]
_CALLED = {"number": "a number", "boolean": "true or false", "text": "text", "null": "NULL"}

_NUMBER = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


class ExpressionError(TailraceError):
    """An expression cannot be used: ``what`` is wrong and the ``remedy``."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class ColumnType(NamedTuple):
    """What a column is to an expression. ``values`` are the categories, None where any text may come."""

    kind: Kind
    values: frozenset[str] | None = None


NUMBER = ColumnType("number")
BOOLEAN = ColumnType("boolean")
TEXT = ColumnType("text")


def categories(values: Iterable[str]) -> ColumnType:
    return ColumnType("text", frozenset(values))


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        text: as it was written.
        kind: what it evaluates to.
        names: the columns that it reads.
        run: works it out, given its columns.
    """

    text: str
    kind: Kind
    names: frozenset[str]
    run: Callable[[Columns], Value]

    def value(self, columns: Columns) -> Value:
        """The value by row, or a single one for all."""
        with np.errstate(all="ignore"):  # what is not finite is unknown
            return self.run(columns)

    def truth(self, columns: Columns) -> TruthColumn:
        """Of a condition: the rows for which it is known to hold, and those for which it is known not to."""
        truth = self.value(columns)
        assert isinstance(truth, TruthColumn)
        yes, no = (np.broadcast_to(side, columns.rows) for side in truth)
        return TruthColumn(yes, no)

    def evaluate(self, columns: pl.DataFrame | Columns) -> pl.Series:
        """One value per row: Boolean, Float64 (never NaN or infinite) or String; null where unknown.

        Raises:
            polars.exceptions.ColumnNotFoundError: a frame lacks one of ``names``.
        """
        given = FrameColumns(columns) if isinstance(columns, pl.DataFrame) else columns
        return series(self.value(given), given.rows)

    def matches(self, frame: pl.DataFrame) -> pl.Series:
        """Boolean per row, never null: whether the condition is known to hold."""
        return pl.Series(self.truth(FrameColumns(frame)).yes)


def compile_expression(text: str, columns: Mapping[str, ColumnType], want: Kind | None = None) -> Expression:
    """Checks an expression and makes it ready to evaluate.

    Args:
        text: the SQL expression.
        columns: the names it may use.
        want: what it must evaluate to.

    Raises:
        ExpressionError: it does not parse, uses what is not allowed or not known, or is of another type.
    """
    tree = _parse(text)
    try:
        typed = _Translation(columns).of(tree)
    except RecursionError:
        raise ExpressionError("too deeply nested", "write it with fewer parentheses") from None
    if want is not None and typed.kind != want:
        hint = "compare it with something" if want == "boolean" else ""
        raise ExpressionError(f"is {_CALLED[typed.kind]}, where {_CALLED[want]} is needed", hint)
    if typed.kind == "null":
        raise ExpressionError("is always null", "give it a value in at least one case")
    names = frozenset(column.name for column in tree.find_all(exp.Column))
    return Expression(text, typed.kind, names, typed.run)


def column_names(text: str) -> frozenset[str]:
    """The columns that an expression reads. Raises ExpressionError where it does not parse."""
    return frozenset(column.name for column in _parse(text).find_all(exp.Column))


def frame_columns(frame: pl.DataFrame) -> dict[str, ColumnType]:
    """The columns of a frame, such as a CSV file: for ``--where`` and ``--target``."""

    def kind(dtype: pl.DataType) -> ColumnType:
        if dtype.is_numeric():
            return NUMBER
        return BOOLEAN if dtype == pl.Boolean else TEXT

    return {name: kind(dtype) for name, dtype in frame.schema.items()}


def _parse(text: str) -> exp.Expr:
    try:
        trees = sqlglot.parse(text)
    except RecursionError:
        raise ExpressionError("too deeply nested", "write it with fewer parentheses") from None
    except sqlglot.errors.SqlglotError as error:
        details = getattr(error, "errors", None)
        place = f" at column {details[0]['col']}" if details and details[0].get("col") else ""
        what = details[0]["description"] if details else str(error)
        raise ExpressionError(f"not a SQL expression{place}: {what.rstrip('.')}") from None
    except Exception as error:  # on some nonsense the parser itself stumbles
        raise ExpressionError("not a SQL expression") from error
    if len(trees) != 1 or trees[0] is None:
        raise ExpressionError("must be exactly one SQL expression", "")
    tree = trees[0]
    if any(node.comments for node in tree.walk()):
        raise ExpressionError("has a SQL comment", "say it in a YAML comment behind #")
    return tree


_Run = Callable[[Columns], Value]


class _Typed(NamedTuple):
    run: _Run
    kind: Kind
    values: frozenset[str] | None = None
    """For text: the values that can come, None where any can."""
    literal: str | None = None


_NULLS: dict[Kind, Value] = {
    "null": np.array(np.nan),
    "number": np.array(np.nan),
    "boolean": TruthColumn(np.array(False), np.array(False)),
    "text": CategoricalColumn(np.array(UNKNOWN), ()),
}


def _constant(value: Value) -> _Run:
    return lambda _columns: value


def _of(function: Callable[..., Value], *parts: _Run) -> _Run:
    """A function of the values of its parts."""
    return lambda columns: function(*(part(columns) for part in parts))


_COMPARE: dict[type[exp.Expr], Callable[[Any, Any], TruthColumn]] = {
    exp.EQ: equal,
    exp.NEQ: lambda a, b: ~equal(a, b),
    exp.GT: lambda a, b: TruthColumn(a > b, a <= b),
    exp.GTE: lambda a, b: TruthColumn(a >= b, a < b),
    exp.LT: lambda a, b: TruthColumn(a < b, a >= b),
    exp.LTE: lambda a, b: TruthColumn(a <= b, a > b),
}
_OF_NUMBERS: dict[type[exp.Expr], Callable[..., Floats]] = {
    exp.Add: lambda a, b: finite(a + b),
    exp.Sub: lambda a, b: finite(a - b),
    exp.Mul: lambda a, b: finite(a * b),
    exp.Div: lambda a, b: finite(a / b),
    exp.Neg: np.negative,
    exp.Abs: np.abs,
    # Of those that are known.
    exp.Least: lambda *numbers: functools.reduce(np.fmin, numbers),
    exp.Greatest: lambda *numbers: functools.reduce(np.fmax, numbers),
}
_OF_CONDITIONS: dict[type[exp.Expr], Callable[..., TruthColumn]] = {
    exp.And: and_,
    exp.Or: or_,
    exp.Not: invert,
}
_FUNCTIONS = "ABS, COALESCE, NULLIF, LEAST, GREATEST"


def _truth(so: Mask) -> TruthColumn:
    """Of what is never unknown."""
    return TruthColumn(so, ~so)


def _operands(node: exp.Expr) -> Iterator[exp.Expr]:
    yield node.this
    if isinstance(node.args.get("expression"), exp.Expr):
        yield node.expression
    yield from node.expressions


class _Translation:
    """The walk over the tree: each allowed node has its rule here, and no other node passes."""

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._columns = columns

    def of(self, node: exp.Expr) -> _Typed:
        kind = type(node)
        if kind in _COMPARE:
            ordered = kind not in (exp.EQ, exp.NEQ)
            return self._compare(node.this, node.expression, _COMPARE[kind], ordered)
        if kind in _OF_NUMBERS:
            return _Typed(_of(_OF_NUMBERS[kind], *map(self._number, _operands(node))), "number")
        if kind in _OF_CONDITIONS:
            return _Typed(_of(_OF_CONDITIONS[kind], *map(self._condition, _operands(node))), "boolean")
        rule = _RULES.get(kind)
        if rule is None:
            if isinstance(node, exp.Func):
                raise ExpressionError(f"{node.sql()} is not allowed", f"the functions are {_FUNCTIONS}")
            raise ExpressionError(f"{node.sql()} is not allowed in an expression")
        return rule(self, node)

    def column(self, node: exp.Expr) -> _Typed:
        if len(node.parts) != 1 or not isinstance(node.this, exp.Identifier):  # type: ignore[attr-defined]
            raise ExpressionError(f"{node.sql()} is not allowed", "name a field without a table")
        name = node.name
        of = self._columns.get(name)
        if of is None:
            raise ExpressionError(f"there is no field {name!r} here", did_you_mean(name, self._columns))
        runs: dict[Kind, _Run] = {
            "number": lambda columns: columns.number(name),
            "boolean": lambda columns: columns.truth(name),
            "text": lambda columns: columns.text(name),
        }
        return _Typed(runs[of.kind], of.kind, of.values)

    def literal(self, node: exp.Expr) -> _Typed:
        text = node.name
        if node.is_string:
            return _Typed(_constant(CategoricalColumn(np.array(0), (text,))), "text", frozenset([text]), text)
        if not re.fullmatch(_NUMBER, text):
            raise ExpressionError(f"{text} is no number")
        number = float(text)
        if not math.isfinite(number):
            raise ExpressionError(f"{text} is too large a number")
        return _Typed(_constant(np.array(number)), "number")

    def null(self, _node: exp.Expr) -> _Typed:
        return _Typed(_constant(_NULLS["null"]), "null")

    def is_(self, node: exp.Expr) -> _Typed:
        if isinstance(node.expression, exp.Null):
            return _Typed(_of(lambda value: _truth(~known(value)), self.of(node.this).run), "boolean")
        if isinstance(node.expression, exp.Boolean):
            side = "yes" if node.expression.this else "no"
            run = _of(lambda truth: _truth(getattr(truth, side)), self._condition(node.this))
            return _Typed(run, "boolean")
        raise ExpressionError(f"{node.sql()} is not allowed", "IS takes NULL, TRUE or FALSE")

    def in_(self, node: exp.Expr) -> _Typed:
        choices = node.expressions
        if not choices or node.args.get("query") or node.args.get("unnest") or node.args.get("field"):
            raise ExpressionError(f"{node.sql()} is not allowed", "write IN ('a', 'b')")
        tests = [self._compare(node.this, choice).run for choice in choices]
        return _Typed(_of(lambda *truths: functools.reduce(or_, truths), *tests), "boolean")

    def between(self, node: exp.Expr) -> _Typed:
        low = self._compare(node.this, node.args["low"], _COMPARE[exp.GTE], ordered=True)
        high = self._compare(node.this, node.args["high"], _COMPARE[exp.LTE], ordered=True)
        return _Typed(_of(and_, low.run, high.run), "boolean")

    def case(self, node: exp.Expr) -> _Typed:
        conditions, results = [], []
        for branch in node.args["ifs"]:
            if node.this is None:
                conditions.append(self._condition(branch.this))
            else:
                conditions.append(self._compare(node.this, branch.this).run)
            results.append(self.of(branch.args["true"]))
        otherwise = node.args.get("default")
        results.append(self.of(otherwise) if otherwise is not None else self.null(node))
        kind, values, runs = self._same("CASE", results)
        run = runs[-1]
        for condition, result in zip(reversed(conditions), reversed(runs[:-1]), strict=True):
            run = _of(lambda truth, value, other: where(truth.yes, value, other), condition, result, run)
        return _Typed(run, kind, values)

    def coalesce(self, node: exp.Expr) -> _Typed:
        parts = [self.of(part) for part in (node.this, *node.expressions)]
        kind, values, runs = self._same("COALESCE", parts)
        run = _of(lambda *columns: functools.reduce(lambda a, b: where(known(a), a, b), columns), *runs)
        return _Typed(run, kind, values)

    def nullif(self, node: exp.Expr) -> _Typed:
        first = self.of(node.this)
        same = self._compare(node.this, node.expression).run
        null = _NULLS[first.kind]
        run = _of(lambda truth, value: where(truth.yes, null, value), same, first.run)
        return first._replace(run=run, literal=None)

    def _number(self, node: exp.Expr) -> _Run:
        typed = self.of(node)
        if typed.kind not in ("number", "null"):
            raise ExpressionError(f"{node.sql()} is {_CALLED[typed.kind]}, where a number is needed")
        return typed.run

    def _condition(self, node: exp.Expr) -> _Run:
        typed = self.of(node)
        if typed.kind not in ("boolean", "null"):
            what = f"{node.sql()} is {_CALLED[typed.kind]}, where a condition is needed"
            raise ExpressionError(what, "compare it with something")
        return _constant(_NULLS["boolean"]) if typed.kind == "null" else typed.run

    def _compare(
        self,
        left_node: exp.Expr,
        right_node: exp.Expr,
        compare: Callable[[Any, Any], TruthColumn] = equal,
        ordered: bool = False,
    ) -> _Typed:
        left, right = self.of(left_node), self.of(right_node)
        if "null" in (left.kind, right.kind):
            raise ExpressionError("a comparison with NULL is never true", "write IS NULL or IS NOT NULL")
        if left.kind != right.kind:
            kinds = [
                f"{node.sql()} is {_CALLED[typed.kind]}"
                for node, typed in ((left_node, left), (right_node, right))
            ]
            raise ExpressionError(f"{' and '.join(kinds)}: they are never equal", "compare like with like")
        if ordered and left.kind != "number":
            what = f"{left_node.sql()} is {_CALLED[left.kind]}, which has no order"
            raise ExpressionError(what, "use = or IN")
        if left.values is not None and right.values is not None and not left.values & right.values:
            literal, other = (left, right) if left.literal is not None else (right, left)
            if literal.literal is not None and other.literal is None:
                remedy = did_you_mean(literal.literal, sorted(other.values or ()))
                raise ExpressionError(f"there is no category {literal.literal!r} here", remedy)
            what = f"{left_node.sql()} and {right_node.sql()} have no value in common"
            raise ExpressionError(f"{what}: they are never equal")
        return _Typed(_of(compare, left.run, right.run), "boolean")

    def _same(self, what: str, parts: list[_Typed]) -> tuple[Kind, frozenset[str] | None, list[_Run]]:
        """The kind that all parts are of, the values that can come, and the parts as columns of that kind."""
        kinds = [part.kind for part in parts if part.kind != "null"]
        if len(set(kinds)) > 1:
            types = " and ".join(_CALLED[kind] for kind in dict.fromkeys(kinds))
            raise ExpressionError(f"the results of a {what} are {types}", "give them one type")
        if not kinds:
            return "null", None, [part.run for part in parts]
        runs = [part.run if part.kind == kinds[0] else _constant(_NULLS[kinds[0]]) for part in parts]
        known_values = [part.values for part in parts if part.kind == "text" and part.values is not None]
        is_known = kinds[0] == "text" and len(known_values) == len(kinds)
        return kinds[0], frozenset().union(*known_values) if is_known else None, runs


_RULES: dict[type[exp.Expr], Callable[[_Translation, exp.Expr], _Typed]] = {
    exp.Column: _Translation.column,
    exp.Literal: _Translation.literal,
    exp.Boolean: lambda _, node: _Typed(_constant(_truth(np.array(bool(node.this)))), "boolean"),
    exp.Null: _Translation.null,
    exp.Paren: lambda translation, node: translation.of(node.this),
    exp.Is: _Translation.is_,
    exp.In: _Translation.in_,
    exp.Between: _Translation.between,
    exp.Case: _Translation.case,
    exp.Coalesce: _Translation.coalesce,
    exp.Nullif: _Translation.nullif,
}
