"""The folders of a home that are one service's own: no other writes there, and the kernel sees to it.

What is in ``<home>/cache/NAME`` can be had again; ``<home>/state/NAME`` has what takes long to be had again.
"""

from __future__ import annotations

from pathlib import Path


def cache_folder(home: Path, service: str) -> Path:
    return home / "cache" / service


def packages_folder(home: Path, service: str) -> Path:
    """Where a service keeps what packages consist of."""
    return cache_folder(home, service) / "packages"


def examined_folder(home: Path, service: str) -> Path:
    """Where a service keeps which packages have passed its examiner."""
    return cache_folder(home, service) / "examined"


def state_folder(home: Path, service: str) -> Path:
    return home / "state" / service
