"""The programs in examples/ stand on public surfaces alone, and fit on a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tailrace
from tailrace.contracts.language.load import load_contract

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_takes_what_is_public_and_fits_on_a_page(program: Path) -> None:
    source = program.read_text()
    assert not re.search(r"\btailrace\.\w+\.|(?:from|import) tailrace\.", source)
    taken = re.findall(r"^from tailrace import (.+)$", source, re.MULTILINE)
    names = {*", ".join(taken).split(", "), *re.findall(r"\btailrace\.(\w+)\(", source)} - {""}
    assert names <= set(tailrace.__all__)
    assert len(source.splitlines()) <= 60
    assert f"({program.name})" in (EXAMPLES / "README.md").read_text()


def test_their_contract_is_one() -> None:
    assert load_contract((EXAMPLES / "parcels.yaml").read_text()).model == "parcels"
