"""The trainer as a process on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.training import TrainingLane, alert, eventually

from tailrace.kit.connection import Connection


@pytest.fixture
def lane(stack: Connection, tmp_path: Path, request: pytest.FixtureRequest) -> TrainingLane:
    return TrainingLane(stack, f"t{abs(hash(request.node.name)) % 10**8}", tmp_path)


def test_an_alert_leads_to_a_version_trained_on_what_came_after_it(lane: TrainingLane) -> None:
    lane.days(range(100, 103))
    lane.write([lane.record("Alert", alert(lane.contract, 102))])
    lane.days(range(103, 106))
    trainer = lane.trainer(lane.home / "trainer.log")
    try:
        (end,) = eventually(lane.ended)
    finally:
        trainer.stop(10)
    assert end["state"] == "published"
