"""Each room has a README, and the files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "services" / "tailrace"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
FILE = re.compile(r"`((?:[\w-]+/)*\w+\.py)`")


@pytest.mark.parametrize("room", ROOMS, ids=[room.name for room in ROOMS])
def test_a_room_says_what_it_is_and_names_files_that_there_are(room: Path) -> None:
    names = FILE.findall((room / "README.md").read_text())
    assert [name for name in names if not any((base / name).exists() for base in (room, PACKAGE, ROOT))] == []
