"""Fetches the parts of packages: from a cache on disk by digest, else from ``tailrace.model-chunks``."""

from __future__ import annotations

import contextlib
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
        found = {c: self._cached(c) for c in chunks}
        wanted = [c for c, data in found.items() if data is None]
        for chunk, data in zip(wanted, self._read(wanted) if wanted else [], strict=True):
            where = (
                f"chunk {chunk.number} of {chunk.part} (partition {chunk.partition}, offset {chunk.offset})"
            )
            if data is None:
                raise PackageRefused("chunk", f"{where} is not on {lanes.CHUNKS}")
            if len(data) != chunk.size or sha256(data) != chunk.sha256:
                raise PackageRefused("chunk", f"{where} is not what the manifest record says")
            self._keep(chunk, data)
            found[chunk] = data
        return [found[c] or b"" for c in chunks]

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
        """A cache that cannot be written is no reason not to answer."""
        path = self._path(chunk)
        if path is None:
            return
        with contextlib.suppress(OSError):
            write_private(path, data)


class KafkaChunks:
    """Reads chunks from Kafka by partition and offset, outside any consumer group."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, chunks: Sequence[Chunk]) -> list[bytes | None]:
        places = [(chunk.partition, chunk.offset) for chunk in chunks]
        try:
            found = read_at(self._connection, lanes.CHUNKS, places)
        except TailraceError as away:
            raise Unavailable(str(away)) from away
        return [found[place].value() if place in found else None for place in places]
