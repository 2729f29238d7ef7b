"""The rollout service's logic: manifests and commands in, steps and alerts out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.reports import DAY, alert, report
from tests.support.scoring import CONTRACT, NOW, REFUSED, Bench, Publisher

from tailrace.contracts.records import lanes
from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.rollout.processor import RolloutProcessor
from tailrace.signing.keys import SigningKey
from tailrace.signing.records import sign_command
from tailrace.signing.trust import TrustStore
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.processor import Output
from tailrace.streaming.records import Record, TopicPartition
from tailrace.testing.signed_records import records

COMMANDS = TopicPartition(lanes.COMMANDS, 0)
MANIFESTS = TopicPartition(lanes.MANIFESTS, 0)
REPORTS = TopicPartition(lanes.PERFORMANCE_REPORTS, 0)
ALERTS = TopicPartition(lanes.ALERTS, 0)
INPUTS = (COMMANDS, MANIFESTS, REPORTS, ALERTS)
BETTER, WORSE = [0.25, 0.5] * 300, [-0.25, -0.5] * 300
UP, DOWN = [1.0, -0.9] * 300, [-1.0, 0.9] * 300
"""Better and worse in the mean, by no more than chance may be."""


class Desk:
    """Drives a rollout logic by hand, and hands what it writes back to it as the loop would."""

    def __init__(self, publisher: Publisher | None = None, metadata: str = "", **options: Any) -> None:
        self.publisher = publisher or Publisher()
        self.opened: list[tuple[int, int]] = []
        logic = RolloutProcessor(
            records(self.publisher.registry, "rollout"),
            options.get("verify", lambda record: None),
            self._open,
            options.get("refuse_command", lambda *_: None),
        )
        self.bench = Bench(logic, self.publisher)
        self.logic = logic
        self.history = logic.assigned({partition: Committed(0, metadata) for partition in INPUTS})
        self.told = 0
        self.steps: list[dict[str, Any]] = []
        self.written: list[Record] = []

    def _open(self, record: Mapping[str, Any], contract: Any, newer_than: int) -> Any:
        self.opened.append((record["version"], newer_than))
        return self.publisher.open(record, contract)

    def happens(self, *records: Record, read_back: bool = True) -> Output:
        messages = [self.bench.message(record) for record in records]
        self.logic.control([message for message in messages if message.topic() == lanes.MANIFESTS])
        output = self.bench.process(messages)
        if read_back:
            self.read_back(output)
        return output

    def read_back(self, output: Output) -> None:
        written = [record for record in output.records if record.topic == lanes.ROLLOUTS]
        self.bench.control(*written)
        self.written += written
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
        return self.publisher.control.record("Command", facts, b"credit")

    def reports(self, *reports: dict[str, Any], **options: Any) -> Output:
        control = self.publisher.control
        return self.happens(*(control.record("PerformanceReport", each) for each in reports), **options)

    def alert(self, *args: Any, **changes: Any) -> Output:
        self.told += 1  # no service says the same twice, at the same time
        facts = alert(*args, **{"at": self.told, **changes})
        return self.happens(self.publisher.control.record("Alert", facts))

    def names(self) -> list[str]:
        return [step["step"] for step in self.steps]

    def alerts(self, output: Output) -> list[dict[str, Any]]:
        return self.bench.alerts(output)


def desk(versions: int = 1, contract: str = CONTRACT, **options: Any) -> Desk:
    rollout = Desk(**options)
    rollout.bench.control(rollout.publisher.contract(contract))
    for version in range(1, versions + 1):
        rollout.happens(rollout.publisher.manifest(version))
    return rollout


def test_the_first_version_becomes_champion_once_its_checks_pass() -> None:
    rollout = desk()
    (step,) = rollout.steps
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
        "contract_digest": rollout.publisher.contracts["credit"][0].digest,
    }
    assert {name: step[name] for name in expected} == expected
    digest = rollout.publisher.models["credit", 1].digest  # type: ignore[union-attr]
    assert step["evidence"]["artifact_digest"] == digest
    assert step["evidence"]["sequence"] == "1"
    assert rollout.opened == [(1, 0)]


def test_later_versions_go_into_shadow_by_themselves_and_must_be_newer() -> None:
    rollout = desk(3)
    assert rollout.names() == ["first-champion", "candidate", "shadow", "candidate", "shadow"]
    assert (rollout.steps[-1]["candidates"], rollout.steps[-1]["shadow"]) == ([], [2, 3])
    assert {(step["by"], step["command_id"]) for step in rollout.steps} == {("rollout", None)}
    assert rollout.opened == [(1, 0), (2, 1), (3, 2)]


def test_a_promotion_names_who_asked_and_why() -> None:
    rollout = desk(2)
    rollout.happens(rollout.command("promote", 2, follows=3, command_id="c1"))
    step = rollout.steps[-1]
    expected = {
        "step": "promote",
        "champion": 2,
        "previous": 1,
        "candidates": [],
        "shadow": [1],
        "revision": 4,
        "by": "ada",
        "reason": "because",
        "command_id": "c1",
        "source": {"topic": lanes.COMMANDS, "partition": 0, "offset": 0},
    }
    assert {name: step[name] for name in expected} == expected


def test_a_batch_of_several_is_decided_one_on_top_of_the_other() -> None:
    rollout = desk()
    publisher = rollout.publisher
    rollout.happens(
        publisher.manifest(2),
        rollout.command("promote", 2, command_id="a"),
        rollout.command("rollback", command_id="b"),
        rollout.command("promote", 2, command_id="c"),
    )
    assert [s["revision"] for s in rollout.steps] == [1, 2, 3, 4, 5, 6]
    assert [s["champion"] for s in rollout.steps] == [1, 1, 1, 2, 1, 2]
    assert rollout.opened[-1] == (2, 1)


def test_a_repeated_command_is_carried_out_once() -> None:
    rollout = desk(2)
    again = rollout.command("promote", 2, command_id="c1")
    assert len(rollout.happens(again, again).records) == 1
    assert rollout.happens(again).records == []
    assert rollout.steps[-1]["revision"] == 4


def test_a_stale_command_is_refused_with_the_reason() -> None:
    rollout = desk(2)
    output = rollout.happens(rollout.command("promote", 2, follows=1, command_id="late"))
    assert len(rollout.steps) == 3
    (alert,) = rollout.alerts(output)
    assert (alert["kind"], alert["model"], alert["version"]) == ("command-refused", "credit", 2)
    assert "revision 3 is in force" in alert["summary"]
    assert alert["detail"]["command_id"] == "late"
    assert alert["source"] == {"topic": lanes.COMMANDS, "partition": 0, "offset": 0}


def test_commands_need_a_trusted_signature(tmp_path: Any) -> None:
    home, stranger = SigningKey.generate(), SigningKey.generate()
    trust = TrustStore(tmp_path / "keys")
    trust.trust(home.public)
    rollout = desk(2, refuse_command=trust.command_refusal)
    plain = rollout.publisher.control.decode("Command", rollout.command("promote", 2).value)
    unsigned = {k: v for k, v in plain.items() if k not in ("signature", "key_id")}

    def sent(command: dict[str, Any]) -> Output:
        return rollout.happens(rollout.publisher.control.record("Command", command))

    for bad in (
        unsigned,
        sign_command(trust.home, unsigned, stranger),
        sign_command(trust.home, unsigned, home) | {"version": 1},
        sign_command(trust.home, unsigned, home) | {"signature": b"x" * 64},
    ):
        (alert,) = rollout.alerts(sent(bad))
        assert alert["kind"] == "command-refused"
    assert len(rollout.steps) == 3
    assert rollout.alerts(sent(sign_command(trust.home, unsigned, home))) == []
    assert rollout.steps[-1]["champion"] == 2


@pytest.mark.parametrize("error", [PackageRefused("signature", "by nobody"), REFUSED, RuntimeError("bang")])
def test_a_refused_package_is_rejected_with_an_alert_that_names_the_check(error: Exception) -> None:
    rollout = desk()
    output = rollout.happens(rollout.publisher.manifest(2, error))
    step = rollout.steps[-1]
    check = getattr(error, "check", "open")
    assert (step["step"], step["champion"], step["rejected"]) == ("reject", 1, [2])
    assert step["evidence"]["check"] == check
    (alert,) = rollout.alerts(output)
    assert (alert["kind"], alert["version"]) == ("package-refused", 2)
    assert alert["detail"]["check"] == check
    rollout.happens(rollout.command("promote", 2))
    assert rollout.steps[-1]["champion"] == 1


def test_a_package_that_cannot_be_read_for_the_moment_is_waited_for() -> None:
    rollout = desk()
    manifest = rollout.publisher.manifest(2, Unavailable("chunks away"))
    with pytest.raises(Unavailable):
        rollout.happens(manifest)
    assert len(rollout.steps) == 1


def test_a_version_of_an_unknown_model_waits_for_its_contract() -> None:
    rollout = Desk()
    rollout.publisher.contract()
    output = rollout.happens(rollout.publisher.manifest(1), rollout.command("promote", 1))
    assert output.paused.keys() == {MANIFESTS}
    assert "contract" in (rollout.logic.waiting() or "")
    assert [a["kind"] for a in rollout.alerts(output)] == ["command-refused"]


def test_a_version_of_an_unknown_model_that_nobody_trusted_signed_waits_for_nothing() -> None:
    def distrust(record: Mapping[str, Any]) -> None:
        raise PackageRefused("signature", "by nobody")

    rollout = Desk(verify=distrust)
    rollout.publisher.contract()
    output = rollout.happens(rollout.publisher.manifest(1))
    assert output.paused == {}
    assert rollout.steps == []
    assert [a["kind"] for a in rollout.alerts(output)] == ["package-refused"]


def test_nothing_is_decided_before_the_steps_of_before_are_read_back() -> None:
    rollout = desk(2)
    output = rollout.happens(rollout.command("promote", 2), read_back=False)
    later = rollout.command("rollback")
    held = rollout.happens(later)
    assert held.paused.keys() == {COMMANDS}
    assert held.records == []
    rollout.read_back(output)
    rollout.happens(later)
    assert [s["step"] for s in rollout.steps[-2:]] == ["promote", "rollback"]
    assert rollout.logic.waiting() is None


def test_a_new_instance_waits_for_the_steps_of_the_last_one() -> None:
    first = desk(2)
    output = first.happens(first.command("promote", 2))
    second = Desk(first.publisher, output.metadata)
    second.bench.control(first.publisher.contract())
    assert second.happens(second.command("rollback")).paused.keys() == {COMMANDS}


def test_a_step_by_somebody_else_that_lost_changes_nothing() -> None:
    rollout = desk()
    rollout.bench.control(rollout.publisher.rollout(champion=9, follows=0))
    rollout.happens(rollout.publisher.manifest(2))
    assert rollout.steps[-1]["champion"] == 1
    assert rollout.steps[1]["revision"] == 2


def test_what_cannot_be_read_is_skipped() -> None:
    rollout = desk()
    output = rollout.happens(Record(lanes.COMMANDS, b"rubbish"), Record(lanes.MANIFESTS, None))
    (alert,) = rollout.alerts(output)
    assert (alert["kind"], alert["severity"]) == ("record-refused", "severe")
    assert len(output.records) == 1
    assert output.paused == {}


def test_models_do_not_mix() -> None:
    rollout = desk()
    text = "{model: other, owner: {team: t}, features: {x: {type: number}}, target: {name: y, type: boolean}}"
    rollout.bench.control(rollout.publisher.contract(text))
    rollout.happens(rollout.publisher.manifest(1, model="other"))
    assert [(s["model"], s["revision"], s["champion"]) for s in rollout.steps] == [
        ("credit", 1, 1),
        ("other", 1, 1),
    ]


# What the rollout does by itself ---


def test_a_version_that_proves_itself_is_promoted_and_says_on_what() -> None:
    rollout = desk(2)
    first, second = report(day=0, gains=BETTER), report(day=1, gains=BETTER)
    rollout.reports(first, second)
    assert rollout.names()[3:] == ["promote"]
    step = rollout.steps[-1]
    assert (step["champion"], step["previous"], step["shadow"], step["by"]) == (2, 1, [1], "rollout")
    assert (step["follows"], step["source"]["offset"]) == (3, 1)
    # The window in which its shadow began does not count.
    del step["evidence"]["folded credit.requests"]  # the bench's own
    assert step["evidence"] == {
        "against": "1",
        "metric": "log_loss",
        "needed": "0.0",
        "outcomes": "600",
        "windows": "1",
        "gain": "0.375",
        "gain_low": step["evidence"]["gain_low"],
        "gain_high": step["evidence"]["gain_high"],
        "reports": second["report_id"],
        "event_time": str(2 * DAY),
        "folded tailrace.alerts": "0",
        "folded tailrace.commands": "0",
        "folded tailrace.model-manifests": "2",
        "folded tailrace.performance-reports": "2",
    }
    assert "log_loss better than version 1's by 0.375 (95 % interval 0.365 to 0.385)" in step["reason"]


def test_a_version_that_does_not_is_rejected() -> None:
    rollout = desk(2)
    rollout.reports(report(day=0), report(day=1, gains=WORSE))
    assert rollout.names()[3:] == ["reject"]
    assert (rollout.steps[-1]["rejected"], rollout.steps[-1]["shadow"]) == ([2], [])
    assert "interval -0.385 to -0.365" in rollout.steps[-1]["reason"]


def test_nothing_is_decided_on_too_few_or_immature_or_other_outcomes() -> None:
    rollout = desk(2)
    rollout.reports(report(day=0, gains=BETTER), report(day=1, gains=BETTER[:499]))
    rollout.reports(report(day=2, gains=BETTER, mature=False), report(version=7, day=3, gains=BETTER))
    rollout.reports(report(day=3, gains=BETTER, segment="region=north"), report(against=None, gains=BETTER))
    assert len(rollout.steps) == 3
    rollout.reports(report(day=4, gains=[0.2]))
    assert rollout.names()[3:] == ["promote"]


def test_a_window_counts_once_at_its_latest_age() -> None:
    rollout = desk(2)
    rollout.reports(
        report(day=0), report(day=1, gains=BETTER[:300]), report(day=1, gains=BETTER[:400], age=DAY)
    )
    assert len(rollout.steps) == 3
    rollout.reports(report(day=2, gains=BETTER[:100]))
    assert rollout.steps[-1]["evidence"]["outcomes"] == "500"


def test_while_frozen_it_waits_for_a_person_once() -> None:
    rollout = desk(2)
    rollout.happens(rollout.command("freeze"))
    output = rollout.reports(report(day=0), report(day=1, gains=BETTER))
    assert (rollout.steps[-1]["step"], rollout.steps[-1]["shadow"]) == ("wait", [2])
    (alert,) = rollout.alerts(output)
    assert (alert["kind"], alert["state"]) == ("promotion-waits", "raised")
    assert "tailrace promote credit 2" in alert["summary"]
    assert rollout.reports(report(day=2, gains=BETTER)).records == []
    output = rollout.happens(rollout.command("unfreeze"))
    assert rollout.names()[-2:] == ["unfreeze", "promote"]
    (again,) = rollout.alerts(output)
    assert (again["state"], again["alert_id"]) == ("resolved", alert["alert_id"])


def test_while_frozen_nothing_is_rejected_or_put_into_shadow() -> None:
    rollout = desk(2)
    rollout.happens(rollout.command("freeze"))
    rollout.happens(rollout.publisher.manifest(3))
    rollout.reports(report(day=0), report(day=1, gains=WORSE))
    assert rollout.names()[3:] == ["freeze", "candidate"]
    rollout.happens(rollout.command("unfreeze"))
    assert rollout.names()[5:] == ["unfreeze", "shadow", "reject"]


def test_where_the_contract_has_a_person_agree_only_a_person_promotes() -> None:
    rollout = desk(2, CONTRACT + "approvals: {promote: {role: risk-officer}}\n")
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    assert rollout.names()[3:] == ["wait"]
    rollout.happens(rollout.command("promote", 2))
    assert rollout.names()[4:] == ["promote"]


def test_the_one_before_the_previous_is_retired_unless_it_was_asked_for() -> None:
    rollout = desk(4)
    for version in (2, 3):
        rollout.happens(rollout.command("promote", version))
    assert rollout.names()[-2:] == ["promote", "retire"]
    assert (rollout.steps[-1]["shadow"], rollout.steps[-1]["retired"]) == ([4, 2], [1])
    rollout.happens(rollout.command("shadow", 2), rollout.command("promote", 4))
    assert rollout.names()[-2:] == ["shadow", "promote"]
    assert (rollout.steps[-1]["previous"], rollout.steps[-1]["shadow"]) == (3, [2, 3])
    # What answered once is compared, and no more.
    rollout.reports(report(version=2, against=4, day=0), report(version=2, against=4, day=1, gains=BETTER))
    assert rollout.names()[-1] == "promote"
    assert rollout.steps[-1]["champion"] == 4


def promoted() -> Desk:
    rollout = desk(2)
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    assert rollout.steps[-1]["champion"] == 2
    return rollout


def test_a_severe_alert_about_the_champion_takes_it_back() -> None:
    rollout = promoted()
    output = rollout.alert(2, day=2)
    step = rollout.steps[-1]
    assert (step["step"], step["version"], step["champion"], step["previous"]) == ("rollback", 1, 1, None)
    assert (step["rolled_back"], step["shadow"], step["by"]) == ([2], [], "rollout")
    assert step["evidence"]["alert"] == "credit-2-2"
    assert step["source"]["topic"] == lanes.ALERTS
    assert [alert["kind"] for alert in rollout.alerts(output)] == ["rolled-back"]
    rollout.reports(report(day=3, gains=BETTER), report(day=4, gains=BETTER))
    assert rollout.steps[-1] is step


def test_no_other_alert_does() -> None:
    rollout = promoted()
    rollout.alert(2, day=1)  # of a window that had begun before
    rollout.alert(1, day=2)
    rollout.alert(2, day=2, severity="warning")
    rollout.alert(2, day=2, state="resolved")
    rollout.alert(2, day=None)
    assert rollout.names()[-1] == "promote"
    rollout.happens(rollout.command("freeze"))
    rollout.alert(2, day=2)
    assert rollout.names()[-1] == "freeze"


def test_a_contract_may_have_no_way_back_by_itself() -> None:
    rollout = desk(2, CONTRACT + "rollout: {back_if: {alert: none}}\n")
    rollout.happens(rollout.command("promote", 2))
    rollout.alert(2, day=2)
    assert rollout.names()[-1] == "promote"


QUARANTINED = {"kind": "version-quarantined", "service": "scorer"}


def test_a_version_that_the_scorer_quarantined_is_taken_back_whatever_the_contract_says_of_alerts() -> None:
    rollout = desk(2, CONTRACT + "rollout: {back_if: {alert: none}}\n")
    rollout.happens(rollout.command("promote", 2))
    rollout.alert(2, day=None, **QUARANTINED)
    step = rollout.steps[-1]
    assert (step["step"], step["champion"], step["rolled_back"]) == ("rollback", 1, [2])
    assert step["evidence"]["kind"] == "version-quarantined"
    rollout.alert(2, day=None, **QUARANTINED)  # another instance says so too
    rollout.alert(1, day=None, **QUARANTINED)  # nothing to go back to
    assert rollout.steps[-1] is step
    rollout.happens(rollout.command("promote", 2))
    assert rollout.steps[-1]["champion"] == 2


def test_a_shadow_that_was_quarantined_is_rejected_but_for_a_frozen_rollout() -> None:
    rollout = desk(2)
    assert rollout.steps[-1]["shadow"] == [2]
    rollout.happens(rollout.command("freeze"))
    rollout.alert(2, day=None, **QUARANTINED)
    assert rollout.names()[-1] == "freeze"
    rollout.happens(rollout.command("unfreeze"))
    rollout.alert(2, day=None, **QUARANTINED)
    assert (rollout.names()[-1], rollout.steps[-1]["rejected"]) == ("reject", [2])


def test_the_first_version_has_nothing_to_go_back_to() -> None:
    rollout = desk(1)
    rollout.alert(1, day=2)
    assert rollout.names() == ["first-champion"]


def test_retraining_is_for_the_trainer() -> None:
    rollout = desk(1)
    assert rollout.happens(rollout.command("retrain")).records == []


def test_a_new_owner_reads_again_what_is_needed_and_decides_the_same() -> None:
    rollout = desk(2)
    kept = [
        report(version=1, against=3, day=0, gains=BETTER),
        report(day=0),
        report(day=1, gains=BETTER[:300]),
    ]
    output = rollout.reports(*kept)
    facts = json.loads(output.metadata_of[REPORTS])
    assert facts == {"steps": 3, "from": 1}
    second = Desk(rollout.publisher, output.metadata)
    second.bench.control(rollout.publisher.contract(follows=0), *rollout.written)
    history = second.logic.assigned(
        {MANIFESTS: Committed(2, output.metadata), REPORTS: Committed(3, output.metadata_of[REPORTS])}
    )
    assert history == {REPORTS: (0, 3)}  # before 1 to know copies only
    for each in kept:  # offsets 0 to 2
        message = second.bench.message(rollout.publisher.control.record("PerformanceReport", each, b"credit"))
        second.logic.restore([message])
    last = report(day=2, gains=BETTER[:300])
    rollout.reports(last)
    second.reports(last)
    assert second.steps[-1] == rollout.steps[-1]
    assert second.steps[-1]["step"] == "promote"


def test_a_version_that_may_be_better_by_chance_is_not_promoted() -> None:
    rollout = desk(2)
    rollout.reports(report(day=0), report(day=1, gains=UP))
    step = rollout.steps[-1]
    assert (step["step"], step["version"], step["champion"]) == ("reject", 2, 1)
    assert "all of the interval has to be above" in step["reason"]
    assert float(step["evidence"]["gain"]) > 0 > float(step["evidence"]["gain_low"])


def test_a_slice_on_which_a_version_may_be_worse_by_chance_does_not_hold_it_back() -> None:
    gates = "gates: {not_worse_on: {slices: [region], metric: log_loss, tolerance: 0.01}}\n"
    for gains, step in ((DOWN[:100], "promote"), (WORSE[:100], "reject")):
        rollout = desk(2, CONTRACT + gates)
        of_slice = report(day=1, gains=gains, segment="region=north")
        rollout.reports(report(day=0), of_slice, report(day=1, gains=BETTER))
        assert (rollout.steps[-1]["step"], rollout.steps[-1]["version"]) == (step, 2)
