"""Which versions of a model answer or stand by, and which of them a contract would break."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import Violation
from tailrace.contracts.succession import VersionInService
from tailrace.models.catalog import Catalog
from tailrace.models.manifest import Manifest
from tailrace.models.package.contract_fit import misfits, unknown_categories
from tailrace.models.rollout_state.fold import RolloutState


def versions_in_service(catalog: Catalog, state: RolloutState) -> list[VersionInService]:
    """The champion, the version before it, canary, arms and shadows, each once and under the first of these roles; of
    what is not verified nothing could serve.
    """
    versions: dict[int, VersionInService] = {}
    for role, number in _roles(state):
        record = None if number is None else catalog.verified(state.model, number)
        if number is not None and record is not None:
            manifest = Manifest.from_bytes(record["manifest"])
            versions.setdefault(number, VersionInService(number, role, partial(all_misfits, manifest)))
    return [version for _, version in sorted(versions.items())]


def all_misfits(manifest: Manifest, contract: ModelContract) -> Iterator[Violation]:
    """What keeps a version from serving under a contract, or from serving every request of it."""
    return chain(misfits(manifest, contract), unknown_categories(manifest, contract))


def _roles(state: RolloutState) -> Iterator[tuple[str, int | None]]:
    yield "champion", state.champion
    yield "canary", None if state.canary is None else state.canary.version
    yield from (("arm", version) for version in (state.experiment.versions if state.experiment else ()))
    yield "previous", state.previous
    yield from (("shadow", version) for version in state.shadow)
