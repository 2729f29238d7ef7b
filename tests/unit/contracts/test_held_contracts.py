"""The fold of contracts that wait for a version: held, released, withdrawn, dropped."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.client.facts import contracts_in_force
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.checks import RecordRefused, check_contract
from tailrace.contracts.state.contracts import HOLD, RELEASE, WITHDRAW, AppliedContract, Contracts, record_of
from tailrace.contracts.state.kinds import KINDS, signers_of
from tailrace.signing.signers import OWNER, ROLLOUT

TEXT = (
    "model: m\nowner: {team: t}\nfeatures: {a: {type: number, max: MOST}}\ntarget: {name: y, type: boolean}\n"
)


def contract(most: int) -> ModelContract:
    return load_contract(TEXT.replace("MOST", str(most)))


def record(most: int, revision: int, step: str | None = None) -> Any:
    made = contract(most)
    applied = AppliedContract("m", revision, made.digest, made.resolved_json, TEXT, "ada", 1)
    return record_of(applied, step, "ada", 1)


def folded(*records: Any) -> Contracts:
    fold = Contracts()
    for offset, each in enumerate(records):
        check_contract(each)
        fold.apply(each, offset)
    assert fold.position == len(records)
    return fold


def in_force(fold: Contracts) -> tuple[int, float | None]:
    return fold.current["m"].revision, fold.current["m"].contract.features["a"].max


def test_what_is_held_is_not_in_force_until_it_is_released() -> None:
    held = folded(record(1, 1), record(2, 2, HOLD))
    assert in_force(held) == (1, 1.0)
    assert (held.held["m"].revision, held.held["m"].contract.features["a"].max) == (2, 2.0)
    assert contract(2).digest not in held.by_digest
    released = folded(record(1, 1), record(2, 2, HOLD), record(2, 2, RELEASE))
    assert in_force(released) == (2, 2.0)
    assert not released.held
    assert [each.revision for each in released.history["m"]] == [1, 2]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([record(2, 2, RELEASE)], id="nothing is held"),
        pytest.param([record(2, 2, HOLD), record(3, 2, RELEASE)], id="another is held"),
        pytest.param([record(2, 2, HOLD), record(2, 2, WITHDRAW), record(2, 2, RELEASE)], id="withdrawn"),
        pytest.param([record(2, 2, HOLD), record(3, 2, HOLD), record(2, 2, RELEASE)], id="held anew"),
        pytest.param([record(2, 3, HOLD), record(2, 3, RELEASE)], id="of another revision"),
    ],
)
def test_a_release_of_what_is_not_held_counts_for_nothing(records: list[Any]) -> None:
    assert in_force(folded(record(1, 1), *records)) == (1, 1.0)


def test_another_contract_that_comes_into_force_drops_what_was_held() -> None:
    fold = folded(
        record(1, 1), record(2, 2, HOLD), record(3, 2), record(2, 2, RELEASE), record(2, 3, RELEASE)
    )
    assert in_force(fold) == (2, 3.0)
    assert not fold.held


def test_what_was_withdrawn_may_be_held_again_and_released_once() -> None:
    steps = [record(2, 2, HOLD), record(2, 2, WITHDRAW), record(2, 2, HOLD), record(2, 2, RELEASE)]
    assert in_force(folded(record(1, 1), *steps, record(2, 2, RELEASE))) == (2, 2.0)


def test_only_the_owner_holds_and_only_the_rollout_service_releases() -> None:
    kind = KINDS["Contract"]
    assert [signers_of(kind, record(2, 2, step)) for step in (None, HOLD, WITHDRAW, RELEASE)] == [
        (OWNER,),
        (OWNER,),
        (OWNER,),
        (ROLLOUT,),
    ]


@pytest.mark.parametrize(
    "changes",
    [{"step": "hurry"}, {"step": HOLD}, {"step": WITHDRAW, "revision": 9}, {"step": HOLD, "follows": 0}],
)
def test_a_step_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecordRefused):
        check_contract(record(2, 2) | changes)


def test_an_application_sends_by_the_contract_in_force_whatever_is_held() -> None:
    other = record(2, 2, HOLD)
    assert contracts_in_force([record(1, 1), other])["m"].digest == contract(1).digest
    released = [record(1, 1), other, record(2, 2, RELEASE)]
    assert contracts_in_force(released)["m"].digest == contract(2).digest


@pytest.mark.parametrize(
    "garbage",
    [
        {},
        {"model": "m", "follows": 1, "revision": 2},
        {"model": "m", "follows": 1, "revision": 2, "resolved": "{", "digest": ""},
        {"model": "m", "follows": 1, "revision": 2, "resolved": "[]", "digest": ""},
        {"model": "m", "follows": "1", "revision": 2, "resolved": "{}", "digest": ""},
        {"model": ["m"], "follows": 0, "revision": 1, "resolved": "{}", "digest": ""},
        {**record(2, 2), "model": "other", "follows": 0, "revision": 1},
    ],
)
def test_what_cannot_be_a_contract_keeps_no_application_from_sending(garbage: dict[str, Any]) -> None:
    assert list(contracts_in_force([record(1, 1), garbage])) == ["m"]
    assert contracts_in_force([garbage, record(1, 1), record(2, 2)])["m"].digest == contract(2).digest
