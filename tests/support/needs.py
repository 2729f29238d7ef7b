"""What a test needs, told from its folder, its fixtures and what its file imports: the markers of pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OF_FOLDERS = {
    "chaos": {"kafka", "slow", "chaos"},
    "e2e": {"kafka", "slow"},
    "simulation": {"slow"},
}
STARTS_A_BROKER = {
    "LocalKafka",
    "Project",
    "ProxiedKafka",
    "Supervisor",
    "broker_with_registry",
    "running_cluster",
    "running_project",
    "secured_kafka",
}
"""Who of integration/ and security/ imports one of these may start a broker of its own."""
SLOW = frozenset((TESTS / "slow_tests.txt").read_text().partition("\n\n")[2].split())


def needs(folder: str, name: str, fixtures: set[str], imported: set[str]) -> set[str]:
    """The markers of a test.

    Args:
        folder: below tests/.
        name: path, two colons and the function, as pytest takes it; without parameters.
        fixtures: those that it takes, and those that these take.
        imported: names in its module.
    """
    markers = set(OF_FOLDERS.get(folder, ()))
    if "kafka" in fixtures or (folder in ("integration", "security") and imported & STARTS_A_BROKER):
        markers.add("kafka")
    if name in SLOW:
        markers.add("slow")
    return markers


def mark(item: pytest.Function) -> None:
    folder = item.path.relative_to(TESTS).parts[0]
    for marker in needs(
        folder, item.nodeid.partition("[")[0], set(item.fixturenames), set(vars(item.module))
    ):
        item.add_marker(marker)
