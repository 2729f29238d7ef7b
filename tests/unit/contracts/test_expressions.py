"""Expressions: every trap of SQL on columns, what is refused, and agreement with polars' own SQL elsewhere."""

from __future__ import annotations

import math
import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.contracts.expressions.compiler import (
    BOOLEAN,
    NUMBER,
    TEXT,
    ExpressionError,
    categories,
    compile_expression,
    frame_columns,
)
from tailrace.contracts.language.expression_columns import policy_columns, request_columns, value_columns
from tailrace.contracts.language.load import load_contract

COLUMNS = {
    "a": NUMBER,
    "b": NUMBER,
    "p": categories(["car", "home", "other"]),
    "q": categories(["red", "white"]),
    "s": TEXT,
    "f": BOOLEAN,
    "g": BOOLEAN,
    "order": NUMBER,
    "pH": NUMBER,
}


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(columns, strict=False)


def values(text: str, **columns: list[Any]) -> list[Any]:
    return compile_expression(text, COLUMNS).evaluate(frame(**columns)).to_list()


def refusal(text: str, **options: Any) -> str:
    with pytest.raises(ExpressionError) as error:
        compile_expression(text, COLUMNS, **options)
    return str(error.value)


# --- null, NaN, infinity, zero


def test_nan_and_infinity_are_unknown() -> None:
    odd = [math.nan, math.inf, -math.inf, None, 0.7]
    assert values("a > 0.5", a=odd) == [None, None, None, None, True]
    assert values("a IS NULL", a=odd) == [True, True, True, True, False]
    assert values("COALESCE(a, 0) > 0.5", a=odd) == [False, False, False, False, True]


def test_division_by_zero_is_unknown() -> None:
    assert values("a / b", a=[1.0, 0.0, 6.0], b=[0.0, 0.0, 3.0]) == [None, None, 2.0]
    assert values("a / b > 0.5", a=[0.0], b=[0.0]) == [None]


def test_overflow_is_unknown() -> None:
    assert values("a * a - a * a > 0", a=[1e300, 1.0]) == [None, False]


def test_integers_divide_as_numbers_and_compare_as_numbers() -> None:
    assert values("a / b", a=[1], b=[2]) == [0.5]
    assert values("a = 0.1", a=pl.Series([0.1], dtype=pl.Float32).to_list()) == [False]
    narrow = pl.DataFrame(
        {"a": pl.Series([0.5, 2.0], dtype=pl.Float32), "b": pl.Series([1, 2], dtype=pl.Int8)}
    )
    assert compile_expression("a < b", COLUMNS).evaluate(narrow).to_list() == [True, False]


def test_null_is_no_match_and_logic_has_three_values() -> None:
    assert values("f AND g", f=[None, None, True], g=[False, True, None]) == [False, None, None]
    assert values("f OR g", f=[None, None, False], g=[False, True, None]) == [None, True, None]
    assert values("NOT f", f=[None, True]) == [None, False]
    condition = compile_expression("f OR a < 1", COLUMNS)
    assert condition.matches(frame(f=[None, False, None], a=[None, 0.5, 2.0])).to_list() == [
        False,
        True,
        False,
    ]


def test_in_and_not_in_with_null() -> None:
    assert values("p IN ('car', 'home')", p=["car", "other", None]) == [True, False, None]
    assert values("p NOT IN ('car', 'home')", p=["car", "other", None]) == [False, True, None]
    assert values("a IN (1, 2)", a=[1, 3, math.nan]) == [True, False, None]


def test_case_takes_an_unknown_condition_for_false() -> None:
    text = "CASE WHEN a > 1 THEN 10 WHEN f THEN 20 ELSE 30 END"
    assert values(text, a=[2.0, None, None, 0.0], f=[None, True, None, False]) == [10.0, 20.0, 30.0, 30.0]
    assert values("CASE p WHEN 'car' THEN 1 WHEN 'home' THEN 2 END", p=["car", "home", "other", None]) == [
        1.0,
        2.0,
        None,
        None,
    ]


def test_functions() -> None:
    assert values("ABS(a)", a=[-1.0, None]) == [1.0, None]
    assert values("LEAST(a, b)", a=[1.0, None], b=[2.0, 3.0]) == [1.0, 3.0]
    assert values("GREATEST(a, b, 2)", a=[1.0, None], b=[0.0, None]) == [2.0, 2.0]
    assert values("NULLIF(a, 0)", a=[0.0, 1.0, None]) == [None, 1.0, None]
    assert values("COALESCE(p, 'none') = 'none'", p=[None, "car"]) == [True, False]
    assert values("a BETWEEN 1 AND 2", a=[1.0, 2.5, None]) == [True, False, None]
    assert values("-a + +b", a=[1.0], b=[3.0]) == [2.0]
    assert values("f IS TRUE", f=[True, False, None]) == [True, False, False]
    assert values("f IS NOT TRUE", f=[True, False, None]) == [False, True, True]


