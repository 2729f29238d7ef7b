"""The SQL expressions of contracts: checked against what is known, then evaluated column-wise by polars.

sqlglot parses, an allow-list of its nodes decides what may be said, and the same walk over the tree builds
the polars expression, so that what is checked is what is evaluated. What SQL leaves open is settled here:

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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import polars as pl
import sqlglot
from sqlglot import exp

from tailrace.contracts.fields import ContextField, Feature
from tailrace.contracts.model_contract import ModelContract
from tailrace.contracts.problems import did_you_mean
from tailrace.kit.errors import TailraceError

# What it warns of is refused here anyway.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

Kind = Literal["number", "boolean", "text", "null"]
_DTYPES = {"number": pl.Float64, "boolean": pl.Boolean, "text": pl.String}
_CALLED = {"number": "a number", "boolean": "true or false", "text": "text", "null": "NULL"}

_NUMBER = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"

_PROBE: dict[str, list[float | bool | str | None]] = {
    "number": [None, 0.0, -1.5, 1e300, math.nan],
    "boolean": [None, True, False, True, False],
    "text": [None, "", "x", "y", "z"],
}


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
        expr: the polars expression; several can share one ``frame.select``. A constant has length 1.
    """

    text: str
    kind: Kind
    names: frozenset[str]
    expr: pl.Expr

    def evaluate(self, frame: pl.DataFrame) -> pl.Series:
        """One value per row: Boolean, Float64 (never NaN or infinite) or String; null where unknown.

        Raises:
            polars.exceptions.ColumnNotFoundError: the frame lacks one of ``names``.
        """
        found = frame.select(self.expr.alias("result")).to_series()
        return found if self.names else found.new_from_index(0, frame.height)

    def matches(self, frame: pl.DataFrame) -> pl.Series:
        """Boolean per row, never null: whether the condition is known to hold."""
        return self.evaluate(frame).fill_null(False)


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
    compiled = Expression(text, typed.kind, names, typed.expr)
    _probe(compiled, columns)
    return compiled


def request_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """Features and context: for rules, slices and fallback rules."""
    return {name: _field_type(field) for name, field in (contract.features | contract.context).items()}


def policy_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """What a policy may use: features, context, the guards' flags and what the model said.

    ``score`` is the probability of the positive class, with several classes that of the predicted one.
    """
    columns = request_columns(contract) | {"uncertain": BOOLEAN, "guarded": BOOLEAN}
    if contract.task == "regression":
        return columns | {"value": NUMBER}
    return columns | {"score": NUMBER, "predicted_class": categories(contract.classes)}


def value_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """What the business value may use: all that a policy may, the action taken and the truth."""
    target = contract.target
    truth = {"boolean": BOOLEAN, "number": NUMBER}.get(target.type) or categories(contract.classes)
    return policy_columns(contract) | {"action": categories(contract.actions), target.name: truth}


def frame_columns(frame: pl.DataFrame) -> dict[str, ColumnType]:
    """The columns of a frame, such as a CSV file: for ``--where`` and ``--target``."""

    def kind(dtype: pl.DataType) -> ColumnType:
        if dtype.is_numeric():
            return NUMBER
        return BOOLEAN if dtype == pl.Boolean else TEXT

    return {name: kind(dtype) for name, dtype in frame.schema.items()}


def _field_type(field: Feature | ContextField) -> ColumnType:
    if field.type in ("number", "integer"):
        return NUMBER
    if field.type == "boolean":
        return BOOLEAN
    return TEXT if field.categories is None else categories(field.categories)


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


def _probe(compiled: Expression, columns: Mapping[str, ColumnType]) -> None:
    """Evaluates it once on awkward values: the type and the length must be as promised."""
    used = {name: columns[name].kind for name in compiled.names}
    frame = pl.DataFrame({"": [0] * 5, **{name: _PROBE[kind] for name, kind in used.items()}}, strict=False)
    try:
        result = compiled.evaluate(frame)
    except pl.exceptions.PolarsError as error:
        raise ExpressionError(f"cannot be evaluated: {error}") from None
    if result.dtype != _DTYPES[compiled.kind] or len(result) != frame.height:
        raise ExpressionError(f"evaluates to {len(result)} values of {result.dtype} for {frame.height} rows")


class _Typed(NamedTuple):
    expr: pl.Expr
    kind: Kind
    values: frozenset[str] | None = None
    """For text: the values that can come, None where any can."""
    literal: str | None = None


def _finite(expr: pl.Expr) -> pl.Expr:
    return pl.when(expr.is_finite()).then(expr)


_COMPARE: dict[type[exp.Expr], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
}


