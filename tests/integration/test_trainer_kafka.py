"""The trainer as a process on a real broker: what it reads, what it writes, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.environment import environment
from tests.support.training import DAY, TrainingLane, alert
from tests.support.waiting import until

from tailrace.access.home_identity import home_id
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.control.evaluations import evaluations
from tailrace.models.manifest import Manifest
from tailrace.signing.records import sign_command
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.trainer.events import record_of, run_of
from tailrace.trainer.processes import WorkerLimits, Workers


@pytest.fixture
def lane(stack: Connection, tmp_path: Path, request: pytest.FixtureRequest) -> TrainingLane:
    name = f"t{zlib.crc32(request.node.name.encode())}"
    return TrainingLane(stack, name, tmp_path, getattr(request, "param", {}))


def first_champion(lane: TrainingLane) -> dict[str, Any]:
    return {
        "model": lane.model,
        "revision": 1,
        "follows": 0,
        "step": "first-champion",
        "version": 1,
        "champion": 1,
        "reason": "test",
        "by": "test",
        "source": {"topic": lanes.MANIFESTS, "partition": 0, "offset": 0},
    }


def manifests(lane: TrainingLane) -> list[dict[str, Any]]:
    records = (
        lane.control.decode("ModelManifest", m.value())
        for m in read_all(lane.connection, [lanes.MANIFESTS])
        if m.value() is not None
    )
    return [record for record in records if record["model"] == lane.model]


def changed_world(lane: TrainingLane) -> None:
    """Three days, then a change that drift tells of at the end of its first day, then labels from after it."""
    lane.days(range(100, 103))
    lane.days(range(103, 104), flipped=True)
    lane.write([lane.record("Alert", alert(lane.contract, 103))])
    lane.days(range(104, 107), flipped=True)


def test_an_alert_leads_to_one_version_whenever_the_trainer_is_killed(lane: TrainingLane) -> None:
    changed_world(lane)
    trainer = lane.trainer(lane.home / "trainer.log")
    try:
        for state in ("planned", "trained"):
            until(lambda state=state: state in {r["state"] for r in lane.runs()})
            if state == "trained":
                # It is stopped, its worker is not: the version is published, and nobody has written that down.
                os.kill(trainer.pid or 0, signal.SIGSTOP)
                until(lambda: manifests(lane))
            trainer.kill()
            trainer.launch()
        (end,) = until(lane.ended)
    finally:
        trainer.stop(10)
    states = Counter(record["state"] for record in lane.runs())
    assert states["planned"] == states["published"] == 1
    assert len({record["run_id"] for record in lane.runs()}) == 1
    (manifest,) = manifests(lane)
    assert end["version"] == 1
    assert end["content_digest"] == Manifest.from_bytes(manifest["manifest"]).content_digest
    # The run rests on labels from after the change, and on no others.
    assert [t["kind"] for t in end["triggers"]] == ["drift"]
    assert (end["changed_at"], end["window_start"]) == (103 * DAY, 103 * DAY)
    assert (end["known_before"], end["window_end"]) == (105 * DAY, 105 * DAY)
    assert (end["labels"], end["rows"] + end["held_back"]) == (240, 240)
    assert {e["who"] for e in end["evaluations"]} == {"candidate", "baseline", "other"}
    assert {e["version"] for e in end["evaluations"] if e["who"] == "candidate"} == {1}
    # The store of evaluations says the same.
    stored = evaluations(lane.connection, lane.model)
    assert [{k: e[k] for k in end["evaluations"][0]} for e in stored] == end["evaluations"]
    assert {(e["run"], e["state"], e["dataset"]) for e in stored} == {
        (end["run_id"], "published", end["dataset_digest"])
    }


def test_an_aborted_alert_starts_nothing_and_only_signed_commands_are_heard(lane: TrainingLane) -> None:
    lane.days(range(100, 102))
    lane.write([lane.record("Alert", alert(lane.contract, 101))], abort=True)
    lane.days(range(102, 106))
    forged, signed = (
        {
            "command_id": f"{lane.model}-{name}",
            "model": lane.model,
            "command": "retrain",
            "version": None,
            "follows": 0,
            "by": "test",
            "reason": "to see",
            "issued_at": 0,
        }
        for name in ("forged", "signed")
    )
    lane.write([lane.record("Command", {**forged, "key_id": lane.key.key_id, "signature": b"x" * 64})])
    lane.write([lane.record("Command", sign_command(home_id(lane.home), signed, lane.key))])
    trainer = lane.trainer(lane.home / "trainer.log")
    try:
        (end,) = until(lane.ended)
        # The version answers now, and the world changes: the next candidate has to beat it.
        lane.write([lane.record("Rollout", first_champion(lane))])
        lane.days(range(106, 107), flipped=True)
        lane.write([lane.record("Alert", alert(lane.contract, 106, "quality-drop"))])
        lane.days(range(107, 110), flipped=True)
        _, beaten = until(lambda: lane.ended()[1:] and lane.ended())
    finally:
        os.kill(trainer.pid or 0, signal.SIGTERM)
        assert trainer.wait(60) == 0
    auc = {
        e["who"]: e["value"] for e in beaten["evaluations"] if e["metric"] == "auc" and e["who"] != "other"
    }
    assert (beaten["state"], beaten["version"], beaten["champion"]) == ("published", 2, 1)
    assert auc["candidate"] > 0.9 > 0.5 > auc["champion"]
    # Had the aborted alert been read, its run would have had an earlier cut, and come first.
    assert [(t["kind"], t["id"]) for t in end["triggers"]] == [("command", f"{lane.model}-signed")]
    assert end["known_before"] == 106 * DAY
    refused = [
        record["summary"]
        for m in read_all(lane.connection, [lanes.ALERTS])
        if (record := lane.control.decode("Alert", m.value()))["detail"].get("command_id")
        == f"{lane.model}-forged"
    ]
    assert len(refused) == 1
    assert "signature" in refused[0]


def test_the_same_job_gives_the_same_candidate_and_is_published_once(
    lane: TrainingLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_world(lane)
    for name, value in environment(lane.connection).items():
        monkeypatch.setenv(name, value)
    plan = planned(lane)

    def job(offsets: list[tuple[int, int]], **limits: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        trained: dict[str, Any] = {}

        async def hear(line: Any) -> None:
            trained.update(line.get("trained", {}))

        record = plan | {"offsets": [{"partition": p, "offset": o} for p, o in offsets]}
        doing = {"run": record, "contract": lane.contract.resolved_json, "best": {}}
        allowed = WorkerLimits(**{"memory_bytes": 16 << 30, "seconds": 60.0, **limits})
        return trained, dict(asyncio.run(Workers(allowed, lane.home).work(doing, hear)))

    first, published = job([(0, 10_000), (1, 10_000)])
    # Where reading may stop makes no difference, as long as it lies behind what the cut asks for.
    second, again = job([(0, 10_001), (1, 10_002)])
    assert first == second
    assert published == again == {"end": "published", "version": 1}
    assert len(manifests(lane)) == 1
    _, slow = job([(0, 10_000), (1, 10_000)], seconds=0.3)
    assert slow["end"] == "failed"
    assert "TAILRACE_TRAIN_SECONDS" in slow["reason"]
    _, large = job([(0, 10_000), (1, 10_000)], memory_bytes=512 << 20)
    assert large["end"] == "failed"


def planned(lane: TrainingLane) -> dict[str, Any]:
    """The plan that the changed world leads to, as a record."""
    record = {
        "run_id": "0" * 32,
        "model": lane.model,
        "known_before": 105 * DAY,
        "triggers": [{"kind": "drift", "id": "a", "at": 104 * DAY, "reason": ""}],
        "changed_at": 103 * DAY,
        "window_start": 103 * DAY,
        "window_end": 105 * DAY,
        "labels": 240,
        "contract_digest": lane.contract.digest,
        "champion": None,
        "offsets": [],
        "state": "planned",
        "version": None,
        "evaluations": [],
    }
    return record_of(run_of(record))
