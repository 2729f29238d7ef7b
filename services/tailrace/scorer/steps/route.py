"""Which version answers which request: the champion; beside it a canary that answers a share of the keys, or the arms
of an experiment.

Where a request goes follows from its key and the rollout's salt alone, so that a key meets one version however often it
comes and whoever answers; and as a canary's share grows, keys only go over to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Ints
from tailrace.avro.columns.hashing import key_positions
from tailrace.scorer.versions import Serving, ServingVersion


class Route(NamedTuple):
    """Some of the rows, the version that they go to, in which role, and with what probability a key goes there."""

    rows: Ints
    version: ServingVersion
    role: str
    propensity: float
    arm: str | None = None


class _Slot(NamedTuple):
    """A stretch of the positions of keys, by its width, and who answers there."""

    width: float
    version: int
    role: str
    arm: str | None


def route(serving: Serving, keys: Sequence[bytes]) -> list[Route]:
    """Every row once, among the champion and a canary or arms. The champion answers what belongs to none of them, and
    to those that are not there.

    Args:
        serving: what answers: the champion, then the canary or arms where there are any.
        keys: the rows' keys.
    """
    champion, salt = serving.versions[0], ""
    slots: list[_Slot] = []
    if serving.canary is not None:
        salt = serving.canary.salt
        slots = [_Slot(serving.canary.share, serving.canary.version, "canary", None)]
    elif serving.experiment is not None:
        salt, share = serving.experiment.salt, serving.experiment.share
        slots = [_Slot(share * a.probability, a.version, "arm", a.arm) for a in serving.experiment.arms]
    versions = {version.number: version for version in serving.versions}
    if not any(slot.version in versions for slot in slots):
        return [Route(np.arange(len(keys)), champion, "champion", 1.0)]
    edges = np.cumsum([slot.width for slot in slots])
    chosen = np.searchsorted(edges, key_positions(keys, salt), side="right")
    routes, is_champions = [], np.ones(len(keys), dtype=np.bool_)
    for number, slot in enumerate(slots):
        if slot.version in versions:
            rows, version = chosen == number, versions[slot.version]
            is_champions &= ~rows
            routes.append(Route(np.flatnonzero(rows), version, slot.role, slot.width, slot.arm))
    others = 1.0 - sum(each.propensity for each in routes)
    routes.insert(0, Route(np.flatnonzero(is_champions), champion, "champion", others))
    return [each for each in routes if len(each.rows)]
