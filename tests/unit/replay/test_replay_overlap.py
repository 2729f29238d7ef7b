"""Which rows were replayed before, by the ids in requests' bytes."""

from __future__ import annotations

import polars as pl
import pytest

from tailrace.replay.overlap import ReplayedRows

PREFIX = "m-0123456789-"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"\x00\x00\x00\x00\x01\x02(m-0123456789-0000001rest"], 1),
        ([b'{"request_id": "m-0123456789-0000002"}'], 1),
        ([b"m-0123456789-00000010"], 1),  # the byte behind an id is a digit
        ([b"m-0123456789-0000001"] * 3, 1),
        ([b"m-0123456789-0000009"], 0),
        ([b"m-9999999999-0000001", None, b""], 0),
        ([b"m-0123456789-0000000", b"m-0123456789-0000001"], 2),
    ],
)
def test_rows_are_known_by_content_and_number(values: list[bytes | None], expected: int) -> None:
    rows = pl.DataFrame({"request_id": [f"{PREFIX}{number:07}" for number in range(3)]})
    replayed = ReplayedRows(PREFIX, rows)
    for value in values:
        replayed.take(value)
    assert len(replayed) == expected
