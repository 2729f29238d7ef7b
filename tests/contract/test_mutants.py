"""The faults of `make mutants` are of the code as it is; whether tests notice them is for that run."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from tools.mutants import KILLED, LIVED, ROOT, STALE, Fault, read_faults

FAULTS = read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_found_by_its_text_and_names_tests_that_there_are(fault: Fault) -> None:
    assert fault.applies(), f"{fault.text!r} is not in {fault.file} exactly once"
    assert fault.file.startswith("services/tailrace/")
    assert fault.text != fault.instead
    assert fault.why
    source = (ROOT / fault.file).read_text()
    ast.parse(source.replace(fault.text, fault.instead))
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert file.startswith(("tests/unit/", "tests/contract/", "tests/simulation/"))
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text()


def test_no_fault_is_there_twice() -> None:
    changes = Counter((fault.file, fault.text, fault.instead) for fault in FAULTS)
    assert [change for change, count in changes.items() if count > 1] == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_fault_applies_where_its_text_is_exactly_once(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    fault = Fault("part/name", "it is one too many", "code.py", "+ 1", "+ 2", ("tests/unit/test_code.py",))
    assert not fault.applies(tmp_path)
    for text, applies in (("a + 1", True), ("a + 1 + 1", False), ("a", False)):
        file.write_text(text)
        assert fault.applies(tmp_path) is applies
    file.write_text("a + 1")
    fault.put_in(tmp_path)
    assert file.read_text() == "a + 2"
    assert len({KILLED, LIVED, STALE}) == 3
