"""Which contract may follow which, what differs, and the fold of what was applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.contracts.language.diff import changes
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import ContractError, Violation
from tailrace.contracts.state.contracts import HOLD, Contracts
from tailrace.contracts.succession import VersionInService, check_succession
from tailrace.control.apply import ApplyPlan, plan

BASE = """\
model: m
owner: {team: t}
key: {name: k}
event_time: {name: at}
features:
  a: {type: number, min: 0}
  i: {type: integer}
  b: {categories: [x, y]}
context:
  c: {type: string}
target: {name: t, type: boolean}
labels: {horizon: 30d}
"""


def reasons(*texts: str) -> list[str]:
    *earlier, new = [load_contract(text) for text in texts]
    return [f"{'.'.join(map(str, f.path))}: {f.what}" for f in check_succession(new, earlier)]


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        ("a: {type: number, min: 0}", "a: {type: number, min: -5, missing: impute}"),
        ("[x, y]", "[x, y, z]"),
        ("[x, y]", "[x]"),
        ("  i: {type: integer}\n", ""),
        ("  i: {type: integer}\n", "  i: {type: integer}\n  j: {type: boolean}\n"),
        ("horizon: 30d", "horizon: 60d"),
        ("b: {categories: [x, y]}\ncontext:\n", "b: {categories: [x, y]}\ncontext:\n  d: {type: number}\n"),
        ("  b: {categories: [x, y]}\ncontext:\n", "context:\n  b: {type: string}\n"),
        ("labels:", "policy: [{do: go}]\nlabels:"),
    ],
)
def test_what_may_change(was: str, is_: str) -> None:
    assert was in BASE
    assert reasons(BASE, BASE.replace(was, is_)) == []


@pytest.mark.parametrize(
    ("was", "is_", "reason"),
    [
        (
            "a: {type: number, min: 0}",
            "a: {type: integer}",
            ("features.a.type: number -> integer: what has one type cannot be read as the other"),
        ),
        (
            "i: {type: integer}",
            "i: {type: number}",
            ("features.i.type: integer -> number: what has one type cannot be read as the other"),
        ),
        (
            "c: {type: string}",
            "c: {type: boolean}",
            ("context.c.type: string -> boolean: what has one type cannot be read as the other"),
        ),
        (
            "key: {name: k}",
            "key: {name: k2}",
            (
                "key: k (string) -> k2 (string): "
                "labels under the new key would never meet predictions under the old one"
            ),
        ),
        (
            "key: {name: k}",
            "key: {name: k, type: integer}",
            (
                "key: k (string) -> k (integer): "
                "labels under the new key would never meet predictions under the old one"
            ),
        ),
        (
            "name: at",
            "name: when",
            (
                "event_time.name: 'at' -> 'when': "
                "the records of producers that still send 'at' would have no time"
            ),
        ),
        (
            "model: m",
            "model: m\nlane: other",
            ("lane: 'm' -> 'other': requests, labels and history would be on different topics"),
        ),
        (
            "{name: t, type: boolean}",
            "{name: t, type: number}",
            (
                "target.type: 'boolean' -> 'number': "
                "labels and versions of the old target would mean something else"
            ),
        ),
        (
            "{name: t, type: boolean}",
            "{name: u, type: boolean}",
            ("target.name: 't' -> 'u': labels and versions of the old target would mean something else"),
        ),
    ],
)
def test_what_may_not_change(was: str, is_: str, reason: str) -> None:
    assert was in BASE
    assert reason in reasons(BASE, BASE.replace(was, is_))


@pytest.mark.parametrize(
    ("target", "other", "path"),
    [
        (
            "{name: t, categories: [x, y], positive: x}",
            "{name: t, categories: [x, y], positive: y}",
            "positive",
        ),
        ("{name: t, categories: [x, y, z]}", "{name: t, categories: [x, y, w]}", "categories"),
        ("{name: t, categories: [x, y, z]}", "{name: t, categories: [x, z, y]}", "categories"),
    ],
)
def test_what_a_score_is_about_may_not_change(target: str, other: str, path: str) -> None:
    was, is_ = (BASE.replace("{name: t, type: boolean}", text) for text in (target, other))
    assert reasons(was, was) == []
    assert [reason.split(":")[0] for reason in reasons(was, is_)] == [f"target.{path}"]


def test_a_field_that_went_may_not_come_back_as_something_else() -> None:
    without = BASE.replace("  i: {type: integer}\n", "")
    back_as_other = BASE.replace("i: {type: integer}", "i: {type: boolean}")
    assert reasons(BASE, without) == []
    assert reasons(without, back_as_other) == []
    assert reasons(BASE, without, back_as_other) == [
        "features.i.type: integer -> boolean: what has one type cannot be read as the other"
    ]
    assert reasons(BASE, without, BASE) == []


def test_models_on_one_lane_share_key_and_event_time() -> None:
    one = load_contract(BASE.replace("model: m", "model: one\nlane: shared"))
    two = BASE.replace("model: m", "model: two\nlane: shared")
    assert list(check_succession(load_contract(two), [], [one])) == []
    [finding] = check_succession(load_contract(two.replace("name: k", "name: z")), [], [one])
    assert finding.what == "differs from that of 'one', which shares the lane 'shared'"


def test_changes_are_told_field_by_field() -> None:
    before = load_contract(BASE + "policy: [{when: 'score < 0.5', do: go}, {do: stop}]\n")
    after = load_contract(
        BASE.replace("min: 0", "min: 1").replace(
            "  c: {type: string}", "  c: {type: string}\n  d: {type: boolean}"
        )
        + "policy: [{when: 'score < 0.4', do: go}, {do: stop}]\nvalue: 'score'\n"
    )
    assert [str(change) for change in changes(before.to_dict(), after.to_dict())] == [
        "~ features.a.min: 0 -> 1",
        "+ context.d: {type: boolean, protected: false, personal: false, missing: pass}",
        "~ policy[0].when: score < 0.5 -> score < 0.4",
        "+ value: score",
    ]
    assert changes(before.to_dict(), before.to_dict()) == []


# --- the fold


def planned(text: str, follows: int) -> ApplyPlan:
    return ApplyPlan("f", load_contract(text), text, follows, [])


def test_of_two_that_follow_the_same_revision_the_first_is_in_force() -> None:
    contracts = Contracts()
    first, second, third = (BASE.replace("30d", horizon) for horizon in ("30d", "40d", "50d"))
    assert contracts.apply(planned(first, 0).record("ann", 1))
    assert contracts.apply(planned(second, 1).record("ann", 2))
    assert not contracts.apply(planned(third, 1).record("ben", 3))
    assert contracts.current["m"].revision == 2
    assert contracts.current["m"].digest == load_contract(second).digest
    assert [applied.revision for applied in contracts.history["m"]] == [1, 2]
    assert load_contract(third).digest not in contracts.by_digest
    # The loser names the new revision, and wins.
    assert contracts.apply(planned(third, 2).record("ben", 4))
    assert contracts.current["m"].contract == load_contract(third)
    assert contracts.current["m"].source_text == third


def test_a_record_from_nowhere_counts_for_nothing() -> None:
    contracts = Contracts()
    assert not contracts.apply(planned(BASE, 3).record("ann", 1))
    record = planned(BASE, 0).record("ann", 1)
    assert not contracts.apply({**record, "revision": 2})
    assert contracts.current == {}


def test_models_do_not_disturb_one_another() -> None:
    contracts = Contracts()
    other = BASE.replace("model: m", "model: n\nlane: m")
    assert contracts.apply(planned(BASE, 0).record("ann", 1))
    assert contracts.apply(planned(other, 0).record("ann", 2))
    assert [applied.model for applied in contracts.on_lane("m")] == ["m", "n"]


# --- plans


def write(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(text)
    return paths


def test_a_plan_names_what_it_follows_and_leaves_the_fold_alone(tmp_path: Path) -> None:
    contracts = Contracts()
    [first] = plan(write(tmp_path, m=BASE), contracts)
    assert (first.follows, first.is_needed) == (0, True)
    assert contracts.current == {}
    contracts.apply(first.record("ann", 1))
    [again] = plan(write(tmp_path, m="# a remark\n" + BASE.replace("30d", "720h")), contracts)
    assert (again.follows, again.is_needed) == (1, False)
    [changed] = plan(write(tmp_path, m=BASE.replace("30d", "31d")), contracts)
    assert (changed.follows, changed.is_needed) == (1, True)


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    contracts = Contracts()
    contracts.apply(planned(BASE, 0).record("ann", 1))
    files = write(
        tmp_path,
        bad=BASE.replace("owner", "ownr").replace("model: m", "model: bad"),
        m=BASE.replace("name: k", "name: z"),
        copy=BASE.replace("model: m", "model: p"),
        twice=BASE.replace("model: m", "model: p"),
    )
    with pytest.raises(ContractError) as error:
        plan(files, contracts)
    problems = {(Path(problem.file).name, problem.line, problem.field) for problem in error.value.problems}
    assert problems == {
        ("bad.yaml", 2, "ownr"),
        ("bad.yaml", 1, "owner"),
        ("m.yaml", 3, "key"),
        ("twice.yaml", 1, "model"),
    }


def test_files_of_one_call_are_checked_against_each_other(tmp_path: Path) -> None:
    one = BASE.replace("model: m", "model: one\nlane: shared")
    files = write(
        tmp_path, one=one, two=one.replace("model: one", "model: two").replace("name: k", "name: z")
    )
    with pytest.raises(ContractError, match="shares the lane 'shared'"):
        plan(files, Contracts())


# --- changes that wait for a version


def in_service(role: str) -> dict[str, list[VersionInService]]:
    """Version 7 serves under a bound of 0 and no other."""

    def misfits(contract: ModelContract) -> list[Violation]:
        path = ("features", "a", "min")
        return [] if contract.features["a"].min == 0 else [Violation(path, "another bound", "leave it")]

    return {"m": [VersionInService(7, role, misfits)]}


@pytest.mark.parametrize(
    ("role", "waits"),
    [("champion", True), ("canary", True), ("arm", True), ("previous", False), ("shadow", False)],
)
def test_a_change_waits_for_versions_that_answer_and_for_no_other(
    role: str, waits: bool, tmp_path: Path
) -> None:
    contracts = Contracts()
    contracts.apply(planned(BASE, 0).record("ann", 1))
    files = write(tmp_path, m=BASE.replace("min: 0", "min: 1"))
    with pytest.raises(ContractError, match=rf"version 7 \({role}\) could not serve: another bound"):
        plan(files, contracts, in_service(role))
    [change] = plan(files, contracts, in_service(role), when_published=True)
    assert change.unfit == [f"version 7 ({role}): another bound"]
    assert (change.is_held, change.is_needed) == (waits, True)
    assert change.record("ann", 2).get("step") == (HOLD if waits else None)


def test_a_change_that_is_held_may_be_applied_again_and_another_one_may_not(tmp_path: Path) -> None:
    contracts = Contracts()
    contracts.apply(planned(BASE, 0).record("ann", 1))
    files = write(tmp_path, m=BASE.replace("min: 0", "min: 1"))
    [change] = plan(files, contracts, in_service("champion"), when_published=True)
    assert not contracts.apply(change.record("ann", 2))
    [again] = plan(files, contracts, in_service("champion"))
    assert (again.is_held, again.was_held, again.is_needed) == (True, True, False)
    [fits] = plan(files, contracts, {})
    assert (fits.is_held, fits.was_held, fits.is_needed) == (False, True, True)
    with pytest.raises(ContractError, match="another bound"):
        plan(write(tmp_path, m=BASE.replace("min: 0", "min: 2")), contracts, in_service("champion"))