def test_names_keep_their_case_and_may_be_words_of_sql() -> None:
    assert values("pH > 3", pH=[3.5]) == [True]
    assert values("order > 3", order=[4]) == [True]
    assert values('"order" > 3', order=[4]) == [True]
    assert refusal("ph > 3") == "there is no field 'ph' here; did you mean 'pH'?"


def test_a_constant_is_as_long_as_the_frame() -> None:
    for text, value in (("TRUE", True), ("1 + 1", 2.0), ("'x'", "x"), ("1 < 2", True)):
        assert values(text, a=[0.0, 0.0, 0.0]) == [value] * 3
    assert compile_expression("TRUE", COLUMNS).evaluate(frame(a=[])).to_list() == []


@pytest.mark.parametrize(
    ("text", "kind"), [("a", "number"), ("p", "text"), ("f", "boolean"), ("a > b", "boolean")]
)
def test_empty_frames(text: str, kind: str) -> None:
    empty = pl.DataFrame(schema={"a": pl.Int64, "b": pl.Float64, "p": pl.String, "f": pl.Boolean})
    found = compile_expression(text, COLUMNS)
    assert found.kind == kind
    assert found.evaluate(empty).len() == 0


# --- what is refused, each with what to do


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("incom > 1", "there is no field 'incom' here; choose one of a, b, p, q, s, f, g, order, pH"),
        ("p = 'cars'", "there is no category 'cars' here; did you mean 'car'?"),
        ("'x' = q", "there is no category 'x' here; choose one of red, white"),
        ("p IN ('car', 'boat')", "there is no category 'boat' here; choose one of car, home, other"),
        ("CASE p WHEN 'boat' THEN 1 END", "there is no category 'boat' here; choose one of car, home, other"),
        ("p = q", "p and q have no value in common: they are never equal"),
        ("a = 'x'", "a is a number and 'x' is text: they are never equal; compare like with like"),
        ("f = 1", "f is true or false and 1 is a number: they are never equal; compare like with like"),
        ("p < 'home'", "p is text, which has no order; use = or IN"),
        ("a = NULL", "a comparison with NULL is never true; write IS NULL or IS NOT NULL"),
        ("NULL", "is always null; give it a value in at least one case"),
        ("a AND f", "a is a number, where a condition is needed; compare it with something"),
        ("a + p", "p is text, where a number is needed"),
        (
            "CASE WHEN f THEN 1 ELSE 'x' END",
            "the results of a CASE are a number and text; give them one type",
        ),
        ("1e999 > a", "1e999 is too large a number"),
        ("a > 1 -- why", "has a SQL comment; say it in a YAML comment behind #"),
        ("a > 1 /* why */ AND f", "has a SQL comment; say it in a YAML comment behind #"),
        ("a > 1; f", "must be exactly one SQL expression"),
        ("", "must be exactly one SQL expression"),
        (
            "a >",
            (
                "not a SQL expression at column 3: Required keyword: 'expression' missing for "
                "<class 'sqlglot.expressions.core.GT'>"
            ),
        ),
        ("(" * 900 + "a" + ")" * 900, "too deeply nested; write it with fewer parentheses"),
    ],
)
def test_refused_with_the_reason(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "SUM(a) > 1",
        "AVG(a)",
        "COUNT(*) > 1",
        "MAX(a) > 1",
        "ROW_NUMBER() OVER () > 1",
        "a > (SELECT 1)",
        "EXISTS(SELECT 1)",
        "a IN (SELECT 1)",
        "a > ALL(SELECT 1)",
        "NOW() > 1",
        "CURRENT_DATE > 1",
        "CURRENT_TIMESTAMP > 1",
        "RANDOM() > 0.5",
        "UUID() = s",
        "a::int > 1",
        "CAST(a AS TEXT) = 'x'",
        "s LIKE 'c%'",
        "s || 'x' = 'y'",
        "t.a > 1",
        "*",
        "@x > 1",
        "? > 1",
        ":x > 1",
        "$1 > 1",
        "a % 2 = 0",
        "a & 1 = 1",
        "[1, 2]",
        "a[0] > 1",
        "DATE '2020-01-01' > a",
        "INTERVAL '1' DAY",
        "a IS DISTINCT FROM b",
        "SELECT 1",
        "DROP TABLE x",
        "EXTRACT(YEAR FROM s) > 1",
        "IF(f, 1, 2)",
        "LN(a) > 1",
        "read_csv('x')",
        "x -> 1",
        "(a, b)",
        "a = ANY(b)",
    ],
)
def test_only_what_is_on_the_list_gets_through(text: str) -> None:
    refusal(text)


def test_the_wanted_kind() -> None:
    assert (
        refusal("a", want="boolean")
        == "is a number, where true or false is needed; compare it with something"
    )
    assert refusal("a > 1", want="number") == "is true or false, where a number is needed"
    assert compile_expression("a > 1", COLUMNS, want="boolean").kind == "boolean"


# --- which names are known where

CONTRACT = """\
model: m
owner: {team: t}
features: {a: {type: number}, p: {categories: [x, y]}}
context: {c: {type: string}, d: {type: boolean}}
target: TARGET
labels: {horizon: 1d}
"""


