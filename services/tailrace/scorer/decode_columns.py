"""Decodes many Avro bodies of one flat schema at once, into columns.

All rows go through the schema together, one field after the other, each row with a position of its own. What
is accepted is exactly what the reference (fastavro) writes: a row with anything else (an overlong number, a
boolean of 5, bytes left over, bytes missing, text that is not UTF-8) is reported as not decoded, and its
bytes never leave this module as values. It is for the caller to ask the reference what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

# Beyond the last row: enough zeros to run on, once through a number, from wherever a broken row points.
_PADDING = 24
_MOST_VARINT = 10


class Column(NamedTuple):
    """One field of every row.

    ``values`` are float64 for doubles and booleans (NaN where null), int64 for longs (0 where null), a list
    of bytes for strings (UTF-8, ``None`` where null); ``present`` says where there is a value, None if
    everywhere.
    """

    values: Any
    present: Mask | None

    def take(self, rows: Ints) -> Column:
        present = None if self.present is None else self.present[rows]
        if isinstance(self.values, list):
            return Column([self.values[row] for row in rows.tolist()], present)
        return Column(self.values[rows], present)


class Decoded(NamedTuple):
    """``columns`` by field, and ``good``: which rows they are of (None if all). Other rows hold nothing of
    meaning.
    """

    columns: dict[str, Column]
    good: Mask | None


@dataclass(frozen=True)
class _Field:
    name: str
    kind: str


class ColumnDecoder:
    """Decodes bodies of one schema: a record whose fields are each ``["null", double | long | boolean |
    string]``.

    Args:
        schema: the Avro schema.
        header: how many bytes stand before the body in each value.

    Raises:
        ValueError: the schema has a field of another type.
    """

    def __init__(self, schema: dict[str, Any], header: int = 5) -> None:
        self._fields = [_Field(field["name"], _kind(field)) for field in schema["fields"]]
        self._header = header

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """The columns of these values, in their order."""
        cursor = _Cursor(values, self._header)
        columns: dict[str, Column] = {}
        for field in self._fields:
            columns[field.name] = getattr(cursor, field.kind)(cursor.branch())
        return Decoded(columns, cursor.finish())


def _kind(field: dict[str, Any]) -> str:
    match field["type"]:
        case ["null", {"type": "long"}]:
            return "long"
        case ["null", ("double" | "long" | "boolean" | "string") as kind]:
            return str(kind)
    raise ValueError(f"field {field['name']} is no nullable number, boolean or text: {field['type']}")


class _Cursor:
    """Where each row has been read to."""

    def __init__(self, values: Sequence[bytes], header: int) -> None:
        self._data = b"".join(values)
        self._bytes = np.frombuffer(self._data + bytes(_PADDING), dtype=np.uint8)
        self._eights = np.lib.stride_tricks.sliding_window_view(self._bytes, 8)
        self._ends = np.fromiter(map(len, values), dtype=np.int64, count=len(values)).cumsum()
        starts = np.concatenate(([0], self._ends[:-1]))
        self._at = np.minimum(starts + header, self._ends)
        self._bad = starts + header > self._ends

    def branch(self) -> Mask | None:
        """Reads which branch of ``["null", T]`` each row takes: where it is T, None if everywhere."""
        branch = self._bytes[self._at]
        self._at += 1
        present: Mask = branch == 2
        if present.all():
            return None
        self._fail(~present & (branch != 0))
        return present

    def double(self, present: Mask | None) -> Column:
        at = self._at if present is None else self._at[present]
        found = self._eights[at].view("<f8").ravel().astype(np.float64, copy=False)
        self._advance(8, present)
        return Column(_spread(found, present, np.nan), present)

    def boolean(self, present: Mask | None) -> Column:
        at = self._at if present is None else self._at[present]
        found = self._bytes[at]
        self._fail(found > 1, present)
        self._advance(1, present)
        return Column(_spread(found.astype(np.float64), present, np.nan), present)

    def long(self, present: Mask | None) -> Column:
        return Column(_spread(self._varint(present), present, 0), present)

    def string(self, present: Mask | None) -> Column:
        length = self._varint(present)
        begin = self._at.copy() if present is None else self._at[present]
        ends = self._ends if present is None else self._ends[present]
        wrong = (length < 0) | (length > ends - begin)
        self._fail(wrong, present)
        length = np.where(wrong, 0, length)
        stop = begin + length
        self._advance(length, present)
        data = self._data
        found = [data[a:b] for a, b in zip(begin.tolist(), stop.tolist(), strict=True)]
        if not b"".join(found).isascii():
            self._fail(np.array([not _is_utf8(text) for text in found], dtype=np.bool_), present)
        if present is None:
            return Column(found, None)
        some = iter(found)
        return Column([next(some) if there else None for there in present.tolist()], present)

    def finish(self) -> Mask | None:
        self._bad |= self._at != self._ends
        return ~self._bad if self._bad.any() else None

    def _advance(self, by: Any, present: Mask | None) -> None:
        if present is None:
            self._at += by
        else:
            self._at[present] += by
        # A row that points behind itself is broken; it goes on over the last row's end, where nothing is.
        over = self._at > self._ends
        if over.any():
            self._fail(over)

    def _fail(self, rows: Mask, present: Mask | None = None) -> None:
        if not rows.any():
            return
        if present is not None:
            rows, some = np.zeros(len(self._at), dtype=np.bool_), rows
            rows[present] = some
        self._bad |= rows
        self._at[rows] = self._ends[-1]

    def _varint(self, present: Mask | None) -> Ints:
        """Zig-zag numbers of variable length, at most ten bytes, none longer than it need be."""
        at = (self._at if present is None else self._at[present]).copy()
        found = np.zeros(len(at), dtype=np.uint64)
        wrong = np.zeros(len(at), dtype=np.bool_)
        rows: Any = slice(None)
        for shift in range(0, 7 * _MOST_VARINT, 7):
            byte = self._bytes[at[rows]]
            found[rows] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            at[rows] += 1
            more = byte >= 0x80
            if shift:
                wrong[rows] |= byte == 0  # overlong
            if shift == 7 * (_MOST_VARINT - 1):
                wrong[rows] |= byte > 1  # beyond 64 bits
            if not more.any():
                break
            if not more.all():
                rows = np.flatnonzero(more) if isinstance(rows, slice) else rows[more]
        if present is None:
            self._at = at
        else:
            self._at[present] = at
        if wrong.any():
            self._fail(wrong, present)
        over = self._at > self._ends
        if over.any():
            self._fail(over)
        # The failed rows' numbers mean nothing; they must only do no harm.
        decoded: Ints = (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64)
        return decoded


def _spread(found: NDArray[Any], present: Mask | None, otherwise: float) -> NDArray[Any]:
    if present is None:
        return found
    spread = np.full(len(present), otherwise, dtype=found.dtype)
    spread[present] = found
    return spread


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
