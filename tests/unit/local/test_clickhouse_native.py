"""Native with block information: the end of each column is found, whatever it holds."""

from __future__ import annotations

import struct

import pytest

from tailrace.local.clickhouse_native import UnknownType, values_of, versioned

INFORMATION = bytes.fromhex("01 00 02 ff ff ff ff 00")
LAST = b"\x01z\x05UInt8\xff"
WORD = struct.Struct("<Q").pack

# One row each, as chdb 4.4 writes it: the type, and the bytes behind it.
COLUMNS = {
    "UInt8": b"\x01",
    "Decimal(76, 2)": b"d" + bytes(31),
    "DateTime64(3, 'UTC')": WORD(7),
    "Enum8('a, (' = 1, 'it\\'s' = 2)": b"\x01",
    "FixedString(3)": b"ab\0",
    "Nullable(String)": b"\0\x01x",
    "Array(LowCardinality(String))": WORD(1) + WORD(0),
    "Array(Array(UInt8))": WORD(2) + WORD(1) + WORD(3) + b"\x01\x02\x03",
    "Map(LowCardinality(String), Nullable(Float64))": (
        WORD(1)
        + WORD(1)
        + WORD(0x600)
        + WORD(2)
        + b"\0\x01k"
        + WORD(1)
        + b"\x01"
        + b"\0"
        + struct.pack("<d", 1.5)
    ),
    "LowCardinality(Nullable(String))": WORD(1) + WORD(0x600) + WORD(3) + b"\0\0\x01x" + WORD(1) + b"\x02",
    "Array(Tuple(f String, x Nullable(Float64)))": WORD(1) + b"\x01a" + b"\x01" + bytes(8),
    "Tuple()": b"0",
    "Nullable(Nothing)": b"\x010",
    "Point": bytes(16),
    "Polygon": WORD(1) + WORD(2) + bytes(32),
    "Variant(Int8, String)": WORD(0) + b"\x01" + b"\x02ab",
    "SimpleAggregateFunction(sum, Decimal(18, 4))": WORD(1),
    "IntervalDay": WORD(1),
}


def column(name: bytes, kind: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([len(kind)]) + kind


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_byte_stands_behind_each_type(kind: str) -> None:
    head, data = column(b"c", kind.encode()), COLUMNS[kind]
    block = b"\x02\x01" + head + data + LAST
    expected = INFORMATION + b"\x02\x01" + head + b"\0" + data + LAST[:-1] + b"\0" + LAST[-1:]
    assert versioned(block, 54454, is_one=True) == expected
    assert versioned(block, 54454, is_one=False) == expected
    assert versioned(block + block, 54460, is_one=False) == expected * 2
    assert versioned(block + block, 54453, is_one=False) == (INFORMATION + block) * 2


def test_a_block_without_rows_has_no_data() -> None:
    head = column(b"c", b"LowCardinality(String)")
    assert versioned(b"\x01\0" + head, 54460, is_one=False) == INFORMATION + b"\x01\0" + head + b"\0"


def test_long_texts() -> None:
    head = column(b"c", b"String")
    data = b"\xac\x02" + b"x" * 300 + b"\x7f" + b"y" * 127
    block = b"\x02\x02" + head + data + LAST + b"\xff"
    assert versioned(block, 54460, is_one=False).count(b"\x05UInt8\0\xff\xff") == 1


@pytest.mark.parametrize(
    "kind", ["AggregateFunction(uniq, UInt8)", "JSON", "Dynamic", "QBit(Float32, 2)", "", "New()"]
)
def test_what_may_end_anywhere_is_refused_but_as_the_last_column(kind: str) -> None:
    with pytest.raises(UnknownType):
        values_of(kind)
    head = column(b"c", kind.encode())
    with pytest.raises(UnknownType):
        versioned(b"\x02\x01" + head + b"abc" + LAST, 54460, is_one=True)
    assert versioned(b"\x01\x01" + head + b"abc", 54460, is_one=True).endswith(kind.encode() + b"\0abc")


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_block_that_is_cut_off_is_an_error(cut: int) -> None:
    block = b"\x02\x01" + column(b"c", b"Nullable(String)") + b"\0\x01x" + column(b"z", b"UInt8") + b"\xff"
    with pytest.raises(UnknownType):
        versioned(block[:-cut], 54460, is_one=False)
