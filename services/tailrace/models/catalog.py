"""The fold of ``tailrace.model-manifests``: every published version of every model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from tailrace.contracts.records.lanes import MANIFESTS
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest

Verify = Callable[[ModelManifestRecord], object]
"""Checks whose manifest a record of ``tailrace.model-manifests`` carries; raises PackageRefused."""

LEAP = 10_000
"""No publisher gives a number further beyond the one before: what leaps further counts for nothing."""


class Catalog:
    """Folds the records of ``tailrace.model-manifests``.

    A version is published once: of several manifests of one version the first that is verified counts, however many
    others came before it. What is not verified counts for nothing: it is remembered only so that whoever was to open
    it can say why it is refused, and since people change whom they trust.

    Args:
        verify: whose manifests count; None where whoever reads them has them checked elsewhere.
    """

    topic = MANIFESTS

    def __init__(self, verify: Verify | None) -> None:
        self._verify = verify
        self._candidates: dict[tuple[str, int], list[ModelManifestRecord]] = {}
        self._verified: dict[tuple[str, int], ModelManifestRecord] = {}

    def apply(self, record: ModelManifestRecord, offset: int = 0) -> bool:
        """Takes one decoded record (schema ``model_manifest.avsc``)."""
        self._candidates.setdefault((record["model"], record["version"]), []).append(record)
        return True

    def verified(self, model: str, version: int) -> ModelManifestRecord | None:
        """The manifest record of a version; None where nobody who is trusted has published it."""
        key = model, version
        if key not in self._verified:
            first = next((r for r in self._candidates.get(key, ()) if self._is_verified(r)), None)
            if first is None:
                return None
            self._verified[key] = first
        return self._verified[key]

    def record(self, model: str, version: int) -> ModelManifestRecord | None:
        """The manifest record of a version, for whoever opens it by every check: the verified one, or else the first
        that there is, whose refusal says why. None where none is published.
        """
        return self.verified(model, version) or next(iter(self._candidates.get((model, version), ())), None)

    def claimed(self) -> list[tuple[str, int]]:
        """Models and versions that somebody says to have published, verified or not."""
        return sorted(self._candidates)

    def versions(self, model: str) -> list[int]:
        """The versions that are verified."""
        numbers = (version for name, version in self._candidates if name == model)
        return sorted(version for version in numbers if self.verified(model, version) is not None)

    def _is_verified(self, record: ModelManifestRecord) -> bool:
        try:
            if self._verify is not None:
                self._verify(record)
        except PackageRefused:
            return False
        return True


class HighestNumbers(NamedTuple):
    """The highest version and sequence of a model that were given."""

    version: int = 0
    sequence: int = 0

    def leaps(self, version: int, sequence: int) -> bool:
        """Whether numbers are further beyond these than any publisher's."""
        return version > self.version + LEAP or sequence > self.sequence + LEAP

    def after(self, manifest: Manifest) -> HighestNumbers:
        """With those of one manifest more."""
        if self.leaps(manifest.version, manifest.sequence):
            return self
        return HighestNumbers(max(self.version, manifest.version), max(self.sequence, manifest.sequence))


def given(
    records: Iterable[ModelManifestRecord], verify: Callable[[ModelManifestRecord], Manifest]
) -> HighestNumbers:
    """The numbers that a model's manifest records, in the topic's order, have taken: verified ones, and no others."""
    numbers = HighestNumbers()
    for record in records:
        with suppress(PackageRefused):
            numbers = numbers.after(verify(record))
    return numbers
