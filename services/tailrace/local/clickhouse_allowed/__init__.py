"""Lists of what a statement may name, made from the engine's own tables and gone through by hand.

One name a line. ``settings`` and ``settings_refused`` together are all that the locked engine knows; what a newer one
adds is on neither list, and refused. Left out is what reaches files, programs or other hosts, looks into the process,
changes how statements are parsed, names a schema, is an expression, or sleeps.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def names(kind: str) -> frozenset[str]:
    """The names on the list of this kind: functions, aggregates, higher_order, formats, settings, settings_refused."""
    return frozenset(Path(__file__).with_name(f"{kind}.txt").read_text().split())
