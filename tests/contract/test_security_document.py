"""docs/security.md names the tests that hold what it says, and they are there."""

from __future__ import annotations

import re

import pytest

from tailrace.package_data import data_dir

ROOT = data_dir("contracts", "models").parents[1]
ROW = re.compile(r"^\| (?P<claim>[^|]+) \| (?P<proof>[^|]*`[\w/]*test_\w+\.py`[^|]*) \|$", re.MULTILINE)
FILE = re.compile(r"`(?P<path>[\w/]*test_\w+\.py)`(?: \((?P<names>[^)]*)\))?")


def _references() -> list[tuple[str, str]]:
    """Of each row of the tables: a file of tests, and each part of a test's name that it gives."""
    rows = ROW.findall((ROOT / "docs" / "security.md").read_text())
    references = []
    for _, proof in rows:
        for path, names in FILE.findall(proof):
            parts = re.findall(r"`(?:cases )?([\w*-]+)`|`[^`]*`", names) or [""]
            references += [(path, part.rstrip("*").rstrip("-")) for part in parts]
    return references


@pytest.mark.parametrize(("path", "part"), sorted(set(_references())))
def test_each_line_has_its_test(path: str, part: str) -> None:
    file = ROOT / (path if "/" in path else f"tests/security/{path}")
    assert file.exists(), f"there is no {file}"
    text = file.read_text()
    names = re.findall(r"def (test_\w+)|\"(\w+)\"", text)
    assert any(part in one or part in other for one, other in names), (
        f"no test of {file.name} is about {part}"
    )


def test_the_document_names_many_tests() -> None:
    assert len(_references()) > 40
