"""A log in memory with Kafka's semantics, for tests: deterministic, and hostile on demand.

What is modelled: partitions and murmur2, offsets, read_committed with the last stable offset, transaction markers that
take offsets and may come late, commits whose outcome the caller does not learn, fencing, consumer groups with sessions
that expire and generations (cooperative, or eager with ``range``), committed offsets with metadata, deleted records.
Time is the log's own: each client call takes a millisecond, waiting takes as long as the caller wants.

A ``hook`` is called before each client call takes effect. It may raise (a crash), return a ``Fault``, or do something
else with the log in the meantime, such as letting other instances run: to the caller that is a stall.
"""

from __future__ import annotations

from tailrace.streaming.backends.memory.broker import MemoryBroker
from tailrace.streaming.backends.memory.clients import MemoryBackend


class MemoryLog(MemoryBroker):
    """The broker, and the way to it for as many clients as a test wants."""

    def backend(self, name: str = "client") -> MemoryBackend:
        return MemoryBackend(self, name)
