"""A package as it stands in the log: a signed manifest record, and the chunks that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.control.publish import chunk_record, chunks_of_package, manifest_record
from tailrace.models.package.build import Package
from tailrace.models.package.open import Chunk
from tailrace.signing.keys import SigningKey
from tailrace.testing.signed_records import HOME


def sealed(
    built: Package, key: SigningKey, chunk_bytes: int = 10_000
) -> tuple[ModelManifestRecord, Callable[[Sequence[Chunk]], list[bytes]]]:
    """A manifest record as it would stand on the topic, and a reader of its chunks."""
    chunks = chunks_of_package(built, chunk_bytes)
    chunk_records = [chunk_record(*chunk, 0, offset) for offset, chunk in enumerate(chunks)]
    record = manifest_record(built, chunk_records, key, HOME, published_by="test", at_ms=0)

    def fetch(wanted: Sequence[Chunk]) -> list[bytes]:
        return [chunks[chunk.offset][2] for chunk in wanted]

    return record, fetch
