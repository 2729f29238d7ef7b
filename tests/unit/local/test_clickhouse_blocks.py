"""ClickHouse's own compressed blocks, against those of other programs."""

from __future__ import annotations

import struct

import pytest
from backports import zstd

from tailrace.local.clickhouse_blocks import LARGEST, NONE, ZSTD, BlockReader, checksum, compress
from tailrace.local.clickhouse_errors import EngineError

GOLD = bytes.fromhex(
    # Of clickhouse-go 2.51.0 (ch-go 0.75.0): LZ4 of b"tailrace" * 4.
    "6626555e41f1374d95e36ae57cb1dfe7"
    "822700000020000000807461696c726163650800000800000800c0726163657461696c72616365"
)


def packed(method: int, data: bytes, size: int) -> bytes:
    block = struct.pack("<BII", method, 9 + len(data), size) + data
    return checksum(block) + block


@pytest.mark.parametrize("step", [1, 3, 17, 1 << 20])
def test_blocks_come_out_however_they_are_cut(step: int) -> None:
    plain = [b"", b"x", b"tailrace" * 10_000, bytes(range(256)) * 5]
    body = b"".join(map(compress, plain))
    body += packed(ZSTD, zstd.compress(b"z" * 9_000), 9_000) + packed(NONE, b"as it is", 8)
    reader = BlockReader()
    read = b"".join(block for at in range(0, len(body), step) for block in reader(body[at : at + step]))
    reader.end()
    assert read == b"".join(plain) + b"z" * 9_000 + b"as it is"


def test_blocks_of_another_program() -> None:
    assert list(BlockReader()(GOLD)) == [b"tailrace" * 4]
    assert checksum(GOLD[16:]) == GOLD[:16]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\0" + compress(b"abc")[1:], 40),
        (compress(b"abc")[:-1] + b"\0", 40),
        (packed(0x91, b"abc", 3), 89),
        (packed(ZSTD, zstd.compress(bytes(1 << 20)), 100), 271),
        (packed(ZSTD, zstd.compress(b"abc"), 4), 271),
        (packed(ZSTD, b"no zstd", 4), 271),
        (packed(0x82, b"\xff\xff\xff", 4), 271),
        (packed(NONE, b"abc", 4), 271),
        (packed(0x82, b"abc", LARGEST + 1), 39),
        (bytes(16) + struct.pack("<BII", 0x82, LARGEST + 1, 10), 39),
        (bytes(16) + struct.pack("<BII", 0x82, 8, 10), 39),
    ],
)
def test_what_is_wrong_is_an_error_of_its_own(body: bytes, code: int) -> None:
    with pytest.raises(EngineError) as failed:
        list(BlockReader()(body))
    assert failed.value.code == code


def test_half_a_block_is_an_error() -> None:
    reader = BlockReader()
    assert list(reader(compress(b"abc")[:-1])) == []
    with pytest.raises(EngineError) as failed:
        reader.end()
    assert failed.value.code == 33
