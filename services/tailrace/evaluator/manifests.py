"""What manifests say of the versions that are judged: checked as scorers check them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from tailrace.models.catalog import Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest

log = logging.getLogger(__name__)

Verify = Callable[[Mapping[str, Any]], Manifest]
"""The manifest of a record of ``tailrace.model-manifests``; raises PackageRefused."""


class Manifests:
    """Manifests by package."""

    def __init__(self, verify: Verify) -> None:
        self.catalog = Catalog(verify)
        self._verify = verify

    def of(self, model: str, version: int, artifact: str) -> Manifest | None:
        """None where no such package is published, or none that can be trusted."""
        record = self.catalog.record(model, version)
        if record is None or record["digest"] != artifact:
            return None
        try:
            return self._verify(record)
        except PackageRefused as refused:
            log.warning(
                "a package was refused", extra={"model": model, "version": version, "why": str(refused)}
            )
            return None
