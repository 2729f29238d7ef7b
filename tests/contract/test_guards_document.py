"""docs/guards.md is what GUARDS say."""

from __future__ import annotations

from pathlib import Path

from tailrace.contracts.language.guards.guards import GUARDS
from tailrace.contracts.language.guards.page import page

DOC = Path(__file__).parents[2] / "docs" / "guards.md"


def test_the_page_is_current() -> None:
    assert DOC.read_text() == page(), "run python -m tailrace.contracts.language.guards.page > docs/guards.md"


def test_a_name_is_given_once() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
