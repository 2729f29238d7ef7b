"""What `tailrace replay` says of rows that are later than now."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tailrace.cli.traffic import _say_ahead
from tailrace.errors import TailraceError

NOW = 1_767_225_600_000
FILE = Path("rows.csv")


def test_nothing_is_words_rows_of_the_past(capsys: pytest.CaptureFixture[str]) -> None:
    _say_ahead(FILE, pl.Series([NOW - 1, NOW]), NOW)
    assert capsys.readouterr().err == ""


def test_rows_that_are_ahead_are_announced_as_dead_letters(capsys: pytest.CaptureFixture[str]) -> None:
    _say_ahead(FILE, pl.Series([NOW, NOW + 1_000, NOW + 2_000]), NOW)
    words = capsys.readouterr().err
    assert "2 of 3 rows are later than now, the first 2026-01-01T00:00:01Z" in " ".join(words.split())
    assert "event-time-ahead" in words


def test_a_file_of_the_future_is_not_sent() -> None:
    with pytest.raises(
        TailraceError, match=r"rows.csv: 2 of 2 rows are later than now.*none would be answered"
    ):
        _say_ahead(FILE, pl.Series([NOW + 1, NOW + 2]), NOW)
