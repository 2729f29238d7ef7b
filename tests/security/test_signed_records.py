"""Whoever can write to a control topic, and what comes of it: nothing, but a severe alert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.reports import alert, report
from tests.support.scoring import CONTRACT, NOW, REQUEST, Bench, Publisher, serving
from tests.unit.rollout.test_rollout_logic import BETTER, Desk, desk

from tailrace.access.home_identity import home_id
from tailrace.contracts.records import lanes
from tailrace.contracts.state.lane_clocks import LaneClock, record_of
from tailrace.contracts.state.records import ControlRecords
from tailrace.signing.keys import KeyFile, SigningKey, key_path
from tailrace.signing.records import HEADER, sign_command, sign_record
from tailrace.signing.signers import OWNER, ROLLOUT, SERVICES
from tailrace.signing.trust import TrustStore, make_keys, new_signing_key, own_key
from tailrace.streaming.records import Record
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control, message_of, records
from tailrace.trainer.events import Events

KINDS = {
    lanes.ROLLOUTS: "Rollout",
    lanes.CONTRACTS: "Contract",
    lanes.CLOCKS: "Clock",
    lanes.ALERTS: "Alert",
    lanes.PERFORMANCE_REPORTS: "PerformanceReport",
}
SIGNED_BY = {"Rollout": "rollout", "Alert": "evaluator", "PerformanceReport": "evaluator"}
Forge = Callable[[Control, Record], Record]


def unsigned(control: Control, good: Record) -> Record:
    return good._replace(headers=[])


def by_a_stranger(control: Control, good: Record) -> Record:
    signature = sign_record(
        KINDS[good.topic], control.by("owner").home, *good[:1], good.key, good.value, SigningKey.generate()
    )
    return good._replace(headers=[signature.to_header()])


def by_another_service(control: Control, good: Record) -> Record:
    return control.by("joiner").signed(KINDS[good.topic], unsigned(control, good))


def in_another_home(control: Control, good: Record) -> Record:
    service = SIGNED_BY.get(KINDS[good.topic], "owner")
    elsewhere = records(control.by("owner").registry, service, home="f" * 32)
    return elsewhere.signed(KINDS[good.topic], unsigned(control, good))


def under_another_key(control: Control, good: Record) -> Record:
    return good._replace(key=b"other")


def altered(control: Control, good: Record) -> Record:
    value = good.value or b""
    return good._replace(value=value[:-1] + bytes([value[-1] ^ 1]))


def signed_twice(control: Control, good: Record) -> Record:
    return good._replace(headers=[*by_a_stranger(control, good).headers, *good.headers])


FORGERIES = [
    unsigned,
    by_a_stranger,
    by_another_service,
    in_another_home,
    under_another_key,
    altered,
    signed_twice,
]
every_forgery = pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)


def refused(found: Desk, record: Record) -> list[dict[str, Any]]:
    """The alerts that the rollout service raises of a record, and nothing else."""
    output = found.happens(record)
    assert {written.topic for written in output.records} <= {lanes.ALERTS}
    return found.alerts(output)


def one_severe_alert(alerts: list[dict[str, Any]], topic: str) -> None:
    (alert,) = alerts
    assert (alert["kind"], alert["severity"], alert["model"]) == ("record-refused", "severe", None)
    assert alert["source"]["topic"] == topic


def answering(bench: Bench) -> int:
    (event,) = bench.events(bench.requests(REQUEST))
    version: int = event["version"]
    return version


# Rollouts ---


@every_forgery
def test_a_forged_rollout_promotes_nobody(forge: Forge) -> None:
    bench = serving()
    bench.control(bench.publisher.manifest(2))
    good = bench.publisher.rollout(champion=2, previous=1)
    bench.control(forge(bench.publisher.control, good))
    assert answering(bench) == 1
    bench.control(good)
    assert answering(bench) == 2
    one_severe_alert(refused(Desk(bench.publisher), forge(bench.publisher.control, good)), lanes.ROLLOUTS)
    assert refused(Desk(bench.publisher), good) == []


def test_a_copy_of_an_older_step_changes_nothing() -> None:
    bench = serving()
    bench.control(bench.publisher.manifest(2))
    steps = [bench.publisher.rollout(champion=2, previous=1), bench.publisher.rollout(champion=1, previous=2)]
    bench.control(*steps, steps[0])
    assert answering(bench) == 1
    bench.control(bench.publisher.rollout(champion=2, previous=1))
    assert answering(bench) == 2


def test_another_models_step_switches_nothing_off() -> None:
    bench = serving()
    others = Publisher(bench.publisher.registry).rollout("churn", off=True)
    bench.control(others._replace(key=b"credit"))
    bench.control(others._replace(value=bench.publisher.rollout(follows=1, off=True).value))
    assert answering(bench) == 1


@pytest.mark.parametrize("fact", ["sequence", "event_time"])
@pytest.mark.parametrize("text", ["abc", "", "1e9", "9" * 5_000, "NaN"])
def test_a_step_with_evidence_that_is_no_number_ends_nobody(fact: str, text: str) -> None:
    bench = serving()
    bad = bench.publisher.rollout(champion=1, follows=1, evidence={fact: text})
    bench.control(bad)
    assert answering(bench) == 1
    one_severe_alert(refused(Desk(bench.publisher), bad), lanes.ROLLOUTS)
    events = Events(bench.publisher.control.by("trainer"), lambda *_: None)
    assert events.of(message_of(bad)) is None


# Contracts ---


@every_forgery
def test_a_forged_contract_approves_nobody(forge: Forge) -> None:
    bench = serving()
    before = bench.events(bench.requests(REQUEST | {"debt_ratio": 5.0}))[0]["action"]
    good = bench.publisher.contract(CONTRACT.replace("{do: refuse}", "{do: approve}"))
    bench.control(forge(bench.publisher.control, good))
    (event,) = bench.events(bench.requests(REQUEST | {"debt_ratio": 5.0, "request_id": "r2"}))
    assert event["action"] == before != "approve"
    bench.control(good)
    (event,) = bench.events(bench.requests(REQUEST | {"debt_ratio": 5.0, "request_id": "r3"}))
    assert event["action"] == "approve"
    one_severe_alert(refused(Desk(bench.publisher), forge(bench.publisher.control, good)), lanes.CONTRACTS)
    assert refused(Desk(bench.publisher), good) == []


# Clocks ---


@every_forgery
def test_a_forged_clock_does_not_take_the_lane_over(forge: Forge) -> None:
    bench = serving()
    good = bench.publisher.control.record(
        "Clock", record_of("credit", LaneClock("replay", "ada", NOW)), b"credit"
    )
    bench.control(forge(bench.publisher.control, good))
    assert bench.requests(REQUEST | {"applied_at": None}).dead_letters == []
    bench.control(good)
    assert len(bench.requests(REQUEST | {"applied_at": None, "request_id": "r2"}).dead_letters) == 1
    one_severe_alert(refused(Desk(bench.publisher), forge(bench.publisher.control, good)), lanes.CLOCKS)
    assert refused(Desk(bench.publisher), good) == []


def test_a_copy_of_an_older_clock_changes_nothing() -> None:
    bench = serving()
    clocks = [LaneClock("replay", "ada", NOW), LaneClock("wall", "ada", NOW, 2)]
    written = [bench.publisher.control.record("Clock", record_of("credit", c), b"credit") for c in clocks]
    bench.control(*written, written[0])
    assert bench.requests(REQUEST | {"applied_at": None}).dead_letters == []


# Alerts and reports ---


def promoted() -> Desk:
    """Version 2 answers, and a severe alert about it would roll it back."""
    rollout = desk(2)
    rollout.happens(rollout.command("promote", 2))
    assert rollout.steps[-1]["champion"] == 2
    return rollout


@every_forgery
def test_a_forged_severe_alert_rolls_nothing_back(forge: Forge) -> None:
    rollout = promoted()
    good = rollout.publisher.control.record("Alert", alert(2, 3))
    one_severe_alert(refused(rollout, forge(rollout.publisher.control, good)), lanes.ALERTS)
    assert rollout.steps[-1]["champion"] == 2
    rollout.happens(good)
    assert rollout.steps[-1]["step"] == "rollback"


def test_no_service_speaks_for_another() -> None:
    rollout = promoted()
    facts = alert(2, 3, service="drift")  # a drop of quality is the evaluator's to tell
    one_severe_alert(refused(rollout, rollout.publisher.control.record("Alert", facts)), lanes.ALERTS)
    assert rollout.steps[-1]["champion"] == 2


def test_a_copy_of_an_alert_that_was_resolved_rolls_nothing_back_again() -> None:
    rollout = promoted()
    raised = rollout.publisher.control.record("Alert", alert(2, 3))
    rollout.happens(raised)
    rollout.happens(rollout.publisher.control.record("Alert", alert(2, 3, state="resolved")))
    rollout.happens(rollout.command("promote", 2))
    assert rollout.steps[-1]["champion"] == 2
    one_severe_alert(refused(rollout, raised), lanes.ALERTS)
    assert rollout.steps[-1]["champion"] == 2


@every_forgery
def test_a_forged_report_promotes_nobody(forge: Forge) -> None:
    rollout = desk(2)
    reports = [report(day=0, gains=BETTER), report(day=1, gains=BETTER)]
    good = [rollout.publisher.control.record("PerformanceReport", record) for record in reports]
    for record in good:
        one_severe_alert(
            refused(rollout, forge(rollout.publisher.control, record)), lanes.PERFORMANCE_REPORTS
        )
    assert rollout.steps[-1]["champion"] == 1
    rollout.happens(*good)
    assert rollout.steps[-1]["champion"] == 2


def test_the_trainer_folds_no_copy_of_an_alert() -> None:
    control = Control(MemoryRegistry())
    events = Events(control.by("trainer"), lambda *_: None)
    record = control.record("Alert", alert(2, 3))
    assert events.of(message_of(record)) is not None
    assert events.of(message_of(record)) is not None, "the same message once more"
    assert events.of(message_of(record, 7)) is None
    assert events.of(message_of(unsigned(control, control.record("Alert", alert(2, 4))), 8)) is None


# Commands ---


def test_a_command_from_another_home_counts_for_nothing(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "there"
    make_keys(elsewhere)
    make_keys(here)
    key = own_key(elsewhere)
    trust = TrustStore(here / "keys")
    trust.trust(key.public)
    rollout = desk(2, refuse_command=trust.command_refusal)
    plain = rollout.publisher.control.decode("Command", rollout.command("promote", 2).value)
    copied = rollout.publisher.control.record("Command", sign_command(home_id(elsewhere), plain, key))
    (alert,) = rollout.alerts(rollout.happens(copied))
    assert alert["kind"] == "command-refused"
    assert "does not fit" in alert["summary"]
    assert rollout.steps[-1]["champion"] == 1
    rollout.happens(rollout.publisher.control.record("Command", sign_command(home_id(here), plain, key)))
    assert rollout.steps[-1]["champion"] == 2


def test_a_command_that_was_refused_is_not_carried_out_when_it_is_copied_later() -> None:
    rollout = desk(1)
    early = rollout.command("promote", 2, command_id="early")
    assert [alert["kind"] for alert in rollout.alerts(rollout.happens(early))] == ["command-refused"]
    rollout.happens(rollout.publisher.manifest(2))
    rollout.happens(early)
    assert rollout.steps[-1]["champion"] == 1


# Keys ---


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_keys(tmp_path)
    return tmp_path


def step(revision: int) -> dict[str, Any]:
    return {
        "model": "credit", "revision": revision, "follows": revision - 1, "step": "freeze", "reason": "", "by": "a",
        "source": {"topic": lanes.COMMANDS, "partition": 0, "offset": 0},
    }  # fmt: skip


def test_each_service_has_a_key_of_its_own_that_its_owner_alone_reads(home: Path) -> None:
    paths = [key_path(home, signer) for signer in (OWNER, *SERVICES)]
    assert len({KeyFile(home, signer).key().key_id for signer in (OWNER, *SERVICES)}) == len(paths) == 10
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in paths} == {0o700}


@pytest.mark.parametrize("signer", SERVICES)
def test_a_services_key_signs_no_contract(signer: str, home: Path) -> None:
    publisher = Publisher()
    by = ControlRecords.of_home(publisher.registry, home, signer)
    signed = by.signed("Contract", publisher.contract()._replace(headers=[]))
    assert "not trusted here as owner" in (by.judge(message_of(signed)).refusal or "")


def test_a_key_that_is_replaced_counts_on_and_the_new_one_at_once(home: Path) -> None:
    by = ControlRecords.of_home(MemoryRegistry(), home, ROLLOUT)
    first = by.record("Rollout", step(1))
    assert by.read(message_of(first)) is not None
    new_signing_key(home, signer=ROLLOUT)
    second = by.record("Rollout", step(2))  # without a restart
    assert dict(first.headers)[HEADER][:16] != dict(second.headers)[HEADER][:16]
    assert [by.read(message_of(each, at)) is not None for at, each in enumerate((first, second))] == [
        True,
        True,
    ]


def test_what_a_stolen_key_signs_after_its_revocation_counts_for_nothing_and_what_it_signed_before_does(
    home: Path,
) -> None:
    by = ControlRecords.of_home(MemoryRegistry(), home, ROLLOUT)
    stolen = KeyFile(home, ROLLOUT).key()
    written = [by.record("Rollout", step(revision)) for revision in (1, 2, 3)]
    new_signing_key(home, signer=ROLLOUT)
    TrustStore(home / "keys").revoke(stolen.key_id, {lanes.ROLLOUTS: 2})
    for reader in (by, ControlRecords.of_home(by.registry, home)):  # what runs, and what starts afterwards
        counts = [reader.judge(message_of(each, at)).refusal for at, each in enumerate(written)]
        assert counts[:2] == [None, None]
        assert "revoked" in (counts[2] or "")
    assert by.read(message_of(by.record("Rollout", step(3)), 3)) is not None


def test_a_key_that_is_revoked_entirely_never_counted(home: Path) -> None:
    by = ControlRecords.of_home(MemoryRegistry(), home, ROLLOUT)
    written = by.record("Rollout", step(1))
    TrustStore(home / "keys").revoke(KeyFile(home, ROLLOUT).key().key_id, {})
    assert by.read(message_of(written)) is None
