"""What a revoked key has signed: no step takes it up, neither a person's nor the rollout's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.reports import report
from tests.support.scoring import CONTRACT
from tests.unit.rollout.test_rollout_canary import CANARY, own
from tests.unit.rollout.test_rollout_experiment import plan
from tests.unit.rollout.test_rollout_logic import BETTER, QUARANTINED, WORSE, Desk, desk

from tailrace.models.errors import PackageRefused

FALLBACK = "rollout: {back_if: {fallback_share: 1%}}\n"


class Keys:
    """Who has signed a version is trusted but for those that are ``revoked``."""

    def __init__(self) -> None:
        self.revoked: set[int] = set()

    def verify(self, record: Mapping[str, Any]) -> None:
        if record["version"] in self.revoked:
            raise PackageRefused("signature", f"version {record['version']}'s key is revoked here")


@pytest.fixture
def keys() -> Keys:
    return Keys()


def open_desk(keys: Keys, versions: int, contract: str = CONTRACT) -> Desk:
    return desk(versions, contract, verify=keys.verify)


def refused(rollout: Desk, kind: str, version: int | None = None, **changes: Any) -> str:
    """Asks for it; nothing happens, and the answer says why."""
    before = len(rollout.steps)
    output = rollout.happens(rollout.command(kind, version, **changes))
    assert len(rollout.steps) == before
    (alert,) = rollout.alerts(output)
    assert alert["kind"] == "command-refused"
    return str(alert["summary"])


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("promote", {"version": 2}),
        ("shadow", {"version": 2}),
        ("experiment", {"arms": [3, 2]}),
    ],
)
def test_a_person_is_told_why_it_cannot_be_taken_up(keys: Keys, kind: str, asked: dict[str, Any]) -> None:
    rollout = open_desk(keys, 3, plan("fixed"))
    keys.revoked.add(2)
    assert "take version 2 up: version 2's key is revoked here" in refused(rollout, kind, **asked)
    keys.revoked.clear()
    rollout.happens(rollout.command(kind, command_id="asked again", **asked))
    assert rollout.names()[-1] == kind


def test_a_rollback_by_a_person_to_what_a_revoked_key_has_signed_is_refused(keys: Keys) -> None:
    rollout = open_desk(keys, 2)
    rollout.happens(rollout.command("promote", 2))
    keys.revoked.add(1)
    assert "version 1's key is revoked" in refused(rollout, "rollback")
    # What answers goes on, also when it is put between others again.
    rollout.happens(rollout.command("freeze"))
    rollout.happens(rollout.command("off"))
    rollout.happens(rollout.command("on"))
    keys.revoked.add(2)
    rollout.happens(rollout.command("unfreeze"))
    rollout.happens(rollout.command("off"))
    assert rollout.names()[-5:] == ["freeze", "off", "on", "unfreeze", "off"]
    assert "version 2's key is revoked" in refused(rollout, "on")


@pytest.mark.parametrize("cause", ["alert", "quarantine", "fallbacks"])
def test_the_rollout_does_not_go_back_to_it_by_itself_and_says_so(keys: Keys, cause: str) -> None:
    rollout = open_desk(keys, 2, CONTRACT + FALLBACK)
    rollout.happens(rollout.command("promote", 2))
    keys.revoked.add(1)

    days = itertools.count(3)

    def happens() -> list[dict[str, Any]]:
        if cause == "alert":
            return rollout.alerts(rollout.alert(2, day=2))
        if cause == "quarantine":
            return rollout.alerts(rollout.alert(2, day=None, **QUARANTINED))
        failing = report(2, None, next(days), [0.0] * 100, fallbacks=50)
        return rollout.alerts(rollout.reports(failing))

    (alert,) = happens()
    assert rollout.names()[-1] == "promote"
    assert (alert["kind"], alert["state"], alert["version"]) == ("rollback-refused", "raised", 1)
    assert "version 2 of credit goes on" in alert["summary"]
    assert "version 1's key is revoked here" in alert["summary"]
    assert "tailrace off credit" in alert["summary"]
    assert [again["alert_id"] for again in happens()] == [alert["alert_id"]]
    keys.revoked.clear()
    assert [other["kind"] for other in happens()] == ["rolled-back"]
    assert (rollout.names()[-1], rollout.steps[-1]["champion"]) == ("rollback", 1)


def test_what_passed_in_shadow_waits_until_it_is_trusted_and_others_do_not_wait_for_it(keys: Keys) -> None:
    rollout = open_desk(keys, 3)
    keys.revoked.add(2)
    output = rollout.reports(report(day=0), report(day=1, gains=BETTER))
    assert (rollout.names()[-1], rollout.steps[-1]["version"]) == ("wait", 2)
    assert "version 2's key is revoked here" in rollout.steps[-1]["reason"]
    assert [alert["kind"] for alert in rollout.alerts(output)] == ["promotion-waits"]
    rollout.reports(report(day=2, gains=BETTER))
    assert rollout.names()[-1] == "wait"
    rollout.reports(report(3, day=0), report(3, day=1, gains=BETTER))
    assert (rollout.names()[-1], rollout.steps[-1]["champion"]) == ("promote", 3)


def test_once_it_is_trusted_again_it_goes_on_by_itself(keys: Keys) -> None:
    rollout = open_desk(keys, 2)
    keys.revoked.add(2)
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    keys.revoked.clear()
    output = rollout.reports(report(day=2, gains=BETTER))
    assert (rollout.names()[-1], rollout.steps[-1]["champion"]) == ("promote", 2)
    assert [(alert["kind"], alert["state"]) for alert in rollout.alerts(output)] == [
        ("promotion-waits", "resolved")
    ]


def test_one_that_waits_for_it_may_still_turn_out_worse(keys: Keys) -> None:
    rollout = open_desk(keys, 2)
    keys.revoked.add(2)
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    rollout.reports(report(day=2, gains=WORSE * 3))
    assert (rollout.names()[-1], rollout.steps[-1]["rejected"]) == ("reject", [2])


def test_a_canary_stays_at_its_share(keys: Keys) -> None:
    rollout = open_desk(keys, 2, CANARY)
    rollout.reports(report(day=0), report(day=1, gains=BETTER))
    keys.revoked.add(2)
    rollout.reports(own(3))
    assert (rollout.names()[-1], rollout.steps[-1]["canary"]["share"]) == ("wait", 0.05)
    rollout.reports(own(4))
    assert rollout.names()[-1] == "wait"
    assert "version 2's key is revoked" in refused(rollout, "promote", 2)
    keys.revoked.clear()
    rollout.reports(own(5))
    assert (rollout.names()[-1], rollout.steps[-1]["canary"]["share"]) == ("canary", 0.5)


def test_a_version_that_was_published_while_frozen_is_no_first_champion(keys: Keys) -> None:
    rollout = open_desk(keys, 1)
    rollout.happens(rollout.command("freeze"))
    rollout.happens(rollout.publisher.manifest(2))
    keys.revoked.add(2)
    rollout.happens(rollout.command("unfreeze"))
    assert (rollout.names()[-1], rollout.steps[-1]["candidates"]) == ("unfreeze", [2])
    keys.revoked.clear()
    rollout.reports(report(1, None, 0))
    assert (rollout.names()[-1], rollout.steps[-1]["shadow"]) == ("shadow", [2])
