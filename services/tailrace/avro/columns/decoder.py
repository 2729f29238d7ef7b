"""Decodes many Avro bodies of one schema at once, into columns.

What is accepted is exactly what the reference (fastavro) writes: a row with anything else (an overlong number, a
boolean of 5, bytes left over, bytes missing, text that is not UTF-8) is reported as not decoded, and its bytes never
leave this module as values. It is for the caller to ask the reference what is wrong with it. Of fields that are not
read only the form is checked, not whether text is UTF-8.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tailrace.avro.columns import decoder_kernels as kernels
from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.bytes_column import Ints as Ints
from tailrace.avro.columns.bytes_kernels import distinct

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


class Column(NamedTuple):
    """One field of every row.

    ``values`` are float64 for doubles and booleans (NaN where null), int64 for longs (0 where null), and for strings
    `BytesColumn` or another sequence of UTF-8 (``None`` where null); ``present`` says where there is a value, None if
    everywhere.
    """

    values: Any
    present: Mask | None

    def take(self, rows: Ints) -> Column:
        return Column(self.values.take(rows), None if self.present is None else self.present[rows])

    def keys(self) -> Any:
        """Of strings or longs: the canonical texts, as for a record's key; None where null."""
        if not isinstance(self.values, np.ndarray):
            return self.values
        texts = [b"%d" % number for number in self.values.tolist()]
        if self.present is None:
            return texts
        return [text if given else None for text, given in zip(texts, self.present.tolist(), strict=True)]


class Pieces(NamedTuple):
    """Consecutive fields as they are written: the distinct ``values``, and which each row has (-1: not decoded)."""

    values: list[bytes]
    at: Ints


class DecodedColumns(NamedTuple):
    """``columns`` by field, of the ``good`` rows (None: all), others mean nothing; ``pieces`` are those asked for."""

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
        pieces: names of consecutive fields of the record that are the same in many rows, or of one field within a
            record, with a dot between; they are given as bytes, which cost little to tell from others.

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
        fields = [(f["name"], _type(f["type"], f["name"], names)) for f in schema["fields"]]
        inner = pieces[0] if len(pieces) == 1 and "." in pieces[0] else None
        order = [name for name, _ in fields if name in pieces] if inner is None else list(pieces)
        start = next((i for i, (name, _) in enumerate(fields) if name in pieces), 0)
        if order != list(pieces) or (
            inner is None and [name for name, _ in fields[start : start + len(order)]] != order
        ):
            raise ValueError(f"{', '.join(pieces)} do not follow one another in the schema")
        self._header = header
        self._pieces = bool(pieces)
        program = _Program(None if read is None else frozenset(read), inner)
        for name, kind in fields:
            if name in pieces:
                if name == pieces[0]:
                    program.add(kernels.PIECE)
                program.pass_over(kind)
                if name == pieces[-1]:
                    program.add(kernels.PIECE_END)
            else:
                program.field(name, kind)
        self._program = np.array(program.steps, dtype=np.int64).reshape(-1, 4)
        self._columns = program.columns
        self._counts = program.counts

    def decode(self, values: Sequence[bytes] | BytesColumn) -> DecodedColumns:
        """The columns of these values, in their order."""
        spans = values if isinstance(values, BytesColumn) else BytesColumn.of(values)
        rows = len(spans)
        doubles = np.full((self._counts[_DOUBLES], rows), np.nan)
        longs = np.zeros((self._counts[_LONGS], rows), dtype=np.int64)
        begins, ends = np.zeros((2, self._counts[_TEXTS], rows), dtype=np.int64)
        present = np.zeros((len(self._columns), rows), dtype=np.bool_)
        piece_begins, piece_ends = np.zeros((2, rows if self._pieces else 0), dtype=np.int64)
        good = kernels.decode(
            self._program,
            spans.bytes,
            spans.begins,
            spans.ends,
            self._header,
            doubles,
            longs,
            begins,
            ends,
            present,
            piece_begins,
            piece_ends,
        )
        columns = {}
        everywhere: list[bool] = present.all(axis=1).tolist()  # type: ignore[assignment]
        for number, (name, array, where) in enumerate(self._columns):
            mask = None if everywhere[number] else present[number]
            if array == _TEXTS:
                first = begins[where] if mask is None else np.where(mask, begins[where], -1)
                columns[name] = Column(BytesColumn(spans.data, first, ends[where]), mask)
            else:
                columns[name] = Column((doubles if array == _DOUBLES else longs)[where], mask)
        pieces = Pieces([], np.zeros(0, dtype=np.int64))
        if self._pieces:
            at, firsts = distinct(spans.bytes, piece_begins, piece_ends)
            contents = [bytes(spans.data[piece_begins[row] : piece_ends[row]]) for row in firsts.tolist()]
            pieces = Pieces(contents, at)
        return DecodedColumns(columns, None if good.all() else good, pieces)


