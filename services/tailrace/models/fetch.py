"""Fetches the parts of packages: from a cache on disk by digest, else from ``tailrace.model-chunks``."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tailrace.contracts import lanes
from tailrace.kit.connection import Connection
from tailrace.kit.errors import Retry
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import sha256
from tailrace.models.package import Chunk

# The values at the chunks' partitions and offsets, None where there is none (any longer).
ReadChunks = Callable[[Sequence[Chunk]], list[bytes | None]]


class PackageFetcher:
    """Reads parts chunk by chunk. An instance is a ``Fetch`` for ``open_package``.

    Args:
        folder: the cache, usually ``<home>/cache/packages``: a file per chunk, named after its digest, which
            is checked at every use, so that whatever happens to the folder only costs time.
        read: reads what the cache does not have.
    """

    def __init__(self, folder: Path, read: ReadChunks) -> None:
        self._folder = folder
        self._read = read

    def __call__(self, part: str, chunks: Sequence[Chunk]) -> bytes:
        """The bytes of a part.

        Raises:
            PackageRefused: a chunk is not there, or is not what the manifest record says.
            Retry: the topic cannot be read for the moment.
        """
        found = {c: self._cached(c) for c in chunks}
        wanted = [c for c, data in found.items() if data is None]
        for chunk, data in zip(wanted, self._read(wanted) if wanted else [], strict=True):
            where = f"chunk {chunk.number} of {part} (partition {chunk.partition}, offset {chunk.offset})"
            if data is None:
                raise PackageRefused("chunk", f"{where} is not on {lanes.CHUNKS}")
            if len(data) != chunk.size or sha256(data) != chunk.sha256:
                raise PackageRefused("chunk", f"{where} is not what the manifest record says")
            self._keep(chunk, data)
            found[chunk] = data
        return b"".join(found[c] or b"" for c in chunks)

    def _path(self, chunk: Chunk) -> Path | None:
        """None where the digest, which comes from a topic, would not do as a file's name."""
        digest = chunk.sha256
        fits = len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)
        return self._folder / digest[:2] / digest if fits else None

    def _cached(self, chunk: Chunk) -> bytes | None:
        path = self._path(chunk)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        return data if sha256(data) == chunk.sha256 else None

    def _keep(self, chunk: Chunk, data: bytes) -> None:
        """Whole or not at all. A cache that cannot be written is no reason not to answer."""
        path = self._path(chunk)
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(draft, path)


class KafkaChunks:
    """Reads chunks from Kafka by partition and offset, with a consumer of its own that joins no group.

    Not for use by several threads at once.
    """

    def __init__(self, connection: Connection, timeout_s: float = 15.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._consumer: Any = None

    def __call__(self, chunks: Sequence[Chunk]) -> list[bytes | None]:
        found: dict[tuple[int, int], bytes | None] = {}
        for partition in sorted({c.partition for c in chunks}):
            offsets = sorted({c.offset for c in chunks if c.partition == partition})
            found |= {(partition, o): data for o, data in self._read(partition, offsets).items()}
        return [found.get((c.partition, c.offset)) for c in chunks]

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _read(self, partition: int, offsets: list[int]) -> dict[int, bytes | None]:
        """Reads on from each offset while the next one wanted is the next one there, else jumps."""
        from confluent_kafka import KafkaError, TopicPartition

        consumer = self._consumer = self._consumer or _consumer(self._connection)
        found: dict[int, bytes | None] = {}
        waiting = offsets[::-1]
        deadline = time.monotonic() + self._timeout_s
        at = -1
        while waiting:
            if waiting[-1] != at:
                at = waiting[-1]
                consumer.assign([TopicPartition(lanes.CHUNKS, partition, at)])
            message = consumer.poll(0.2)
            if message is None:
                if time.monotonic() > deadline:
                    self.close()
                    raise Retry(f"{lanes.CHUNKS} cannot be read: no answer for {self._timeout_s:.0f} s")
                continue
            error = message.error()
            if error is None and message.offset() == at:
                found[at] = message.value()
                at += 1
            elif error is not None and error.code() not in (
                KafkaError._PARTITION_EOF,
                KafkaError._AUTO_OFFSET_RESET,
                KafkaError._UNKNOWN_PARTITION,
            ):
                continue  # the client tries again by itself, until the deadline
            waiting.pop()  # found, or past it: compacted away, aborted, or never there
        consumer.unassign()
        return found


def _consumer(connection: Connection) -> Any:
    from confluent_kafka import Consumer

    return Consumer(
        {
            **connection.kafka,
            "group.id": "tailrace-chunks",  # librdkafka demands one; nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
    )
