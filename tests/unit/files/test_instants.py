"""Times in any common format, over a whole column."""

from __future__ import annotations

import polars as pl
import pytest

from tailrace.contracts.instants import read_time
from tailrace.errors import TailraceError, UsageError
from tailrace.files.instants import find_format, format_time, read_instants, refuse_implausible


@pytest.mark.parametrize(
    ("texts", "form", "first"),
    [
        (["2024-01-01", "2024-01-02T03:04:05Z"], "iso", "2024-01-01T00:00:00Z"),
        (["2024-01-01 00:00:00+02:00"], "iso", "2023-12-31T22:00:00Z"),
        (["13.01.2024 10:00", "01.02.2024 11:30"], "%d.%m.%Y %H:%M", "2024-01-13T10:00:00Z"),
        (["02/01/2024", "13/01/2024"], "%d/%m/%Y", "2024-01-02T00:00:00Z"),
        (["02/01/2024", "01/13/2024"], "%m/%d/%Y", "2024-02-01T00:00:00Z"),
        (["1/13/24 3:04 PM"], "%m/%d/%y %I:%M %p", "2024-01-13T15:04:00Z"),
        (["5 March 2024", "6 May 2024"], "%d %B %Y", "2024-03-05T00:00:00Z"),
        (["01-Feb-2024"], "%d-%B-%Y", "2024-02-01T00:00:00Z"),
        (["2024/01/01 10:00:00.123"], "%Y/%m/%d %H:%M:%S.%f", "2024-01-01T10:00:00.123Z"),
        (["2024/01/01 10:00:00 +0130"], "%Y/%m/%d %H:%M:%S%z", "2024-01-01T08:30:00Z"),
        (["Thu, 01 Feb 2024 10:00:00 GMT"], "%a, %d %B %Y %H:%M:%S%z", "2024-02-01T10:00:00Z"),
        (["20260101", "20260228"], "%Y%m%d", "2026-01-01T00:00:00Z"),
        (["20260101120000"], "%Y%m%d%H%M%S", "2026-01-01T12:00:00Z"),
        (["202601", "202612"], "%Y%m", "2026-01-01T00:00:00Z"),
        (["1900", "2199"], "%Y", "1900-01-01T00:00:00Z"),
        (["1767225600"], "epoch-seconds", "2026-01-01T00:00:00Z"),
        (["1767225600.25"], "epoch-seconds", "2026-01-01T00:00:00.250Z"),
        (["1767225600000"], "epoch-milliseconds", "2026-01-01T00:00:00Z"),
        (["202601011230"], "%Y%m%d%H%M", "2026-01-01T12:30:00Z"),
        (["978307200000"], "epoch-milliseconds", "2001-01-01T00:00:00Z"),  # no day of the year 9783
        (["1767225600000000"], "epoch-microseconds", "2026-01-01T00:00:00Z"),
        (["1767225600000000001"], "epoch-nanoseconds", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_format_is_found(texts: list[str], form: str, first: str) -> None:
    column = pl.Series("t", [*texts, None])
    assert find_format(column) == form
    times = read_instants(column, form)
    assert format_time(times[0]) == first
    assert times.null_count() == 1


@pytest.mark.parametrize(
    "texts", [["1", "2"], ["x"], ["2024-01-01", "x"], ["99999999"], ["1767225600", "1767225600000"]]
)
def test_what_is_of_no_format(texts: list[str]) -> None:
    assert find_format(pl.Series("t", texts)) is None


@pytest.mark.parametrize("texts", [["01/02/2024", "03/04/2024"], ["01-02-24"]])
def test_two_readings_are_a_question(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="'t' can be read in"):
        find_format(pl.Series("t", texts))


def test_one_reading_of_two_formats_is_none() -> None:
    assert find_format(pl.Series("t", ["05/05/2024", "06/06/2024"])) == "%d/%m/%Y"


def test_parts_finer_than_a_millisecond_are_rounded_to_the_nearest_in_every_form() -> None:
    midnight = read_time("2024-01-02T00:00:00Z")
    for text, form in (
        ("2024-01-01T23:59:59.9996Z", "iso"),
        ("2024/01/01 23:59:59.9996", "%Y/%m/%d %H:%M:%S.%f"),
        ("1704153599.9996", "epoch-seconds"),
        ("1704153599999.6", "epoch-milliseconds"),
        ("1704153599999600", "epoch-microseconds"),
        ("1704153599999600000", "epoch-nanoseconds"),
    ):
        assert read_instants(pl.Series([text]), form)[0] == midnight, form


def test_a_format_that_is_told() -> None:
    assert read_instants(pl.Series(["45292.5"]), "excel-days")[0] == read_time("2024-01-01T12:00:00Z")
    with pytest.raises(UsageError, match="time format 'weekly' is not known: one of iso, epoch-seconds"):
        read_instants(pl.Series(["1"]), "weekly")


@pytest.mark.parametrize("text", ["1899-12-31T23:59:59Z", "2200-01-01T00:00:00Z"])
def test_times_that_cannot_be_are_refused_with_their_value(text: str) -> None:
    texts = pl.Series(["2024-01-01T00:00:00Z", text])
    with pytest.raises(
        TailraceError, match=f"f: row 2: '{text}' would lie before 1900 or after 2199 .1 such rows"
    ):
        refuse_implausible(read_instants(texts, "iso"), texts, "f")
