"""Numbers as people write them."""

from __future__ import annotations

import polars as pl
import pytest

from tailrace.files.numbers import NumberFormat, are_whole, find_number_format, numbers, whole_numbers


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (NumberFormat(), "1.5", 1.5),
        (NumberFormat(), " 7 ", 7.0),
        (NumberFormat(), "+1e3", 1000.0),
        (NumberFormat(), "-.5", -0.5),
        (NumberFormat(), "1.2.3", None),
        (NumberFormat(), "inf", None),
        (NumberFormat(), "1e999", None),
        (NumberFormat(), "1,5", None),
        (NumberFormat(), "0x10", None),
        (NumberFormat(), "1_000", None),
        (NumberFormat(".", ","), "1,234.5", 1234.5),
        (NumberFormat(".", ","), "-$1,234", -1234.0),
        (NumberFormat(".", ","), "12,34", None),
        (NumberFormat(".", ","), "0,123", None),
        (NumberFormat(".", " "), "1\u00a0234", 1234.0),
        (NumberFormat(".", "'"), "1'234'567.8", 1234567.8),
        (NumberFormat(","), "0,37", 0.37),
        (NumberFormat(","), "1.5", None),
        (NumberFormat(",", "."), "1.234,5", 1234.5),
        (NumberFormat(","), "3,5 %", 3.5),
    ],
)
def test_a_text_is_a_number_or_none(form: NumberFormat, text: str, value: float | None) -> None:
    assert numbers(pl.Series([text]), form).to_list() == [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("40.0", 40), ("40.5", None), (str(2**63), None), (str(2**60 + 1), 2**60 + 1)],
)
def test_whole_numbers_are_exact(text: str, value: int | None) -> None:
    assert whole_numbers(pl.Series([text]), NumberFormat()).to_list() == [value]


def test_decimals_are_no_whole_numbers() -> None:
    assert are_whole(pl.Series(["1", None, "-2"]), NumberFormat())
    assert not are_whole(pl.Series(["1", "2.0"]), NumberFormat())


@pytest.mark.parametrize(
    ("columns", "delimiter", "form"),
    [
        ([["0,37", "0,5"]], ";", NumberFormat(",")),
        ([["1,234", "5,678"]], ",", NumberFormat(".", ",")),
        ([["1,234", "5,678"]], ";", NumberFormat(",")),
        ([["1.234", "5.678"]], ";", NumberFormat()),
        ([["1.234,5", "2.000,1"], ["1.234"]], ";", NumberFormat(",", ".")),
        ([["1,234.5", "12"]], ";", NumberFormat(".", ",")),
        ([["1,234", "5,678"], ["0,5"]], ",", NumberFormat(",")),
        ([["a", "b"], ["1"]], ";", NumberFormat()),
        ([["1 234", "5 678"]], ",", NumberFormat(".", " ")),
    ],
)
def test_columns_that_are_sure_decide_for_the_file(
    columns: list[list[str]], delimiter: str, form: NumberFormat
) -> None:
    assert find_number_format([pl.Series(values) for values in columns], delimiter).form == form


@pytest.mark.parametrize(
    ("columns", "delimiter", "unsure"),
    [
        ([["1.234", "5.678"]], ";", ["0"]),
        ([["1,234", "5,678"]], ",", ["0"]),
        ([["1.234", "999"]], ";", ["0"]),
        ([["1.234", "5.678"], ["0,5"]], ";", []),
        ([["1.234", "5.678"], ["0.5"]], ";", []),
        ([["1.2345", "5.678"]], ";", []),
        ([["1234", "5678"]], ";", []),
    ],
)
def test_columns_that_could_be_read_otherwise_are_named(
    columns: list[list[str]], delimiter: str, unsure: list[str]
) -> None:
    series = [pl.Series(str(number), values) for number, values in enumerate(columns)]
    assert find_number_format(series, delimiter).unsure == unsure
    assert find_number_format(series, delimiter, ".").unsure == []


def test_what_stands_before_decimals_can_be_told() -> None:
    amounts = pl.Series("amount", ["4.152", "1.000"])
    assert find_number_format([amounts], ";", ",").form == NumberFormat(",", ".")
    assert numbers(amounts, NumberFormat(",", ".")).to_list() == [4152, 1000]
    assert find_number_format([amounts], ";", ".").form == NumberFormat()
