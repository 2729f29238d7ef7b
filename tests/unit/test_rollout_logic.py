"""The rollout service's logic: manifests and commands in, steps and alerts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.scoring import NOW, REFUSED, Bench, Publisher

from tailrace.contracts import lanes
from tailrace.kit.errors import Retry
from tailrace.kit.log import Committed
from tailrace.kit.logic import Output
from tailrace.kit.messages import Record, TopicPartition
from tailrace.models.errors import PackageRefused
from tailrace.models.sign import SigningKey, sign_command
from tailrace.models.trust import TrustStore
from tailrace.rollout.logic import RolloutLogic

COMMANDS = TopicPartition(lanes.COMMANDS, 0)
MANIFESTS = TopicPartition(lanes.MANIFESTS, 0)


class Desk:
    """Drives a rollout logic by hand, and hands what it writes back to it as the loop would."""

    def __init__(self, publisher: Publisher | None = None, metadata: str = "", **options: Any) -> None:
        self.publisher = publisher or Publisher()
        self.opened: list[tuple[int, int]] = []
        logic = RolloutLogic(
            self.publisher.registry,
            options.get("verify", lambda record: None),
            self._open,
            options.get("refuse_command", lambda command: None),
        )
        self.bench = Bench(logic, self.publisher)
        logic.assigned({TopicPartition(topic, 0): Committed(0, metadata) for topic in (COMMANDS, MANIFESTS)})
        self.logic = logic
        self.steps: list[dict[str, Any]] = []

    def _open(self, record: Mapping[str, Any], contract: Any, newer_than: int) -> Any:
        self.opened.append((record["version"], newer_than))
        return self.publisher.open(record, contract)

    def happens(self, *records: Record, read_back: bool = True) -> Output:
        output = self.bench.process([self.bench.message(record) for record in records])
        if read_back:
            self.read_back(output)
        return output

    def read_back(self, output: Output) -> None:
        written = [record for record in output.records if record.topic == lanes.ROLLOUTS]
        self.bench.control(*written)
        self.steps += [self.publisher.control.decode("Rollout", record.value) for record in written]

    def command(self, kind: str, version: int | None = None, **changes: Any) -> Record:
        facts = {
            "command_id": f"{kind}-{version}-{len(self.steps)}",
            "model": "credit",
            "command": kind,
            "version": version,
            "follows": None,
            "by": "ada",
            "reason": "because",
            "issued_at": NOW,
        } | changes
        return Record(lanes.COMMANDS, self.publisher.control.encode("Command", facts), b"credit")

    def alerts(self, output: Output) -> list[dict[str, Any]]:
        return self.bench.alerts(output)


def desk(versions: int = 1, **options: Any) -> Desk:
    found = Desk(**options)
    found.bench.control(found.publisher.contract())
    for version in range(1, versions + 1):
        found.happens(found.publisher.manifest(version))
    return found


def test_the_first_version_becomes_champion_once_its_checks_pass() -> None:
    found = desk()
    (step,) = found.steps
    expected = {
        "model": "credit",
        "revision": 1,
        "follows": 0,
        "step": "first-champion",
        "version": 1,
        "champion": 1,
        "previous": None,
        "by": "rollout",
        "command_id": None,
        "source": {"topic": lanes.MANIFESTS, "partition": 0, "offset": 0},
        "contract_digest": found.publisher.contracts["credit"][0].digest,
    }
    assert {name: step[name] for name in expected} == expected
    digest = found.publisher.models["credit", 1].digest  # type: ignore[union-attr]
    assert step["evidence"]["artifact_digest"] == digest
    assert step["evidence"]["sequence"] == "1"
    assert found.opened == [(1, 0)]


def test_later_versions_are_candidates_and_must_be_newer() -> None:
    found = desk(3)
    assert [s["step"] for s in found.steps] == ["first-champion", "candidate", "candidate"]
    assert found.steps[-1]["candidates"] == [2, 3]
    assert found.opened == [(1, 0), (2, 1), (3, 2)]


def test_a_promotion_names_who_asked_and_why() -> None:
    found = desk(2)
    found.happens(found.command("promote", 2, follows=2, command_id="c1"))
    step = found.steps[-1]
    expected = {
        "step": "promote",
        "champion": 2,
        "previous": 1,
        "candidates": [],
        "revision": 3,
        "by": "ada",
        "reason": "because",
        "command_id": "c1",
        "source": {"topic": lanes.COMMANDS, "partition": 0, "offset": 0},
    }
    assert {name: step[name] for name in expected} == expected


def test_a_batch_of_several_is_decided_one_on_top_of_the_other() -> None:
    found = desk()
    publisher = found.publisher
    found.happens(
        publisher.manifest(2),
        found.command("promote", 2, command_id="a"),
        found.command("rollback", command_id="b"),
        found.command("promote", 2, command_id="c"),
    )
    assert [s["revision"] for s in found.steps] == [1, 2, 3, 4, 5]
    assert [s["champion"] for s in found.steps] == [1, 1, 2, 1, 2]
    assert found.opened[-1] == (2, 1)


def test_a_repeated_command_is_carried_out_once() -> None:
    found = desk(2)
    again = found.command("promote", 2, command_id="c1")
    assert len(found.happens(again, again).records) == 1
    assert found.happens(again).records == []
    assert found.steps[-1]["revision"] == 3


def test_a_stale_command_is_refused_with_the_reason() -> None:
    found = desk(2)
    output = found.happens(found.command("promote", 2, follows=1, command_id="late"))
    assert len(found.steps) == 2
    (alert,) = found.alerts(output)
    assert (alert["kind"], alert["model"], alert["version"]) == ("command-refused", "credit", 2)
    assert "revision 2 is in force" in alert["summary"]
    assert alert["detail"]["command_id"] == "late"
    assert alert["source"] == {"topic": lanes.COMMANDS, "partition": 0, "offset": 0}


def test_commands_need_a_trusted_signature(tmp_path: Any) -> None:
    home, stranger = SigningKey.generate(), SigningKey.generate()
    trust = TrustStore(tmp_path)
    trust.trust(home.public)
    found = desk(2, refuse_command=lambda command: trust.command_refusal(dict(command)))
    plain = found.publisher.control.decode("Command", found.command("promote", 2).value)
    unsigned = {k: v for k, v in plain.items() if k not in ("signature", "key_id")}

    def sent(command: dict[str, Any]) -> Output:
        value = found.publisher.control.encode("Command", command)
        return found.happens(Record(lanes.COMMANDS, value, b"credit"))

    for bad in (
        unsigned,
        sign_command(unsigned, stranger),
        sign_command(unsigned, home) | {"version": 1},
        sign_command(unsigned, home) | {"signature": b"x" * 64},
    ):
        (alert,) = found.alerts(sent(bad))
        assert alert["kind"] == "command-refused"
    assert len(found.steps) == 2
    assert found.alerts(sent(sign_command(unsigned, home))) == []
    assert found.steps[-1]["champion"] == 2


@pytest.mark.parametrize("error", [PackageRefused("signature", "by nobody"), REFUSED, RuntimeError("bang")])
def test_a_refused_package_is_rejected_with_an_alert_that_names_the_check(error: Exception) -> None:
    found = desk()
    output = found.happens(found.publisher.manifest(2, error))
    step = found.steps[-1]
    check = getattr(error, "check", "open")
    assert (step["step"], step["champion"], step["rejected"]) == ("reject", 1, [2])
    assert step["evidence"]["check"] == check
    (alert,) = found.alerts(output)
    assert (alert["kind"], alert["version"]) == ("package-refused", 2)
    assert alert["detail"]["check"] == check
    found.happens(found.command("promote", 2))
    assert found.steps[-1]["champion"] == 1


def test_a_package_that_cannot_be_read_for_the_moment_is_waited_for() -> None:
    found = desk()
    manifest = found.publisher.manifest(2, Retry("chunks away"))
    with pytest.raises(Retry):
        found.happens(manifest)
    assert len(found.steps) == 1


def test_a_version_of_an_unknown_model_waits_for_its_contract() -> None:
    found = Desk()
    found.publisher.contract()
    output = found.happens(found.publisher.manifest(1), found.command("promote", 1))
    assert output.holds.keys() == {MANIFESTS}
    assert "contract" in (found.logic.waiting() or "")
    assert [a["kind"] for a in found.alerts(output)] == ["command-refused"]


def test_a_version_of_an_unknown_model_that_nobody_trusted_signed_waits_for_nothing() -> None:
    def distrust(record: Mapping[str, Any]) -> None:
        raise PackageRefused("signature", "by nobody")

    found = Desk(verify=distrust)
    found.publisher.contract()
    output = found.happens(found.publisher.manifest(1))
    assert output.holds == {}
    assert [s["step"] for s in found.steps] == ["reject"]


def test_nothing_is_decided_before_the_steps_of_before_are_read_back() -> None:
    found = desk(2)
    output = found.happens(found.command("promote", 2), read_back=False)
    later = found.command("rollback")
    held = found.happens(later)
    assert held.holds.keys() == {COMMANDS}
    assert held.records == []
    found.read_back(output)
    found.happens(later)
    assert [s["step"] for s in found.steps[-2:]] == ["promote", "rollback"]
    assert found.logic.waiting() is None


def test_a_new_instance_waits_for_the_steps_of_the_last_one() -> None:
    first = desk(2)
    output = first.happens(first.command("promote", 2))
    second = Desk(first.publisher, output.metadata)
    second.bench.control(first.publisher.contract())
    assert second.happens(second.command("rollback")).holds.keys() == {COMMANDS}


def test_a_step_by_somebody_else_that_lost_changes_nothing() -> None:
    found = desk()
    found.bench.control(found.publisher.rollout(champion=9, follows=0))
    found.happens(found.publisher.manifest(2))
    assert found.steps[-1]["champion"] == 1
    assert found.steps[-1]["revision"] == 2


def test_what_cannot_be_read_is_skipped() -> None:
    found = desk()
    output = found.happens(Record(lanes.COMMANDS, b"rubbish"), Record(lanes.MANIFESTS, None))
    assert output.records == []
    assert output.holds == {}


def test_models_do_not_mix() -> None:
    found = desk()
    text = "{model: other, owner: {team: t}, features: {x: {type: number}}, target: {name: y, type: boolean}}"
    found.bench.control(found.publisher.contract(text))
    found.happens(found.publisher.manifest(1, model="other"))
    assert [(s["model"], s["revision"], s["champion"]) for s in found.steps] == [
        ("credit", 1, 1),
        ("other", 1, 1),
    ]
