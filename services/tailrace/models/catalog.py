"""The fold of ``tailrace.model-manifests``: every published version of every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Catalog:
    """Folds the records of ``tailrace.model-manifests``.

    A version is published once: of several manifests of one version the first counts.
    """

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, Mapping[str, Any]]] = {}

    def apply(self, record: Mapping[str, Any], offset: int = 0) -> bool:
        """Takes one decoded record (schema ``model_manifest.avsc``); says whether it is a new version."""
        versions = self._versions.setdefault(record["model"], {})
        return versions.setdefault(record["version"], record) is record

    def record(self, model: str, version: int) -> Mapping[str, Any] | None:
        """The manifest record of a version; None where it is not published."""
        return self._versions.get(model, {}).get(version)

    def versions(self, model: str) -> list[int]:
        return sorted(self._versions.get(model, {}))