def _quotient(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    """The nearest float, as IEEE 754 has it. To divide a column by a lone number polars multiplies with the reciprocal,
    which misses the last bit of every third row, but of none that is alone; so what is divided by is made a column.
    """
    return above / (below + pl.int_range(pl.len()) * 0.0)


_ARITHMETIC: dict[type[exp.Expr], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.Add: lambda a, b: a + b,
    exp.Sub: lambda a, b: a - b,
    exp.Mul: lambda a, b: a * b,
    exp.Div: _quotient,
}
_FUNCTIONS = "ABS, COALESCE, NULLIF, LEAST, GREATEST"


class _Translation:
    """The walk over the tree: each allowed node has its rule here, and no other node passes."""

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._columns = columns

    def of(self, node: exp.Expr) -> _Typed:
        kind = type(node)
        if kind in _COMPARE:
            return self._compare(
                node.this, node.expression, _COMPARE[kind], ordered=kind not in (exp.EQ, exp.NEQ)
            )
        if kind in _ARITHMETIC:
            left, right = self._numbers(node.this, node.expression)
            return _Typed(_finite(_ARITHMETIC[kind](left, right)), "number")
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
        known = self._columns.get(name)
        if known is None:
            raise ExpressionError(f"there is no field {name!r} here", did_you_mean(name, self._columns))
        expr = pl.col(name).cast(_DTYPES[known.kind])
        return _Typed(_finite(expr) if known.kind == "number" else expr, known.kind, known.values)

    def literal(self, node: exp.Expr) -> _Typed:
        text = node.name
        if node.is_string:
            return _Typed(pl.lit(text, dtype=pl.String), "text", frozenset([text]), text)
        if not re.fullmatch(_NUMBER, text):
            raise ExpressionError(f"{text} is no number")
        number = float(text)
        if not math.isfinite(number):
            raise ExpressionError(f"{text} is too large a number")
        return _Typed(pl.lit(number, dtype=pl.Float64), "number")

    def boolean(self, node: exp.Expr) -> _Typed:
        return _Typed(pl.lit(bool(node.this)), "boolean")

    def null(self, _node: exp.Expr) -> _Typed:
        return _Typed(pl.lit(None), "null")

    def paren(self, node: exp.Expr) -> _Typed:
        return self.of(node.this)

    def negative(self, node: exp.Expr) -> _Typed:
        return _Typed(-self._number(node.this), "number")

    def absolute(self, node: exp.Expr) -> _Typed:
        return _Typed(self._number(node.this).abs(), "number")

    def both(self, node: exp.Expr) -> _Typed:
        return _Typed(self._condition(node.this) & self._condition(node.expression), "boolean")

    def either(self, node: exp.Expr) -> _Typed:
        return _Typed(self._condition(node.this) | self._condition(node.expression), "boolean")

    def negation(self, node: exp.Expr) -> _Typed:
        return _Typed(~self._condition(node.this), "boolean")

    def is_(self, node: exp.Expr) -> _Typed:
        if isinstance(node.expression, exp.Null):
            return _Typed(self.of(node.this).expr.is_null(), "boolean")
        if isinstance(node.expression, exp.Boolean):
            return _Typed(
                self._condition(node.this).eq_missing(pl.lit(bool(node.expression.this))), "boolean"
            )
        raise ExpressionError(f"{node.sql()} is not allowed", "IS takes NULL, TRUE or FALSE")

    def in_(self, node: exp.Expr) -> _Typed:
        choices = node.expressions
        if not choices or node.args.get("query") or node.args.get("unnest") or node.args.get("field"):
            raise ExpressionError(f"{node.sql()} is not allowed", "write IN ('a', 'b')")
        equal = _COMPARE[exp.EQ]
        tests = [self._compare(node.this, choice, equal, ordered=False).expr for choice in choices]
        return _Typed(functools.reduce(lambda a, b: a | b, tests), "boolean")

    def between(self, node: exp.Expr) -> _Typed:
        low = self._compare(node.this, node.args["low"], _COMPARE[exp.GTE], ordered=True)
        high = self._compare(node.this, node.args["high"], _COMPARE[exp.LTE], ordered=True)
        return _Typed(low.expr & high.expr, "boolean")

    def case(self, node: exp.Expr) -> _Typed:
        conditions, results = [], []
        for branch in node.args["ifs"]:
            if node.this is None:
                conditions.append(self._condition(branch.this))
            else:
                conditions.append(self._compare(node.this, branch.this, _COMPARE[exp.EQ], ordered=False).expr)
            results.append(self.of(branch.args["true"]))
        otherwise = node.args.get("default")
        results.append(self.of(otherwise) if otherwise is not None else self.null(node))
        kind, values, exprs = self._same("CASE", results)
        expr = exprs[-1]
        for condition, result in zip(reversed(conditions), reversed(exprs[:-1]), strict=True):
            expr = pl.when(condition).then(result).otherwise(expr)
        return _Typed(expr, kind, values)

    def coalesce(self, node: exp.Expr) -> _Typed:
        kind, values, exprs = self._same(
            "COALESCE", [self.of(part) for part in (node.this, *node.expressions)]
        )
        return _Typed(pl.coalesce(exprs), kind, values)

    def nullif(self, node: exp.Expr) -> _Typed:
        first = self.of(node.this)
        same = self._compare(node.this, node.expression, _COMPARE[exp.EQ], ordered=False).expr
        return first._replace(
            expr=pl.when(same.fill_null(False)).then(None).otherwise(first.expr), literal=None
        )

    def least(self, node: exp.Expr) -> _Typed:
        return _Typed(pl.min_horizontal(self._numbers(node.this, *node.expressions)), "number")

    def greatest(self, node: exp.Expr) -> _Typed:
        return _Typed(pl.max_horizontal(self._numbers(node.this, *node.expressions)), "number")

    def _number(self, node: exp.Expr) -> pl.Expr:
        typed = self.of(node)
        if typed.kind not in ("number", "null"):
            raise ExpressionError(f"{node.sql()} is {_CALLED[typed.kind]}, where a number is needed")
        return typed.expr.cast(pl.Float64) if typed.kind == "null" else typed.expr

    def _numbers(self, *nodes: exp.Expr) -> list[pl.Expr]:
        return [self._number(node) for node in nodes]

    def _condition(self, node: exp.Expr) -> pl.Expr:
        typed = self.of(node)
        if typed.kind not in ("boolean", "null"):
            raise ExpressionError(
                f"{node.sql()} is {_CALLED[typed.kind]}, where a condition is needed",
                "compare it with something",
            )
        return typed.expr.cast(pl.Boolean) if typed.kind == "null" else typed.expr

    def _compare(
        self,
        left_node: exp.Expr,
        right_node: exp.Expr,
        compare: Callable[[pl.Expr, pl.Expr], pl.Expr],
        ordered: bool,
    ) -> _Typed:
        left, right = self.of(left_node), self.of(right_node)
        if "null" in (left.kind, right.kind):
            raise ExpressionError("a comparison with NULL is never true", "write IS NULL or IS NOT NULL")
        if left.kind != right.kind:
            what = (
                f"{left_node.sql()} is {_CALLED[left.kind]} and {right_node.sql()} is {_CALLED[right.kind]}"
            )
            raise ExpressionError(f"{what}: they are never equal", "compare like with like")
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
        return _Typed(compare(left.expr, right.expr), "boolean")

    def _same(self, what: str, parts: list[_Typed]) -> tuple[Kind, frozenset[str] | None, list[pl.Expr]]:
        """The kind that all parts are of, the values that can come, and the parts as columns of that kind."""
        kinds = [part.kind for part in parts if part.kind != "null"]
        if len(set(kinds)) > 1:
            found = " and ".join(_CALLED[kind] for kind in dict.fromkeys(kinds))
            raise ExpressionError(f"the results of a {what} are {found}", "give them one type")
        if not kinds:
            return "null", None, [part.expr for part in parts]
        values: frozenset[str] | None = frozenset()
        for part in parts:
            if part.kind == "text":
                values = None if values is None or part.values is None else values | part.values
        return (
            kinds[0],
            values if kinds[0] == "text" else None,
            [part.expr.cast(_DTYPES[kinds[0]]) for part in parts],
        )


_RULES: dict[type[exp.Expr], Callable[[_Translation, exp.Expr], _Typed]] = {
    exp.Column: _Translation.column,
    exp.Literal: _Translation.literal,
    exp.Boolean: _Translation.boolean,
    exp.Null: _Translation.null,
    exp.Paren: _Translation.paren,
    exp.Neg: _Translation.negative,
    exp.Abs: _Translation.absolute,
    exp.And: _Translation.both,
    exp.Or: _Translation.either,
    exp.Not: _Translation.negation,
    exp.Is: _Translation.is_,
    exp.In: _Translation.in_,
    exp.Between: _Translation.between,
    exp.Case: _Translation.case,
    exp.Coalesce: _Translation.coalesce,
    exp.Nullif: _Translation.nullif,
    exp.Least: _Translation.least,
    exp.Greatest: _Translation.greatest,
}
