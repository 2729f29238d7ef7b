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
def test_notes_are_the_findings_of_each_row_in_their_order(steps: list, chosen: list[int]) -> None:
    findings = Findings(ROWS)
    expected: list[list[Finding]] = [[] for _ in range(ROWS)]
    flags: dict[str, set[int]] = {}
    for by_row, flag in steps:
        findings.add(by_row, flag)
        for row, finding in by_row.items():
            expected[row].append(finding)
        if flag is not None and by_row:
            flags.setdefault(flag, set()).update(by_row)
    taken = findings.take(np.array(chosen, dtype=np.int64))
    for of, rows in ((findings, list(range(ROWS))), (taken, chosen)):
        assert [list(of.kinds[kind]) for kind in of.which.tolist()] == [expected[row] for row in rows]
        assert {name: raised.tolist() for name, raised in of.flags.items()} == {
            name: [row in raised for row in rows] for name, raised in flags.items()
        }
    taken.add({row: Finding("later", None, "") for row in range(len(chosen))})
    assert [list(findings.kinds[kind]) for kind in findings.which.tolist()] == expected
