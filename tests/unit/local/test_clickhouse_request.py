"""What a request to the local ClickHouse holds: files of a form, and bodies as they were before they were packed."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
import pytest
from backports import zstd
from starlette.requests import Request

from tailrace.local.clickhouse_bodies import unpacked
from tailrace.local.clickhouse_errors import EngineError
from tailrace.local.clickhouse_request import read

PACKED: dict[str, tuple[Callable[[bytes], Any], int]] = {
    "gzip": (gzip.compress, 354),
    "deflate": (zlib.compress, 354),
    "lz4": (lz4.frame.compress, 618),
    "zstd": (zstd.compress, 561),
}
"""By HTTP's name: what packs, and ClickHouse's code for a body that is not packed so."""


def request(pieces: Sequence[bytes], headers: dict[str, str], query: bytes = b"") -> Request:
    waiting = list(pieces)

    async def receive() -> Any:
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": lines, "query_string": query}, receive)


def body(pieces: Sequence[bytes], encoding: str) -> bytes:
    async def read_all() -> bytes:
        asked = request(pieces, {"content-encoding": encoding})
        return b"".join([piece async for piece in unpacked(asked, has_blocks=False)])

    return asyncio.run(read_all())


@pytest.mark.parametrize("encoding", PACKED)
def test_a_body_of_several_frames_is_read_however_it_is_cut(encoding: str) -> None:
    pack, _ = PACKED[encoding]
    packed = pack(b"one,") + pack(b"two")
    for size in (1, 7, len(packed)):
        pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
        assert body(pieces, encoding) == b"one,two"
    assert body([], encoding) == b""


@pytest.mark.parametrize("encoding", PACKED)
def test_a_body_that_ends_too_early_is_refused(encoding: str) -> None:
    pack, code = PACKED[encoding]
    for pieces in ([pack(b"rows" * 1000)[:-1]], [pack(b"rows"), pack(b"more rows")[:-3]]):
        with pytest.raises(EngineError) as refused:
            body(pieces, encoding)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("types", "structure"),
    [
        ("UInt8", "_1 UInt8"),
        ("Decimal(10, 2),String", "_1 Decimal(10, 2), _2 String"),
        ("Map(String, Array(UInt8)), Date", "_1 Map(String, Array(UInt8)), _2 Date"),
        ("Enum8('a, (' = 1),String", "_1 Enum8('a, (' = 1), _2 String"),
    ],
)
def test_columns_of_external_data_are_told_by_their_types(types: str, structure: str) -> None:
    parts = [
        ('name="t"; filename="t.tsv"', "1\\t2\n"),
        ('name="t_types"', types),
        ('name="query"', "SELECT 1"),
    ]
    lines = [f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}\r\n" for head, text in parts]
    form = "".join([*lines, "--x--\r\n"]).encode()
    asked = asyncio.run(read(request([form], {"content-type": "multipart/form-data; boundary=x"})))
    assert [(table.name, table.structure) for table in asked.tables] == [("t", structure)]
    assert asked.parameters == {"query": "SELECT 1"}
