"""A package as it stands in the log: a signed manifest record, and the chunks that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tailrace.models.manifest import sha256
from tailrace.models.package.build import Package
from tailrace.models.package.open import Chunk
from tailrace.signing.keys import SigningKey
from tailrace.signing.records import manifest_bytes
from tailrace.testing.signed_records import HOME


def sealed(
    built: Package, key: SigningKey, chunk_bytes: int = 10_000
) -> tuple[dict[str, Any], Callable[[Sequence[Chunk]], list[bytes]]]:
    """A manifest record as it would stand on the topic, and a reader of its chunks."""
    pieces: list[bytes] = []
    chunks = []
    for part, data in built.parts.items():
        for index, start in enumerate(range(0, len(data), chunk_bytes)):
            piece = data[start : start + chunk_bytes]
            chunks.append(
                {
                    "part": part,
                    "index": index,
                    "partition": 0,
                    "offset": len(pieces),
                    "size": len(piece),
                    "sha256": sha256(piece),
                }
            )
            pieces.append(piece)
    manifest = built.manifest.to_bytes()
    record = {
        "model": built.manifest.model,
        "version": built.manifest.version,
        "manifest": manifest,
        "digest": sha256(manifest),
        "signature": key.sign(manifest_bytes(HOME, manifest)),
        "key_id": key.key_id,
        "chunks": chunks,
        "published_at": 0,
        "published_by": "test",
    }

    def fetch(wanted: Sequence[Chunk]) -> list[bytes]:
        return [pieces[c.offset] for c in wanted]

    return record, fetch
