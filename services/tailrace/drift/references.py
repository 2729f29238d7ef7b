"""What versions were trained on: the references that packages carry, checked as scorers check them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.drift.layout import SlotLayout
from tailrace.models.catalog import Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.models.reference import Reference

log = logging.getLogger(__name__)

OpenReference = Callable[[ModelManifestRecord], tuple[Manifest, Reference]]


class References:
    """The slots of each package that predictions name.

    Args:
        catalog: the published versions.
        open_reference: opens the reference of a manifest record; raises PackageRefused, Unavailable.
        look_again: brings the catalog up to what is published by now; raises Unavailable.
    """

    def __init__(
        self, catalog: Catalog, open_reference: OpenReference, look_again: Callable[[], None]
    ) -> None:
        self._catalog = catalog
        self._open = open_reference
        self._look_again = look_again
        self._layouts: dict[tuple[str, int, str], SlotLayout | None] = {}

    def layout(self, model: str, version: int, artifact_digest: str) -> SlotLayout | None:
        """The slots of a package; None where there is no such package, or none that can be trusted.

        Raises:
            Unavailable: it cannot be read for the moment.
        """
        key = model, version, artifact_digest
        if key not in self._layouts:
            self._layouts[key] = self._layout(*key)
        return self._layouts[key]

    def _layout(self, model: str, version: int, artifact_digest: str) -> SlotLayout | None:
        record = self._record(model, version, artifact_digest)
        if record is None:
            self._look_again()
            record = self._record(model, version, artifact_digest)
        which = {"model": model, "version": version, "artifact_digest": artifact_digest}
        if record is None:
            log.warning("no package is published that predictions name", extra=which)
            return None
        try:
            manifest, reference = self._open(record)
        except PackageRefused as refused:
            log.warning("a package was refused: no drift can be judged", extra={**which, "why": str(refused)})
            return None
        return SlotLayout.of(reference, [i.name for i in manifest.inputs])

    def _record(self, model: str, version: int, artifact_digest: str) -> ModelManifestRecord | None:
        record = self._catalog.record(model, version)
        return record if record is not None and record["digest"] == artifact_digest else None
