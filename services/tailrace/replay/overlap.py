"""Which rows of a file a lane's requests have already: told by the request ids, which name the file's content."""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl

from tailrace.connection import Connection
from tailrace.streaming.backends.kafka.reading import read_all

_TELL_EVERY = 10_000
_ROW = rb"\d{7,12}"


class ReplayedRows:
    """Of a file's rows those whose ids are among the bytes of requests, collected record by record.

    Ids stand in Avro and in JSON as they are, so that nothing has to be decoded.

    Args:
        prefix: what the ids of the file's rows begin with.
        rows: those that are asked about.
    """

    def __init__(self, prefix: str, rows: pl.DataFrame) -> None:
        self._prefix = prefix.encode()
        self._pattern = re.compile(re.escape(self._prefix) + _ROW)
        self._wanted = {request_id.encode() for request_id in rows["request_id"].to_list()}
        self._lengths = sorted({len(request_id) for request_id in self._wanted}, reverse=True)
        self._replayed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._replayed)

    def take(self, value: bytes | None) -> None:
        """Looks for an id in a request's bytes."""
        if value is None or self._prefix not in value or (match := self._pattern.search(value)) is None:
            return
        # The byte behind an id in Avro may look like one more digit of it.
        for length in self._lengths:
            if (request_id := match[0][:length]) in self._wanted:
                self._replayed.add(request_id)
                return


def count_replayed(
    connection: Connection,
    topic: str,
    prefix: str,
    rows: pl.DataFrame,
    progress: Callable[[int], None] = lambda _read: None,
) -> int:
    """How many of a file's rows are among the requests that a topic retains.

    The topic is read once and not decoded: some seconds for a million requests. Nothing shorter knows, since keys are
    the contract's. ``progress`` is told how many were read.

    Raises:
        TailraceError: the topic does not exist, or Kafka cannot be reached.
    """
    replayed, read = ReplayedRows(prefix, rows), 0
    for read, message in enumerate(read_all(connection, topic), 1):
        replayed.take(message.value())
        if read % _TELL_EVERY == 0:
            progress(read)
    progress(read)
    return len(replayed)
