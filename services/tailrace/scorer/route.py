"""Which version answers which request: the champion, or beside it a canary that answers a share of the keys.

Where a request goes follows from its key and the rollout's salt alone, so that a key meets one version however often it
comes and whoever answers; and as a canary's share grows, keys only go over to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tailrace.kit.avro_columns import Ints
from tailrace.kit.hashing import key_positions
from tailrace.scorer.versions import Serving, Version


class Route(NamedTuple):
    """Some of the rows, the version that they go to, in which role, and with what probability a key goes there."""

    rows: Ints
    version: Version
    role: str
    propensity: float


def route(serving: Serving, count: int, keys: Callable[[], Sequence[bytes]]) -> list[Route]:
    """Every row once, among champion and canary.

    Args:
        serving: what answers: the champion, then the canary where there is one.
        count: how many rows there are.
        keys: their keys; asked for only where there is something to choose.
    """
    champion, *others = serving.versions
    everything = np.arange(count)
    if serving.canary is None or not others:
        return [Route(everything, champion, "champion", 1.0)]
    share = serving.canary.share
    chosen = key_positions(keys(), serving.canary.salt) < share
    routes = [
        Route(np.flatnonzero(~chosen), champion, "champion", 1.0 - share),
        Route(np.flatnonzero(chosen), others[0], "canary", share),
    ]
    return [each for each in routes if len(each.rows)]
