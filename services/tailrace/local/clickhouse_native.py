"""The Native format as a client wants it that says its ``client_protocol_version``.

The embedded engine writes Native as for a client without a version. Such a client wants, from version 1 on, each
block's information before the block; and from 54454 on, behind each column's type, a byte that says how the column is
serialized. To put it there one has to know where a column ends, which its type says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, Protocol

SERIALIZATION_FROM = 54454
"""The first version with a byte for the serialization; 0 is the ordinary one."""

_INFORMATION = b"\x01\x00\x02\xff\xff\xff\xff\x00"
"""No overflow, and of no bucket."""


class UnknownType(Exception):
    """A type of which the end of a column is not known."""


def versioned(blocks: bytes, version: int, is_one: bool) -> bytes:
    """Blocks as the engine wrote them, in the form for a client of this version (1 or more).

    Args:
        is_one: that it is one block is known.

    Raises:
        UnknownType: a column of it has such a type.
    """
    if is_one and version < SERIALIZATION_FROM:
        return _INFORMATION + blocks
    reader, out = _Reader(blocks), list[bytes]()
    while reader.place < len(blocks):
        out += _block(reader, version, is_one)
    return b"".join(out)


def _block(reader: _Reader, version: int, is_one: bool) -> Iterator[bytes]:
    yield _INFORMATION
    start = reader.place
    columns, rows = reader.number(), reader.number()
    for column in range(columns):
        reader.skip(reader.number())
        kind = reader.text()
        yield reader.data[start : reader.place]
        if version >= SERIALIZATION_FROM:
            yield b"\0"
        start = reader.place
        if is_one and column == columns - 1:
            reader.place = len(reader.data)
        elif rows:
            values = values_of(kind)
            values.prefix(reader)
            values.skip(reader, rows)
    yield reader.data[start : reader.place]


class _Reader:
    """Goes through what the engine wrote.

    Raises:
        UnknownType: it is at an end too early; the types are not what they seem to be.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def skip(self, size: int) -> None:
        self.place += size
        if self.place > len(self.data):
            raise UnknownType("a column that is longer than its block")

    def number(self) -> int:
        """Seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            at = self.place
            self.skip(1)
            byte = self.data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def word(self) -> int:
        """Eight bytes."""
        start = self.place
        self.skip(8)
        return int.from_bytes(self.data[start : self.place], "little")

    def text(self) -> str:
        size = self.number()
        start = self.place
        self.skip(size)
        return self.data[start : self.place].decode(errors="replace")

    def skip_texts(self, count: int) -> None:
        data, place = self.data, self.place
        try:
            for _ in range(count):
                size = data[place]
                if size < 0x80:
                    place += size + 1
                else:
                    self.place = place
                    size = self.number()
                    place = self.place + size
        except IndexError:
            raise UnknownType("a text that is longer than its block") from None
        self.place = place
        self.skip(0)


class _Values(Protocol):
    """How values of a type lie in a block: what comes once before them, and they."""

    def prefix(self, reader: _Reader) -> None: ...
    def skip(self, reader: _Reader, rows: int) -> None: ...


class _Fixed(NamedTuple):
    size: int

    def prefix(self, reader: _Reader) -> None: ...

    def skip(self, reader: _Reader, rows: int) -> None:
        reader.skip(self.size * rows)


class _Texts:
    def prefix(self, reader: _Reader) -> None: ...

    def skip(self, reader: _Reader, rows: int) -> None:
        reader.skip_texts(rows)


class _Nullable(NamedTuple):
    """A byte a row that says whether it is null, then the rows."""

    inner: _Values

    def prefix(self, reader: _Reader) -> None:
        self.inner.prefix(reader)

    def skip(self, reader: _Reader, rows: int) -> None:
        reader.skip(rows)
        self.inner.skip(reader, rows)


class _Array(NamedTuple):
    """Where each row's elements end, then the elements."""

    inner: _Values

    def prefix(self, reader: _Reader) -> None:
        self.inner.prefix(reader)

    def skip(self, reader: _Reader, rows: int) -> None:
        elements = 0
        if rows:
            reader.skip(8 * (rows - 1))
            elements = reader.word()
        self.inner.skip(reader, elements)


class _Tuple(NamedTuple):
    inner: tuple[_Values, ...]

    def prefix(self, reader: _Reader) -> None:
        for values in self.inner:
            values.prefix(reader)

    def skip(self, reader: _Reader, rows: int) -> None:
        for values in self.inner:
            values.skip(reader, rows)


