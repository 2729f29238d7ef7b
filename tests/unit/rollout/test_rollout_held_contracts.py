"""The rollout service brings a held contract into force once every version that answers fits it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.scoring import CONTRACT
from tests.unit.rollout.test_rollout_logic import Desk

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.schemas import request_schema, subject
from tailrace.contracts.state.contracts import (
    HOLD,
    RELEASE,
    WITHDRAW,
    AppliedContract,
    Contracts,
    record_of,
)
from tailrace.errors import Unavailable
from tailrace.models.catalog import Catalog
from tailrace.models.rollout_state.fold import RolloutState
from tailrace.rollout.decide import promote
from tailrace.rollout.held_contracts import HeldContracts
from tailrace.rollout.package_trust import PackageTrust
from tailrace.streaming.processor import Output
from tailrace.streaming.records import Record
from tailrace.testing.control_records import manifest_record
from tailrace.testing.formula_model import IMPUTE, formula_model

NOW_IMPUTED = CONTRACT.replace("debt_ratio: {", "debt_ratio: {missing: impute, ")


class HoldingDesk(Desk):
    """Reads contracts back as the loop would, and publishes manifests that say what they were built for."""

    def read_back(self, output: Output) -> None:
        super().read_back(output)
        written = [record for record in output.records if record.topic == lanes.CONTRACTS]
        self.released += [self.publisher.control.decode("Contract", record.value) for record in written]
        self.bench.control(*written)

    def happens(self, *records: Record, read_back: bool = True) -> Output:
        messages = [self.bench.message(record) for record in records]
        followed = (lanes.MANIFESTS, lanes.CONTRACTS)
        self.logic.control([message for message in messages if message.topic() in followed])
        output = self.bench.process(messages)
        if read_back:
            self.read_back(output)
            # What it has written itself is an input of it, too.
            if again := [record for record in output.records if record.topic == lanes.ROLLOUTS]:
                self.read_back(self.bench.process([self.bench.message(record) for record in again]))
        return output

    released: list[dict[str, Any]]


def desk() -> HoldingDesk:
    assert NOW_IMPUTED != CONTRACT
    rollout = HoldingDesk()
    rollout.released = []
    rollout.bench.control(rollout.publisher.contract(CONTRACT))
    rollout.happens(version(rollout, 1))
    assert rollout.names() == ["first-champion"]
    return rollout


def version(rollout: Desk, number: int, *, fits: bool = False) -> Record:
    impute = {**IMPUTE, "debt_ratio": 0.5} if fits else IMPUTE
    model = formula_model(load_contract(CONTRACT), number, impute=impute)
    rollout.publisher.models["credit", number] = model
    record = manifest_record("credit", number, model.digest) | {"manifest": model.manifest.to_bytes()}
    return rollout.publisher.control.record("ModelManifest", record, f"credit/{number}".encode())


def step(rollout: Desk, name: str | None, text: str = NOW_IMPUTED, revision: int = 2) -> Record:
    contract = load_contract(text)
    held = AppliedContract("credit", revision, contract.digest, contract.resolved_json, text, "ada", 7)
    return rollout.publisher.control.record("Contract", record_of(held, name, "ada", 7), b"credit")


def test_it_is_released_once_when_a_version_that_fits_answers() -> None:
    rollout = desk()
    rollout.happens(step(rollout, HOLD))
    rollout.happens(version(rollout, 2, fits=True))
    assert rollout.released == []  # it is in shadow
    rollout.happens(rollout.command("promote", 2))
    (released,) = rollout.released
    contract = load_contract(NOW_IMPUTED)
    assert (released["step"], released["revision"], released["follows"]) == (RELEASE, 2, 1)
    assert (released["digest"], released["applied_by"]) == (contract.digest, "ada")
    rollout.happens(rollout.command("freeze"))
    assert len(rollout.released) == 1


def newest_request_schema(rollout: Desk) -> Any:
    latest = rollout.publisher.registry.latest(subject("credit.requests", "credit", "credit"))
    return latest and latest.schema


def test_producers_get_its_schema_when_it_comes_into_force() -> None:
    rollout = desk()
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(rollout.command("promote", 2))
    rollout.publisher.registry.away = True
    with pytest.raises(Unavailable):
        rollout.happens(step(rollout, HOLD))
    rollout.publisher.registry.away = False
    assert newest_request_schema(rollout) is None
    rollout.happens(rollout.command("freeze"))
    assert len(rollout.released) == 1
    assert newest_request_schema(rollout) == request_schema(load_contract(NOW_IMPUTED))


def test_it_stays_held_where_the_registry_refuses_its_schemas() -> None:
    rollout = desk()
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(rollout.command("promote", 2))
    registry = rollout.publisher.registry
    registry.register("credit.requests-value", {"type": "record", "name": "Another", "fields": []})
    rollout.happens(step(rollout, HOLD))
    assert rollout.released == []


def test_nobody_goes_back_to_a_version_that_cannot_serve_the_contract() -> None:
    rollout = desk()
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(version(rollout, 3))
    rollout.happens(rollout.command("promote", 2))
    rollout.happens(step(rollout, HOLD))
    (_,) = rollout.released
    steps = len(rollout.steps)
    for command, number in (("rollback", 1), ("promote", 3)):
        refused = rollout.happens(rollout.command(command, number))
        (alert,) = rollout.alerts(refused)
        assert f"version {number} cannot serve the contract in force" in alert["summary"]
        assert "debt_ratio" in alert["summary"]
    assert len(rollout.steps) == steps


def test_a_version_that_fits_what_is_held_may_answer_before() -> None:
    contract = load_contract(CONTRACT)
    held = load_contract(CONTRACT.replace("debt_ratio: {", "debt_ratio: {missing: impute, "))
    trust = PackageTrust(lambda record: None, lambda *_: None)  # type: ignore[arg-type, return-value]
    rollout = desk()
    trust.catalog.apply(rollout.publisher.control.decode("ModelManifest", version(rollout, 2).value))
    before = RolloutState("credit", champion=1)
    going = promote(before, 2, "because")
    assert trust.unfit(before, going, []) is None
    assert trust.unfit(before, going, [contract]) is None
    assert trust.unfit(before, going, [held, contract]) is None
    assert "debt_ratio" in (trust.unfit(before, going, [held]) or "")


def test_it_is_not_released_while_what_answers_does_not_fit() -> None:
    rollout = desk()
    rollout.happens(step(rollout, HOLD))
    rollout.happens(version(rollout, 2))
    rollout.happens(rollout.command("promote", 2))
    rollout.happens(rollout.command("rollback"))
    assert rollout.released == []


def test_a_version_that_stands_by_need_not_fit() -> None:
    rollout = desk()
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(rollout.command("promote", 2))
    assert rollout.steps[-1]["previous"] == 1
    rollout.happens(step(rollout, HOLD))
    assert len(rollout.released) == 1


def test_what_was_withdrawn_is_not_released() -> None:
    rollout = desk()
    rollout.happens(step(rollout, HOLD), step(rollout, WITHDRAW))
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(rollout.command("promote", 2))
    assert rollout.released == []


def test_nothing_is_released_twice_while_the_first_is_yet_to_be_read_back() -> None:
    rollout = desk()
    rollout.happens(version(rollout, 2, fits=True))
    rollout.happens(rollout.command("promote", 2))
    asked = (step(rollout, HOLD), rollout.command("freeze"))
    outputs = [rollout.happens(record, read_back=False) for record in asked]
    contracts = [r for output in outputs for r in output.records if r.topic == lanes.CONTRACTS]
    assert len(contracts) == 1


def test_a_hold_that_the_control_topics_have_not_shown_is_waited_for() -> None:
    rollout = desk()
    output = Desk.happens(rollout, step(rollout, None), step(rollout, HOLD), read_back=False)
    assert [pause.reason for pause in output.paused.values()]
    assert "is yet to be read back" in (rollout.logic.waiting() or "")


def test_it_is_not_released_while_nothing_is_known_of_a_version_that_answers() -> None:
    """The topic of manifests is another one than that of rollouts: what a version is may come after what it does."""
    contracts = Contracts()
    for text, name in ((CONTRACT, None), (NOW_IMPUTED, HOLD)):
        contract, revision = load_contract(text), 1 if name is None else 2
        applied = AppliedContract("credit", revision, contract.digest, contract.resolved_json, text, "ada", 7)
        contracts.apply(record_of(applied, name, "ada", 7))
    for champion, fitting in ((None, ["credit"]), (3, [])):
        rollouts: Any = _Rollouts(champion)
        nothing: Any = None
        held = HeldContracts(nothing, contracts, Catalog(None), rollouts)
        assert [each.model for each in held.fitting([])] == fitting


class _Rollouts:
    def __init__(self, champion: int | None) -> None:
        self._champion = champion

    def state(self, model: str) -> RolloutState:
        return RolloutState(model, champion=self._champion)
