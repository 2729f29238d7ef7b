"""Decodes many Avro bodies of one schema at once, into columns.

All rows go through the schema together, one field after the other, each row with a position of its own. What
is accepted is exactly what the reference (fastavro) writes: a row with anything else (an overlong number, a
boolean of 5, bytes left over, bytes missing, text that is not UTF-8) is reported as not decoded, and its
bytes never leave this module as values. It is for the caller to ask the reference what is wrong with it. Of
fields that are not read only the form is checked, not whether text is UTF-8.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = Ints | None
"""Some of the rows, in ascending order; None is all of them."""

# Beyond the last row: enough zeros to run on, once through a number, from wherever a broken row points.
_PADDING = 24
_MOST_VARINT = 10
_KNOWN_PIECES = 8


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


class Pieces(NamedTuple):
    """Consecutive fields of every row as they are written: the distinct ``values``, and which of them each row has
    (-1 where it is not decoded)."""

    values: list[bytes]
    at: Ints


class Decoded(NamedTuple):
    """``columns`` by field, and ``good``: which rows they are of (None if all). Other rows hold nothing of
    meaning. ``pieces`` are those asked for.
    """

    columns: dict[str, Column]
    good: Mask | None
    pieces: Pieces


@dataclass(frozen=True)
class _Scalar:
    kind: str


@dataclass(frozen=True)
class _Nullable:
    of: _Type


@dataclass(frozen=True)
class _Record:
    fields: tuple[tuple[str, _Type], ...]


@dataclass(frozen=True)
class _Blocks:
    """An array or a map: so many items, each of these types one after the other."""

    item: tuple[_Type, ...]


_Type: TypeAlias = _Scalar | _Nullable | _Record | _Blocks


class ColumnDecoder:
    """Decodes bodies of one schema: a record of numbers, booleans and texts, nullable or not, and of records,
    arrays and maps of such.

    Args:
        schema: the Avro schema.
        header: how many bytes stand before the body in each value.
        read: names of the fields that are wanted, those within records with a dot between; None for all.
            Fields that the schema does not have are left out.
        pieces: names of consecutive fields of the record that are the same in many rows; they are given as
            bytes, which cost little to tell from others.

    Raises:
        ValueError: the schema has a field of another type, or an array or a map is wanted.
    """

    def __init__(
        self,
        schema: dict[str, Any],
        header: int = 5,
        *,
        read: Collection[str] | None = None,
        pieces: Sequence[str] = (),
    ) -> None:
        names: dict[str, _Type] = {}
        self._fields = tuple((f["name"], _type(f["type"], f["name"], names)) for f in schema["fields"])
        self._header = header
        self._read = None if read is None else frozenset(read)
        self._known: dict[bytes, None] = {}
        self._pieces = frozenset(pieces)
        order = [name for name, _ in self._fields if name in self._pieces]
        start = next((i for i, (name, _) in enumerate(self._fields) if name in self._pieces), 0)
        if order != list(pieces) or [name for name, _ in self._fields[start : start + len(order)]] != order:
            raise ValueError(f"{', '.join(pieces)} do not follow one another in the schema")
        for name, kind in self._fields:
            if self._read is None and name not in self._pieces:
                _refuse_blocks(name, kind)

    def decode(self, values: Sequence[bytes]) -> Decoded:
        """The columns of these values, in their order."""
        cursor = _Cursor(values, self._header)
        columns: dict[str, Column] = {}
        pieces = Pieces([], np.zeros(0, dtype=np.int64))
        at = 0
        while at < len(self._fields):
            name, kind = self._fields[at]
            if name in self._pieces:
                run = tuple(kind for name, kind in self._fields[at : at + len(self._pieces)])
                pieces = cursor.piece(run, self._known)
                at += len(run)
            else:
                self._field(cursor, name, kind, None, columns)
                at += 1
        good = cursor.finish()
        if good is not None and len(pieces.at):
            pieces.at[~good] = -1
        return Decoded(columns, good, pieces)

    def _field(self, cursor: _Cursor, name: str, kind: _Type, rows: Rows, columns: dict[str, Column]) -> None:
        if not self._wanted(name):
            cursor.skip(kind, rows)
            return
        match kind:
            case _Nullable():
                self._field(cursor, name, kind.of, cursor.branch(rows), columns)
            case _Record():
                for inner, of in kind.fields:
                    self._field(cursor, f"{name}.{inner}", of, rows, columns)
            case _Scalar():
                columns[name] = cursor.column(kind.kind, rows)
            case _Blocks():
                _refuse_blocks(name, kind)

    def _wanted(self, name: str) -> bool:
        if self._read is None or name in self._read:
            return True
        return any(wanted.startswith(f"{name}.") for wanted in self._read)


def _type(schema: Any, name: str, names: dict[str, _Type]) -> _Type:
    match schema:
        case "long" | "int" | {"type": "long" | "int"}:
            return _Scalar("long")
        case "double" | "boolean" | "string":
            return _Scalar(schema)
        case ["null", of]:
            return _Nullable(_type(of, name, names))
        case {"type": "map", "values": of}:
            return _Blocks((_Scalar("string"), _type(of, name, names)))
        case {"type": "array", "items": of}:
            return _Blocks((_type(of, name, names),))
        case {"type": "record", "fields": fields}:
            found = _Record(
                tuple((f["name"], _type(f["type"], f"{name}.{f['name']}", names)) for f in fields)
            )
            space = schema.get("namespace")
            names[schema["name"] if space is None else f"{space}.{schema['name']}"] = found
            return found
        case str() if schema in names:
            return names[schema]
    raise ValueError(f"field {name} is of a type that is not read by columns: {schema}")


def _refuse_blocks(name: str, kind: _Type) -> None:
    match kind:
        case _Nullable():
            _refuse_blocks(name, kind.of)
        case _Record():
            for inner, of in kind.fields:
                _refuse_blocks(f"{name}.{inner}", of)
        case _Blocks():
            raise ValueError(f"field {name} is an array or a map, which makes no column")


class _Cursor:
    """Where each row has been read to."""

    def __init__(self, values: Sequence[bytes], header: int) -> None:
        self._data = b"".join((*values, bytes(_PADDING)))
        self._bytes = np.frombuffer(self._data, dtype=np.uint8)
        self._eights = np.lib.stride_tricks.sliding_window_view(self._bytes, 8)
        self._ends = np.fromiter(map(len, values), dtype=np.int64, count=len(values)).cumsum()
        starts = np.concatenate(([0], self._ends[:-1]))
        self._at = np.minimum(starts + header, self._ends)
        self._bad = starts + header > self._ends

    # What is wanted ---

    def branch(self, rows: Rows) -> Rows:
        """Reads which branch of ``["null", T]`` each row takes; gives the rows where it is T."""
        branch = self._bytes[self._positions(rows)]
        self._advance(1, rows)
        present = branch == 2
        if present.all():
            return rows
        self._fail(~present & (branch != 0), rows)
        some: Ints = np.flatnonzero(present) if rows is None else rows[present]
        return some

    def column(self, kind: str, rows: Rows) -> Column:
        present = None
        if rows is not None:
            present = np.zeros(len(self._at), dtype=np.bool_)
            present[rows] = True
        match kind:
            case "string":
                found = self._texts(rows)
                if rows is None:
                    return Column(found, None)
                spread: list[bytes | None] = [None] * len(self._at)
                for row, text in zip(rows.tolist(), found, strict=True):
                    spread[row] = text
                return Column(spread, present)
            case "double":
                values: NDArray[Any] = self._eights[self._positions(rows)].view("<f8").ravel()
                values = values.astype(np.float64, copy=False)
                self._advance(8, rows)
            case "boolean":
                found_bytes = self._bytes[self._positions(rows)]
                self._fail(found_bytes > 1, rows)
                self._advance(1, rows)
                values = found_bytes.astype(np.float64)
            case _:
                values = self._varint(rows)
        if rows is None:
            return Column(values, None)
        all_values = np.full(len(self._at), 0 if kind == "long" else np.nan, dtype=values.dtype)
        all_values[rows] = values
        return Column(all_values, present)

    def piece(self, kinds: Sequence[_Type], known: dict[bytes, None]) -> Pieces:
        """Consecutive fields as bytes. ``known`` are pieces that were found before, and is added to."""
        begin = self._at.copy()
        starts = begin.tolist()
        at = np.full(len(starts), -1, dtype=np.int64)
        found: list[bytes] = []
        left = list(range(len(starts)))
        for piece in reversed(list(known)):
            same = [row for row in left if self._data.startswith(piece, starts[row])]
            if same:
                known[piece] = known.pop(piece)  # the last used are tried first
                rows = np.array(same, dtype=np.int64)
                at[rows] = len(found)
                found.append(piece)
                self._advance(len(piece), rows)
                left = [row for row in left if at[row] < 0]
            if not left:
                return Pieces(found, at)
        rows = np.array(left, dtype=np.int64)
        for kind in kinds:
            self.skip(kind, rows)
        numbers: dict[bytes, int] = {}
        for row in rows[~self._bad[rows]].tolist():
            piece = self._data[starts[row] : self._at[row]]
            number = numbers.get(piece)
            if number is None:
                number = numbers[piece] = len(found)
                found.append(piece)
                known[piece] = None
            at[row] = number
        while len(known) > _KNOWN_PIECES:
            del known[next(iter(known))]
        return Pieces(found, at)

    def finish(self) -> Mask | None:
        self._bad |= self._at != self._ends
        return ~self._bad if self._bad.any() else None

    # What is not ---

    def skip(self, kind: _Type, rows: Rows) -> None:
        match kind:
            case _Nullable():
                some = self.branch(rows)
                if some is None or len(some):
                    self.skip(kind.of, some)
            case _Record():
                for _, of in kind.fields:
                    self.skip(of, rows)
            case _Blocks():
                self._skip_blocks(kind.item, rows)
            case _Scalar("string"):
                self._text_spans(rows)
            case _Scalar("double"):
                self._advance(8, rows)
            case _Scalar("boolean"):
                self._fail(self._bytes[self._positions(rows)] > 1, rows)
                self._advance(1, rows)
            case _Scalar():
                self._varint(rows)

    def _skip_blocks(self, item: Sequence[_Type], rows: Rows) -> None:
        count = self._varint(rows)
        some = count != 0
        if not some.any():
            return
        rows = np.flatnonzero(some) if rows is None else rows[some]
        count = count[some]
        # Every item takes a byte at least, so that no number makes this long. Fewer than none: a form that
        # the reference does not write.
        wrong = (count < 0) | (count > self._ends[rows] - self._at[rows])
        self._fail(wrong, rows)
        rows, count = rows[~wrong], count[~wrong]
        while len(rows):
            for kind in item:
                self.skip(kind, rows)
            count -= 1
            done = count == 0
            if done.any():
                ended = rows[done]
                self._fail(self._varint(ended) != 0, ended)
            on = ~done & ~self._bad[rows]
            rows, count = rows[on], count[on]

    # Bytes ---

    def _positions(self, rows: Rows) -> Ints:
        positions: Ints = self._at if rows is None else self._at[rows]
        return positions

    def _texts(self, rows: Rows) -> list[bytes]:
        begin, stop = self._text_spans(rows)
        data = self._data
        found = [data[a:b] for a, b in zip(begin.tolist(), stop.tolist(), strict=True)]
        if not b"".join(found).isascii():
            self._fail(np.array([not _is_utf8(text) for text in found], dtype=np.bool_), rows)
        return found

    def _text_spans(self, rows: Rows) -> tuple[Ints, Ints]:
        length = self._varint(rows)
        begin = self._positions(rows).copy()
        ends = self._ends if rows is None else self._ends[rows]
        wrong = (length < 0) | (length > ends - begin)
        self._fail(wrong, rows)
        length = np.where(wrong, 0, length)
        self._advance(length, rows)
        return begin, begin + length

    def _advance(self, by: Any, rows: Rows) -> None:
        if rows is None:
            self._at += by
        else:
            self._at[rows] += by
        # A row that points behind itself is broken; it goes on over the last row's end, where nothing is.
        over = self._at > self._ends
        if over.any():
            self._fail(over)

    def _fail(self, wrong: Mask, rows: Rows = None) -> None:
        if not wrong.any():
            return
        failed = np.flatnonzero(wrong) if rows is None else rows[wrong]
        self._bad[failed] = True
        self._at[failed] = self._ends[-1]

    def _varint(self, rows: Rows) -> Ints:
        """Zig-zag numbers of variable length, at most ten bytes, none longer than it need be."""
        at = self._positions(rows).copy()
        found = np.zeros(len(at), dtype=np.uint64)
        wrong = np.zeros(len(at), dtype=np.bool_)
        some: Any = slice(None)
        for shift in range(0, 7 * _MOST_VARINT, 7):
            byte = self._bytes[at[some]]
            found[some] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            at[some] += 1
            more = byte >= 0x80
            if shift:
                wrong[some] |= byte == 0  # overlong
            if shift == 7 * (_MOST_VARINT - 1):
                wrong[some] |= byte > 1  # beyond 64 bits
            if not more.any():
                break
            if not more.all():
                some = np.flatnonzero(more) if isinstance(some, slice) else some[more]
        if rows is None:
            self._at = at
        else:
            self._at[rows] = at
        self._fail(wrong, rows)
        over = self._at > self._ends
        if over.any():
            self._fail(over)
        # The failed rows' numbers mean nothing; they must only do no harm.
        decoded: Ints = (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64)
        return decoded


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