class _LowCardinality(NamedTuple):
    """A dictionary of the values that are there, then each row's place in it."""

    inner: _Values

    def prefix(self, reader: _Reader) -> None:
        reader.skip(8)

    def skip(self, reader: _Reader, rows: int) -> None:
        if not rows:
            return
        index_size = 1 << (reader.word() & 0xFF)
        self.inner.skip(reader, reader.word())
        reader.skip(reader.word() * index_size)


class _Variant(NamedTuple):
    """A byte a row that says which type it is of, then the rows of each type."""

    inner: tuple[_Values, ...]

    def prefix(self, reader: _Reader) -> None:
        if reader.word() != 0:
            raise UnknownType("a Variant in compact form")
        _Tuple(self.inner).prefix(reader)

    def skip(self, reader: _Reader, rows: int) -> None:
        start = reader.place
        reader.skip(rows)
        kinds = reader.data[start : reader.place]
        for number, values in enumerate(self.inner):
            values.skip(reader, kinds.count(number))


_SIZES = {
    **{f"{sign}Int{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256)},
    "BFloat16": 2,
    "Float32": 4,
    "Float64": 8,
    "Bool": 1,
    "Enum8": 1,
    "Enum16": 2,
    "Date": 2,
    "Date32": 4,
    "DateTime": 4,
    "DateTime64": 8,
    "Time": 4,
    "Time64": 8,
    "UUID": 16,
    "IPv4": 4,
    "IPv6": 16,
    "Nothing": 1,
}
_POINT = "Tuple(Float64, Float64)"
_ALIASES = {
    "Point": _POINT,
    **dict.fromkeys(("Ring", "LineString"), f"Array({_POINT})"),
    **dict.fromkeys(("Polygon", "MultiLineString"), f"Array(Array({_POINT}))"),
    "MultiPolygon": f"Array(Array(Array({_POINT})))",
}
_TYPE = re.compile(r"(\w+)(?:\((.*)\))?", re.DOTALL)
_PART = re.compile(r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|.", re.DOTALL)
_NAMED = re.compile(r"(?:\w+|`(?:[^`\\]|\\.|``)*`) (?=\w)")


@cache
def values_of(kind: str) -> _Values:
    """
    Raises:
        UnknownType: its values may end anywhere.
    """
    named = _TYPE.fullmatch(_ALIASES.get(kind, kind))
    if named is None:
        raise UnknownType(kind)
    name, inside = named[1], named[2] or ""
    if name in _SIZES:
        return _Fixed(_SIZES[name])
    if name.startswith("Interval"):
        return _Fixed(8)
    if name in _MADE:
        return _MADE[name](parts_of(inside))
    raise UnknownType(kind)


def parts_of(inside: str) -> list[str]:
    """The parts of a list of types, between commas that stand in no bracket and no quotes."""
    parts, depth = [""], 0
    for part in _PART.findall(inside):
        depth += (part == "(") - (part == ")")
        if part == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += part
    return [part.strip() for part in parts if part.strip()]


def _decimal(parts: Sequence[str]) -> _Values:
    digits = int(parts[0])
    return _Fixed(next(size for size, most in ((4, 9), (8, 18), (16, 38), (32, 76)) if digits <= most))


def _tuple(parts: Sequence[str]) -> _Values:
    # A tuple of nothing is a byte a row.
    return _Tuple(tuple(values_of(_NAMED.sub("", part, count=1)) for part in parts)) if parts else _Fixed(1)


_MADE: dict[str, Callable[[Sequence[str]], _Values]] = {
    "String": lambda parts: _Texts(),
    "FixedString": lambda parts: _Fixed(int(parts[0])),
    "Decimal": _decimal,
    "Nullable": lambda parts: _Nullable(values_of(parts[0])),
    "Array": lambda parts: _Array(values_of(parts[0])),
    "Nested": lambda parts: _Array(_tuple(parts)),
    "Map": lambda parts: _Array(_tuple(parts)),
    "Tuple": _tuple,
    "LowCardinality": lambda parts: _LowCardinality(
        values_of(parts[0].removeprefix("Nullable(").removesuffix(")"))
        if parts[0].startswith("Nullable(")
        else values_of(parts[0])
    ),
    "Variant": lambda parts: _Variant(tuple(map(values_of, parts))),
    "SimpleAggregateFunction": lambda parts: values_of(parts[-1]),
}
