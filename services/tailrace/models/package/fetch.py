"""Fetches the parts of packages: from a cache on disk by digest, else from ``tailrace.model-chunks``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tailrace.access.private_files import write_private
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.errors import TailraceError, Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import sha256
from tailrace.models.package.open import Chunk
from tailrace.streaming.backends.kafka.reading import read_at

# The values at the chunks' partitions and offsets, None where there is none (any longer).
ReadChunks = Callable[[Sequence[Chunk]], list[bytes | None]]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class PackageFetcher:
    """Reads parts of packages by their chunks. An instance is a ``Fetch`` for ``open_package``.

    Args:
        folder: the cache, ``<home>/cache/NAME/packages``: a file per chunk, named after its digest, which is
            checked at every use, so that whatever happens to the folder only costs time.
        read: reads what the cache does not have.
    """

    def __init__(self, folder: Path, read: ReadChunks) -> None:
        self._folder = folder
        self._read = read

    def __call__(self, chunks: Sequence[Chunk]) -> list[bytes]:
        """The bytes of each chunk.

        Raises:
            PackageRefused: a chunk is not there, or is not what the manifest record says.
            Unavailable: the topic cannot be read for the moment.
        """
        pieces = {chunk: self._cached(chunk) for chunk in chunks}
        wanted = [chunk for chunk, data in pieces.items() if data is None]
        for chunk, data in zip(wanted, self._read(wanted) if wanted else [], strict=True):
            place = f"(partition {chunk.partition}, offset {chunk.offset})"
            where = f"chunk {chunk.number} of {chunk.part} {place}"
            if data is None:
                raise PackageRefused("chunk", f"{where} is not on {lanes.CHUNKS}")
            if len(data) != chunk.size or sha256(data) != chunk.sha256:
                raise PackageRefused("chunk", f"{where} is not what the manifest record says")
            with contextlib.suppress(OSError):  # a cache that cannot be written is no reason not to answer
                write_private(self._path(chunk), data)
            pieces[chunk] = data
        return [pieces[chunk] or b"" for chunk in chunks]

    def _path(self, chunk: Chunk) -> Path:
        return self._folder / chunk.sha256[:2] / chunk.sha256

    def _cached(self, chunk: Chunk) -> bytes | None:
        if not _DIGEST.fullmatch(chunk.sha256):
            return None  # it comes from a topic, and becomes the name of a file
        try:
            data = self._path(chunk).read_bytes()
        except OSError:
            return None
        return data if sha256(data) == chunk.sha256 else None


class KafkaChunks:
    """Reads chunks from Kafka by partition and offset, outside any consumer group."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, chunks: Sequence[Chunk]) -> list[bytes | None]:
        places = [(chunk.partition, chunk.offset) for chunk in chunks]
        try:
            messages = read_at(self._connection, lanes.CHUNKS, places)
        except TailraceError as away:
            raise Unavailable(str(away)) from away
        return [messages[place].value() if place in messages else None for place in places]
