"""Texts within one buffer against lists of them; and kernels where nothing can be kept."""

from __future__ import annotations

import zlib
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro.columns.bytes_column import NULL, UNKNOWN, BytesColumn
from tailrace.avro.columns.bytes_kernels import checksums, distinct
from tailrace.kernels.compiler import kernel

# Few bytes, so that many are the same, or begin alike.
VALUES = st.lists(
    st.binary(max_size=3) | st.sampled_from([b"", b"ab", b"abc", "\u00f6".encode()]), max_size=12
)


def with_nulls(values: list[bytes | None]) -> BytesColumn:
    column = BytesColumn.of([value or b"" for value in values])
    begins = np.where([value is None for value in values], -1, column.begins)
    return BytesColumn(column.data, begins.astype(np.int64), column.ends)


@given(st.lists(st.none() | st.sampled_from([b"", b"a", b"ab", b"abc", b"b"]), max_size=12), st.data())
def test_spans_are_what_a_list_is(values: list[bytes | None], data: st.DataObject) -> None:
    spans = with_nulls(values)
    assert len(spans) == len(values)
    assert list(spans) == [spans[at] for at in range(len(spans))] == values
    assert spans[1:3] == values[1:3]
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=5)) if values else []
    assert list(spans.take(np.array(rows, dtype=np.int64))) == [values[row] for row in rows]


@given(st.lists(st.none() | st.sampled_from([b"", b"a", b"ab", b"abc", b"b"]), max_size=12), VALUES)
def test_codes_say_which_known_text_it_is(values: list[bytes | None], known: list[bytes]) -> None:
    known = list(dict.fromkeys(known))
    expected = [NULL if v is None else known.index(v) if v in known else UNKNOWN for v in values]
    assert with_nulls(values).codes(BytesColumn.of(known)).tolist() == expected


@given(
    st.lists(st.lists(st.none() | st.sampled_from([b"", b"a", b"ab"]), max_size=4), min_size=1, max_size=4)
)
def test_spans_end_to_end_are_what_lists_are(lists: list[list[bytes | None]]) -> None:
    joined = BytesColumn.end_to_end([with_nulls(values) for values in lists])
    assert list(joined) == [value for values in lists for value in values]


@given(VALUES)
def test_what_differs_is_numbered_by_its_first(values: list[bytes]) -> None:
    spans = BytesColumn.of(values)
    numbers, firsts = distinct(spans.bytes, spans.begins, spans.ends)
    different = list(dict.fromkeys(values))
    assert [values[first] for first in firsts.tolist()] == different
    assert [different[number] for number in numbers.tolist()] == values


@given(VALUES | st.lists(st.binary(max_size=300), max_size=3))
def test_checksums_are_those_of_zlib(values: list[bytes]) -> None:
    spans = BytesColumn.of(values)
    assert checksums(spans.bytes, spans.begins, spans.ends).tolist() == [zlib.crc32(v) for v in values]


def test_a_list_with_a_null_makes_no_spans() -> None:
    with pytest.raises(TypeError):
        BytesColumn.of([b"a", None])  # type: ignore[list-item]


def test_a_kernel_works_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def nowhere(signature: str | None = None, cache: bool = False) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(signature)

    monkeypatch.setattr(numba, "njit", nowhere)

    @kernel("int64(int64)")
    def twice(number: Any) -> Any:
        return number + number

    assert twice(21) == 42
    assert twice.nopython_signatures  # type: ignore[attr-defined]
