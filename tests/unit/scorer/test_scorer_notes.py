"""What is noted about rows, against a list of findings for each of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.contracts.language.guards.guard import Finding
from tailrace.scorer.rows import Findings

ROWS = 6
FINDING = st.builds(Finding, st.sampled_from(["domain", "uncertain"]), st.none(), st.sampled_from("abc"))
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, ROWS - 1), FINDING), st.sampled_from([None, "guarded", "uncertain"])
    ),
    max_size=4,
)


@given(STEPS, st.lists(st.integers(0, ROWS - 1), max_size=4))
def test_notes_are_the_findings_of_each_row_in_their_order(steps: list, some: list[int]) -> None:
    notes = Findings(ROWS)
    findings: list[list[Finding]] = [[] for _ in range(ROWS)]
    flags: dict[str, set[int]] = {}
    for found, flag in steps:
        notes.add(found, flag)
        for row, finding in found.items():
            findings[row].append(finding)
        if flag is not None and found:
            flags.setdefault(flag, set()).update(found)
    taken = notes.take(np.array(some, dtype=np.int64))
    for of, rows in ((notes, list(range(ROWS))), (taken, some)):
        assert [list(of.kinds[kind]) for kind in of.which.tolist()] == [findings[row] for row in rows]
        assert {name: raised.tolist() for name, raised in of.flags.items()} == {
            name: [row in raised for row in rows] for name, raised in flags.items()
        }
    taken.add({row: Finding("later", None, "") for row in range(len(some))})
    assert [list(notes.kinds[kind]) for kind in notes.which.tolist()] == findings
