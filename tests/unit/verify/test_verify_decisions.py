"""The accounts of rollouts, reports and training runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.contracts import contract

from tailrace.contracts.state.contracts import Contracts
from tailrace.streaming.records import RecordRef
from tailrace.verify.check import AccountProblem
from tailrace.verify.decisions import Decisions, Published

CONTRACT = contract()


@pytest.fixture
def decisions() -> Decisions:
    contracts = Contracts()
    applied = {
        "model": "credit", "revision": 1, "follows": 0, "digest": CONTRACT.digest, "source_text": "",
        "resolved": CONTRACT.resolved_json, "applied_by": "ada", "applied_at": 1,
    }  # fmt: skip
    contracts.apply(applied)
    return Decisions(contracts, {("credit", 1): Published("a1", "c1"), ("credit", 2): Published("a2", "c2")})


def at(offset: int) -> RecordRef:
    return RecordRef("tailrace.any", 0, offset)


def step(revision: int, champion: int, follows: int | None = None, **changed: Any) -> dict[str, Any]:
    return {
        "model": "credit", "revision": revision, "follows": revision - 1 if follows is None else follows,
        "version": champion, "champion": champion, "shadow": [], "candidates": [], "canary": None, "experiment": None,
    } | changed  # fmt: skip


def checks(problems: Any) -> list[tuple[str, int]]:
    found: list[AccountProblem] = list(problems)
    return [(problem.check, problem.offset) for problem in found]


def test_the_first_that_follows_is_in_force_and_a_loser_is_not(decisions: Decisions) -> None:
    steps = [step(1, 1), step(2, 2, shadow=[1]), step(2, 1), step(3, 1, follows=1), step(3, 1)]
    assert [checks(decisions.rollout(at(n), record)) for n, record in enumerate(steps)] == [[]] * 5
    assert checks(decisions.problems()) == []
    assert decisions.answers("credit", 2, "champion", 2)
    assert not decisions.answers("credit", 2, "champion", 1), "the loser's champion"
    assert decisions.answers("credit", 2, "shadow", 1)
    assert not decisions.answers("credit", 3, "shadow", 1)
    assert ("credit", 4) not in decisions.revisions


def test_each_role_is_that_of_the_revision(decisions: Decisions) -> None:
    roles = {"champion": 1, "shadow": 2, "canary": 3, "arm": 4}
    record = step(1, 1, shadow=[2], canary={"version": 3}, experiment={"arms": [{"version": 4}]})
    assert checks(decisions.rollout(at(0), record)) == []
    for role, own in roles.items():
        for version in roles.values():
            assert decisions.answers("credit", 1, role, version) == (version == own), (role, version)


def test_steps_that_cannot_be(decisions: Decisions) -> None:
    problems = [
        *decisions.rollout(at(0), step(1, 1)),
        *decisions.rollout(at(1), step(4, 2, follows=1)),
        *decisions.rollout(at(2), step(2, 2, candidates=[7])),
        *decisions.problems(),
    ]
    assert checks(problems) == [("rollout-misnumbered", 1), ("rollout-unpublished", 2)]


def report(report_id: str = "r", **changed: Any) -> dict[str, Any]:
    return {
        "report_id": report_id, "model": "credit", "version": 2, "artifact_digest": "a2",
        "contract_digest": CONTRACT.digest,
    } | changed  # fmt: skip


def test_there_is_one_report_of_each_id_about_what_exists(decisions: Decisions) -> None:
    reports = [
        report(),
        report("s"),
        report(),
        report("t", artifact_digest="a1"),
        report("u", version=9),
        report("v", contract_digest="c" * 64),
    ]
    problems = [problem for n, each in enumerate(reports) for problem in decisions.report(at(n), each)]
    assert checks(problems) == [("report-twice", 2)]
    assert checks(decisions.problems()) == [
        ("report-unpublished", 3),
        ("report-unpublished", 4),
        ("report-unapplied", 5),
    ]


def run(state: str, run_id: str = "run", **changed: Any) -> dict[str, Any]:
    return {
        "run_id": run_id, "model": "credit", "state": state, "version": None, "content_digest": None,
    } | changed  # fmt: skip


PUBLISHED = run("published", version=2, content_digest="c2")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([run("planned"), run("training"), run("training"), run("trained"), PUBLISHED], []),
        ([run("planned"), run("training")], []),
        ([run("planned"), run("failed")], []),
        ([run("planned"), run("planned", "other"), PUBLISHED, run("rejected", "other")], []),
        ([run("training"), run("failed")], [("run-unplanned", 0)]),
        ([run("planned"), run("training"), run("planned")], [("run-planned-twice", 2)]),
        ([run("planned"), run("rejected"), PUBLISHED], [("run-ended-twice", 2)]),
        ([run("planned"), PUBLISHED, run("training")], [("run-ended-twice", 2)]),
        ([run("planned"), PUBLISHED | {"version": 7}], [("run-unpublished", 1)]),
        ([run("planned"), PUBLISHED | {"content_digest": "c1"}], [("run-unpublished", 1)]),
    ],
)
def test_a_run_is_planned_once_and_ends_once(
    decisions: Decisions, steps: list[dict[str, Any]], expected: list[tuple[str, int]]
) -> None:
    for number, each in enumerate(steps):
        decisions.run(at(number), each)
    assert checks(decisions.problems()) == expected


def test_a_canary_answers_as_one_and_as_nothing_else(decisions: Decisions) -> None:
    steps = [step(1, 1), step(2, 1, shadow=[2], canary={"version": 2})]
    assert [checks(decisions.rollout(at(n), record)) for n, record in enumerate(steps)] == [[], []]
    assert decisions.answers("credit", 2, "canary", 2)
    assert decisions.answers("credit", 2, "champion", 1)
    assert not decisions.answers("credit", 2, "champion", 2)
    assert not decisions.answers("credit", 2, "canary", 1)
    assert not decisions.answers("credit", 1, "canary", 2)