_DOUBLES, _LONGS, _TEXTS = 0, 1, 2
_SCALARS = {
    "double": (kernels.DOUBLE, _DOUBLES),
    "boolean": (kernels.BOOLEAN, _DOUBLES),
    "long": (kernels.LONG, _LONGS),
    "string": (kernels.TEXT, _TEXTS),
}


class _Program:
    """What a schema comes to for the kernel.

    Attributes:
        steps: the instructions.
        columns: the fields that are read, with their kind of array and the row in it.
        counts: rows of each kind of array.
    """

    def __init__(self, read: frozenset[str] | None, piece: str | None) -> None:
        self._read = read
        self._piece = piece
        self.steps: list[tuple[int, int, int, int]] = []
        self.columns: list[tuple[str, int, int]] = []
        self.counts = [0, 0, 0]

    def add(self, operation: int, where: int = -1, number: int = -1, target: int = -1) -> None:
        self.steps.append((operation, where, number, target))

    def field(self, name: str, kind: _Type) -> None:
        if name == self._piece:
            self.add(kernels.PIECE)
            self.pass_over(kind)
            self.add(kernels.PIECE_END)
            return
        if not self._wanted(name):
            self.pass_over(kind)
            return
        match kind:
            case _Nullable():
                step = self._open(kernels.NULLABLE)
                self.field(name, kind.of)
                self._close(step)
            case _Record():
                for inner, of in kind.fields:
                    self.field(f"{name}.{inner}", of)
            case _Scalar():
                operation, array = _SCALARS[kind.kind]
                self.add(operation, self.counts[array], len(self.columns))
                self.columns.append((name, array, self.counts[array]))
                self.counts[array] += 1
            case _Blocks():
                raise ValueError(f"field {name} is an array or a map, which makes no column")

    def pass_over(self, kind: _Type, depth: int = 0) -> None:
        match kind:
            case _Nullable():
                step = self._open(kernels.NULLABLE)
                self.pass_over(kind.of, depth)
                self._close(step)
            case _Record():
                for _, of in kind.fields:
                    self.pass_over(of, depth)
            case _Scalar():
                self.add(_SCALARS[kind.kind][0])
            case _Blocks():
                if depth == kernels.DEEPEST:
                    raise ValueError("arrays and maps nest too deeply")
                step = self._open(kernels.BLOCKS)
                for of in kind.item:
                    self.pass_over(of, depth + 1)
                self.add(kernels.NEXT, target=step + 1)
                self._close(step)

    def _open(self, operation: int) -> int:
        self.add(operation)
        return len(self.steps) - 1

    def _close(self, step: int) -> None:
        self.steps[step] = (self.steps[step][0], -1, -1, len(self.steps))

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
            types = tuple((f["name"], _type(f["type"], f"{name}.{f['name']}", names)) for f in fields)
            space = schema.get("namespace")
            full_name = schema["name"] if space is None else f"{space}.{schema['name']}"
            names[full_name] = _Record(types)
            return names[full_name]
        case str() if schema in names:
            return names[schema]
    raise ValueError(f"field {name} is of a type that is not read by columns: {schema}")