def test_names_by_place() -> None:
    binary = load_contract(CONTRACT.replace("TARGET", "{name: t, type: boolean}"))
    number = load_contract(CONTRACT.replace("TARGET", "{name: t, type: number}"))
    fields = {"a", "p", "c", "d"}
    assert set(request_columns(binary)) == fields
    assert set(policy_columns(binary)) == fields | {"score", "predicted_class", "uncertain", "guarded"}
    assert set(policy_columns(number)) == fields | {"value", "uncertain", "guarded"}
    assert set(value_columns(binary)) == set(policy_columns(binary)) | {"action", "t"}
    assert value_columns(binary)["action"].values == {"true", "false"}


def test_a_csv_frame_has_its_columns() -> None:
    found = frame_columns(pl.DataFrame({"x": [1], "y": [True], "z": ["t"]}))
    assert found == {"x": NUMBER, "y": BOOLEAN, "z": TEXT}


# --- an independent oracle: polars' own SQL, where SQL's answer is not in doubt

_numbers = st.sampled_from(
    ["a", "b", "1", "0.25", "(a + b)", "(a - 2)", "(a * b)", "ABS(b)", "-a", "COALESCE(a, b)", "NULLIF(a, 1)"]
) | st.just("(CASE WHEN p = 'car' THEN a ELSE b END)")
_texts = st.sampled_from(
    [
        "p = 'car'",
        "p <> 'home'",
        "p IN ('car', 'other')",
        "p IS NULL",
        "COALESCE(p, 'car') = 'home'",
        "NULLIF(p, 'car') IS NULL",
        "p = CASE WHEN a > 0 THEN 'car' ELSE 'home' END",
        "CASE WHEN a < 1 THEN p ELSE 'car' END <> p",
    ]
)


@st.composite
def _conditions(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0:
        if draw(st.booleans()):
            return draw(_texts)
        return f"{draw(_numbers)} {draw(st.sampled_from(['<', '<=', '>', '>=', '=', '<>']))} {draw(_numbers)}"
    left, right = draw(_conditions(depth - 1)), draw(_conditions(depth - 1))
    return draw(
        st.sampled_from(
            [
                f"({left} AND {right})",
                f"({left} OR {right})",
                f"(NOT {left})",
                f"(CASE WHEN {left} THEN {right} ELSE FALSE END)",
            ]
        )
    )


_cell = st.one_of(st.none(), st.integers(-3, 3).map(float))


@settings(max_examples=60)
@given(
    text=_conditions(),
    rows=st.lists(
        st.tuples(_cell, _cell, st.sampled_from(["car", "home", "other", None])), min_size=1, max_size=8
    ),
)
def test_agrees_with_polars_sql(text: str, rows: list[tuple[Any, Any, Any]]) -> None:
    data = pl.DataFrame(rows, schema={"a": pl.Float64, "b": pl.Float64, "p": pl.String}, orient="row")
    expected = data.select(pl.sql_expr(text).alias("x")).to_series()
    if len(expected) != data.height:
        expected = expected.new_from_index(0, data.height)
    assert compile_expression(text, COLUMNS).evaluate(data).to_list() == expected.to_list()


_SCRAPS = r"""
a p f ( ) AND OR NOT = < 'x' 1 1e 1_0 0x1 . :: [ ] { } : @ $ ? % || -> SELECT FROM CASE WHEN THEN END IN , IS NULL
BETWEEN CAST AS INTERVAL DATE -- /* */ ; ' " \ é EXISTS OVER LATERAL VALUES USE SET INSERT
"""
_scraps = st.sampled_from(_SCRAPS.split())


@settings(max_examples=150)
@given(st.one_of(st.text(max_size=30), st.lists(_scraps, max_size=9).map(" ".join)))
def test_whatever_is_written_is_refused_properly_or_evaluates(text: str) -> None:
    columns = {name: COLUMNS[name] for name in ("a", "p", "f")}
    try:
        expression = compile_expression(text, columns)
    except ExpressionError:
        return
    assert len(expression.evaluate(frame(a=[1.0, None], p=["car", None], f=[True, None]))) == 2


def test_a_number_that_is_cut_short() -> None:
    assert refusal("1e > a") == "1e is no number"
    assert refusal("{ : } 1e AS ; ( AND a") == "not a SQL expression"


@pytest.mark.parametrize("text", ["a / 10", "a / (7 - 4)", "1 / a", "a / b", "3 * a / 0.7 - b / 9"])
def test_a_row_comes_to_the_same_bits_alone_and_among_others(text: str) -> None:
    draw = random.Random(0)
    a, b = ([draw.uniform(0.1, 5.0) for _ in range(300)] for _ in range(2))
    expected = [eval(text, {"a": x, "b": y}) for x, y in zip(a, b, strict=True)]
    assert values(text, a=a, b=b) == expected
    assert [values(text, a=[x], b=[y])[0] for x, y in zip(a, b, strict=True)] == expected
