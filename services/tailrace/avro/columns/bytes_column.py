"""Many texts within one buffer: known by where they begin and end, and taken out only where somebody looks."""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tailrace.avro.columns.bytes_kernels import marshalled, match

Ints = NDArray[np.int64]
Data = bytes | memoryview
NULL, UNKNOWN = -1, -2


class BytesColumn(Sequence[Any]):
    """Stretches of ``data``, from ``begins`` up to ``ends``; one that begins at -1 is None."""

    def __init__(self, data: Data, begins: Ints, ends: Ints) -> None:
        self.data, self.begins, self.ends = data, begins, ends

    @classmethod
    def of(cls, values: Sequence[bytes]) -> BytesColumn:
        """Values end to end. Raises TypeError where one is None."""
        data = b"".join(values)
        ends = np.fromiter(map(len, values), dtype=np.int64, count=len(values)).cumsum()
        begins = np.zeros(len(values), dtype=np.int64)
        begins[1:] = ends[:-1]
        return cls(data, begins, ends)

    @classmethod
    def end_to_end(cls, columns: Sequence[BytesColumn]) -> BytesColumn:
        """All of the first, then all of the second, and so on."""
        begins, ends = [], []
        place = 0
        for column in columns:
            begins.append(np.where(column.begins < 0, NULL, column.begins + place))
            ends.append(column.ends + place)
            place += len(column.data)
        return cls(b"".join(column.data for column in columns), np.concatenate(begins), np.concatenate(ends))

    @property
    def bytes(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.data, dtype=np.uint8)

    @cached_property
    def _values(self) -> list[Any]:
        values: list[Any] = marshal.loads(  # noqa: S302 - what was just written
            marshalled(self.bytes, self.begins, self.ends)
        )
        return values

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return self._values[at]
        begin = int(self.begins[at])
        return bytes(self.data[begin : int(self.ends[at])]) if begin >= 0 else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def take(self, rows: Ints | slice) -> BytesColumn:
        return BytesColumn(self.data, self.begins[rows], self.ends[rows])

    def codes(self, known: BytesColumn) -> Ints:
        """Which of the known texts each one is; ``NULL`` and ``UNKNOWN`` are neither."""
        codes: Ints = match(self.bytes, self.begins, self.ends, known.bytes, known.begins, known.ends)
        return codes
