"""Messages that are kept for as long as their dead letter may have to be written."""

from __future__ import annotations

from typing import Any

from tailrace.joiner.match import Truth


class Original:
    """The message that a label or action came in, from what is kept of it."""

    def __init__(self, truth: Truth) -> None:
        topic, partition, offset = truth.said.source.rsplit("/", 2)
        self._topic, self._partition, self._offset = topic, int(partition), int(offset)
        assert truth.original is not None
        self._key, self._value, self._headers, self._appended = truth.original

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> Any:
        return self._key

    def value(self) -> Any:
        return self._value

    def headers(self) -> Any:
        return self._headers

    def timestamp(self) -> Any:
        return 2, self._appended
