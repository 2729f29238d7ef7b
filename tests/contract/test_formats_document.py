"""docs/formats.md names every code that a bad record can have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.examples import examples

from tailrace.streaming.dead_letters import HEADERS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "formats.md").read_text()
# The call, and which of its arguments is the code.
CALLS = {"BadRecord": 0, "reject": 1, "DeadLetter": 2}


def codes_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            at = CALLS.get(name)
            if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                yield str(node.args[at].value)  # type: ignore[attr-defined]


def codes_of_the_document() -> set[str]:
    rows = re.findall(r"^\| (`[^|]+`) \|", TEXT.partition("| code |")[2].partition("\n\n")[0], re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)}
    own = re.search(r"four of its own:(.*?)\n\n", TEXT, re.DOTALL)
    assert own
    return listed | set(re.findall(r"`([a-z-]+)` \(", own[1]))


def test_every_code_is_explained() -> None:
    raised = {code for path in (ROOT / "services").rglob("*.py") for code in codes_in(path)}
    raised.add("unknown-schema")  # by its own class
    assert codes_of_the_document() == raised


def test_examples_and_headers_are_in_it() -> None:
    assert {e.code for e in examples() if e.code} <= codes_of_the_document()
    for header in HEADERS:
        assert f"`{header}`" in TEXT
