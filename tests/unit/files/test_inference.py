"""What a column is, told by its values and its name."""

from __future__ import annotations

import polars as pl
import pytest

from tailrace.files.inference import infer
from tailrace.files.missing import MissingWords
from tailrace.files.numbers import NumberFormat


def kind_of(name: str, texts: list[str]) -> tuple[str, tuple[str, ...]]:
    column = infer(pl.Series(name, texts), MissingWords(), NumberFormat())
    return column.kind, column.odd


@pytest.mark.parametrize("name", ["id", "customerId", "account_number", "Account Number 2", "zip", "phone"])
def test_whole_numbers_that_are_called_identifiers_are_texts(name: str) -> None:
    assert kind_of(name, ["12", "7"]) == ("text", ())


@pytest.mark.parametrize("name", ["number", "account_balance", "idle", "paid", "zips_sold"])
def test_whole_numbers_that_are_called_otherwise_are_numbers(name: str) -> None:
    assert kind_of(name, ["12", "7"]) == ("integer", ())


@pytest.mark.parametrize(("words", "kind"), [(0, "integer"), (1, "integer"), (2, "text")])
def test_of_ten_values_one_may_be_no_number(words: int, kind: str) -> None:
    texts = [f"word {number}" if number < words else str(number) for number in range(10)]
    assert kind_of("v", texts) == (kind, ("word 0",) if words == 1 else ())
