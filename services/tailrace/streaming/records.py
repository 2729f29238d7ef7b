"""What flows through the exactly-once runner: messages in, records and dead letters out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

if TYPE_CHECKING:
    from tailrace.avro.columns.bytes_column import BytesColumn, Ints

Headers = Sequence[tuple[str, bytes]]
_LOG_APPEND_TIME = 2


class Message(Protocol):
    """A record read from a log.

    The accessors are those of ``confluent_kafka.Message``, so that what librdkafka hands over is used as it is,
    without a copy per record; `PlainMessage` has the same ones.
    """

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes]] | None: ...
    def __len__(self) -> int:
        """Bytes of the value."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """``(type, milliseconds)``; with LogAppendTime, which every Tailrace topic uses, the broker's time."""
        ...


class PlainMessage:
    """A message by its parts; its time is an append time."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp", "_topic", "_value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._value = value
        self._key = key
        self._headers = list(headers) or None
        self._timestamp = timestamp_ms

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._headers

    def __len__(self) -> int:
        return 0 if self._value is None else len(self._value)

    def __bool__(self) -> bool:
        return True

    def timestamp(self) -> tuple[int, int]:
        return _LOG_APPEND_TIME, self._timestamp

    def __repr__(self) -> str:
        return f"<{self._topic}/{self._partition}/{self._offset} {self._key!r}: {self._value!r}>"


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class RecordRef(NamedTuple):
    """Where the record is that a derived record comes from; its identity through the whole loop."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def of(cls, message: Message) -> RecordRef:
        return cls(message.topic(), message.partition(), message.offset())


class Record(NamedTuple):
    """A record to be written. Without a partition, the key decides by murmur2, as in the Java client."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """Many records of one topic, whose keys decide: as columns, which cost less than an object for each."""

    topic: str
    values: BytesColumn
    keys: BytesColumn

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        if isinstance(at, slice):
            return self.take(at)
        return Record(self.topic, self.values[at], self.keys[at])

    def __iter__(self) -> Iterator[Record]:
        return map(Record, repeat(self.topic), self.values, self.keys)

    def take(self, rows: Ints | slice) -> Records:
        return Records(self.topic, self.values.take(rows), self.keys.take(rows))


@dataclass(frozen=True)
class Runs(Sequence[Record]):
    """Records one behind the other, of which some stretches are columns."""

    runs: Sequence[Sequence[Record]]

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        return list(self)[at]

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(self.runs)


class DeadLetter(NamedTuple):
    """A message that cannot be processed, and why. It goes out in the same transaction as the batch's records.

    ``code`` is a stable word for machines (``unseen-category``), ``reason`` a sentence for people, ``field`` the
    field at fault where there is one. ``topic`` is the dead-letter topic of the lane.
    """

    topic: str
    message: Message
    code: str
    reason: str
    field: str | None = None


class PausedPartition(NamedTuple):
    """A partition that waits: nothing from ``offset`` on was processed, and ``reason`` says what it waits for."""

    offset: int
    reason: str
