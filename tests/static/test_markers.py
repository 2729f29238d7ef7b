"""Tests are marked by what they need, and nobody does so by hand."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tests.support.needs import SLOW, needs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("folder", "fixtures", "imported", "markers"),
    [
        ("unit", {"tmp_path"}, {"LocalKafka"}, set()),
        ("unit", {"kafka"}, set(), {"kafka"}),
        ("integration", {"stack", "kafka"}, set(), {"kafka"}),
        ("integration", set(), {"running_cluster"}, {"kafka"}),
        ("security", set(), {"MemoryRegistry"}, set()),
        ("simulation", set(), set(), {"slow"}),
        ("e2e", set(), set(), {"kafka", "slow"}),
        ("chaos", set(), set(), {"kafka", "slow", "chaos"}),
    ],
)
def test_folder_fixtures_and_imports_say_what_is_needed(
    folder: str, fixtures: set[str], imported: set[str], markers: set[str]
) -> None:
    assert needs(folder, f"tests/{folder}/test_a.py::test_b", fixtures, imported) == markers


@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_slow_test_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert needs(file.split("/")[1], name, set(), set()) == {"slow"}


def test_no_test_is_marked_by_hand() -> None:
    by_hand = re.compile(r"mark\.(?:kafka|slow|chaos)\b")
    files = (ROOT / "tests").rglob("*.py")
    assert [str(file.relative_to(ROOT)) for file in files if by_hand.search(file.read_text())] == []
