"""Rows of bytes put together from pieces, all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.avro.columns.bytes_column import BytesColumn, Data
from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.splice_kernels import (
    MOST_DECIMALS,
    MOST_VARINT,
    splice,
    write_decimals,
    write_longs,
)

Matrix = NDArray[np.uint8]


class Splice:
    """``rows`` rows, to which pieces are added one after the other."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._buffers: list[Data] = []
        self._places: dict[int, int] = {}
        self._size = 0
        self._pieces: list[tuple[Ints | int, Ints | int]] = []

    def same(self, data: bytes) -> None:
        """The same bytes in every row."""
        self._pieces.append((self._place(data), len(data)))

    def one_of(self, values: Sequence[bytes], which: Ints) -> None:
        """In each row the value of this number."""
        if len(values) == 1:
            self.same(values[0])
            return
        column = BytesColumn.of(values)
        begins, sizes = column.begins + self._place(column.data), column.ends - column.begins
        self._pieces.append((begins[which], sizes[which]))

    def texts(self, texts: BytesColumn) -> None:
        """Each row's text, its length in front."""
        self.longs(texts.ends - texts.begins)
        self.stretches(texts)

    def stretches(self, column: BytesColumn, leave_out: int = 0) -> None:
        """Each row's stretch as it is, but for so many of its first bytes."""
        begins = column.begins + leave_out
        self._pieces.append((begins + self._place(column.data), column.ends - begins))

    def longs(self, numbers: Ints) -> None:
        digits = np.empty((self._rows, MOST_VARINT), dtype=np.uint8)
        sizes = np.empty(self._rows, dtype=np.int64)
        write_longs(numbers, digits, sizes)
        self._matrix(digits, sizes)

    def numbered(self, leads: Sequence[bytes], which: Ints, numbers: Ints) -> None:
        """Each row's text: the lead of this number, then the row's own number, not negative, in decimal; its length in
        front.
        """
        digits = np.empty((self._rows, MOST_DECIMALS), dtype=np.uint8)
        sizes = np.empty(self._rows, dtype=np.int64)
        write_decimals(numbers, digits, sizes)
        self.longs(np.array([len(lead) for lead in leads], dtype=np.int64)[which] + sizes)
        self.one_of(leads, which)
        self._matrix(digits, sizes)

    def matrix(self, data: Matrix) -> None:
        """Each row's row of bytes."""
        self._matrix(data, data.shape[1])

    def _matrix(self, data: Matrix, sizes: Ints | int) -> None:
        width = data.shape[1]
        begin = self._place(data.tobytes())
        self._pieces.append((np.arange(begin, begin + self._rows * width, width, dtype=np.int64), sizes))

    def _place(self, data: Data) -> int:
        """Where a buffer is among all buffers; one that came before is there once."""
        place = self._places.get(id(data))
        if place is None:
            place = self._places[id(data)] = self._size
            self._buffers.append(data)
            self._size += len(data)
        return place

    def finish(self) -> BytesColumn:
        begins, sizes = np.empty((2, len(self._pieces), self._rows), dtype=np.int64)
        for number, (begin, size) in enumerate(self._pieces):
            begins[number], sizes[number] = begin, size
        data = np.frombuffer(b"".join(self._buffers), dtype=np.uint8)
        ends = sizes.sum(axis=0).cumsum()
        starts = np.zeros(self._rows, dtype=np.int64)
        starts[1:] = ends[:-1]
        return BytesColumn(splice(data, begins, sizes).data, starts, ends)
