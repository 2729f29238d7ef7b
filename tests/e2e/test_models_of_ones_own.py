"""Models of one's own through everything: trained, published as ONNX, published from Python, promoted, refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from tests.support import models
from tests.support.project import Project
from tests.support.waiting import until

import tailrace
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection, connect
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.control.commands import ask
from tailrace.control.versions import published_versions
from tailrace.signing.keys import SigningKey
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.testing.sealed_package import sealed

CONTRACT = """
model: pumps
owner: {team: plant}
key: {name: pump, type: string}
event_time: {name: at}
features:
  heat: {type: number}
  load: {type: number}
target: {name: failed, type: boolean}
policy:
  - {when: "score >= 0.5", do: inspect}
  - {do: run}
value: "CASE WHEN failed THEN -1 ELSE 0 END"
experiment: {assign: thompson}
"""


def readings(n: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"heat": draw.normal(60, 10, n), "load": draw.uniform(0, 1, n)})
    frame["failed"] = frame.heat / 10 + 4 * frame.load + draw.normal(size=n) > 8.5
    frame["pump"] = [f"p{i % 50}" for i in range(n)]
    frame["at"] = pd.date_range("2025-01-01", periods=n, freq="1h").strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame


def test_models_of_ones_own(project: Project) -> None:
    contract = project.path / "contracts" / "models" / "pumps.yaml"
    contract.parent.mkdir(parents=True, exist_ok=True)
    contract.write_text(CONTRACT)
    project.run("apply", str(contract))
    history, later = readings(1500, 1), readings(500, 2)
    history.to_csv(project.path / "pumps.csv", index=False)
    later.to_csv(project.path / "later.csv", index=False)

    # A first version by the template: in service without anybody's doing.
    trained = project.json("train", "pumps", "--data", "pumps.csv")
    assert (trained["version"], trained["rows"], trained["holdout_rows"]) == (1, 300, 60)
    project.wait_for_champion("pumps", 1)

    # A second one made elsewhere, as ONNX; it waits until it is promoted.
    features = history[["heat", "load"]].to_numpy(dtype=np.float32)
    own = LogisticRegression().fit(features, history.failed)
    onnx_file = project.path / "own.onnx"
    onnx_file.write_bytes(to_onnx(own, features[:1], options={"zipmap": False}).SerializeToString())
    published = project.json("publish", "own.onnx", "--model", "pumps", "--holdout", "later.csv")
    assert (published["version"], published["holdout_rows"], published["conversion"]) == (
        2,
        500,
        "as it came",
    )
    assert published["metrics"]["auc"] > 0.9

    # A third one from Python.
    connection = connect(home=project.home)
    given = history[["heat", "load", "failed"]]
    third = tailrace.publish(
        HistGradientBoostingClassifier(max_iter=10, random_state=0),
        given[["heat", "load"]],
        given.failed,
        model="pumps",
        connection=connection,
        home=project.home,
    )
    assert (third.version, third.manifest.format) == (3, "skops")
    digests = wait_for_states(connection, project, ["champion", "shadow", "shadow"])

    row = {"heat": 71.0, "load": 0.9}
    for version, reason in ((2, "ours"), (3, "theirs")):
        step = project.json("promote", "pumps", str(version), "--reason", reason)
        assert (step["champion"], step["reason"]) == (version, reason)
        answer = answered_by(project, version, row)
        assert answer["artifact_digest"] == digests[version - 1]
        if version == 2:
            expected = own.predict_proba(np.array([[71.0, 0.9]], dtype=np.float32))[0, 1]
            assert answer["score"] == pytest.approx(expected, abs=1e-6)
    back = project.json("rollback", "pumps")
    assert (back["champion"], back["step"]) == (2, "rollback")
    answered_by(project, 2, row)

    # All three side by side.
    begun = project.json("experiment", "pumps", "start", "--arm", "1", "--arm", "3")
    assert [arm["version"] for arm in begun["experiment"]["arms"]] == [2, 1, 3]
    assert arms_that_answer(project, begun["revision"], row) == {("a", 2), ("b", 1), ("c", 3)}
    assert [v["state"] for v in project.json("models", "pumps")] == ["arm", "champion", "arm"]
    shown = project.json("experiment", "pumps")
    assert (shown["running"], shown["assign"], shown["windows"]) == (True, "thompson", 0)
    assert "is running" in project.run("experiment", "pumps").stderr
    over = project.json("experiment", "pumps", "stop")
    assert (over["step"], over["champion"], over["experiment"]) == ("end-experiment", 2, None)
    answered_by(project, 2, row)

    refused = ask(connection, project.home, "promote", "pumps", 9)
    assert "there is no version 9" in (refused.refusal or "")

    # Somebody without a trusted key writes a version to the topic: an alert names the check, nothing else happens.
    forge(connection, 4)
    alert = wait_for_alert(connection, "pumps", 4)
    assert "signature" in (alert["summary"] + str(alert["detail"]))
    answered_by(project, 2, row)
    states = [(v["state"], v["trusted"]) for v in project.json("models", "pumps")]
    assert states[2:] == [("retired", True), ("published", False)]


def wait_for_states(connection: Connection, project: Project, wanted: list[str]) -> list[str]:
    """The versions' digests, once their states are these."""

    def so() -> list[str] | None:
        versions = published_versions(connection, project.home, "pumps")
        return [v["digest"] for v in versions] if [v["state"] for v in versions] == wanted else None

    return list(until(so, f"the states {wanted}"))


def answered_by(project: Project, version: int, row: dict[str, Any]) -> dict[str, Any]:
    """A prediction of this version, once the scorer has taken it up."""
    with tailrace.Client(connect(home=project.home)) as client:

        def event() -> dict[str, Any] | None:
            answer = client.predict("pumps", {**row, "pump": "p1"}, timeout=20)
            return answer if answer["version"] == version else None

        return dict(until(event, f"an answer by version {version}"))


def arms_that_answer(project: Project, revision: int, row: dict[str, Any]) -> set[tuple[str, int]]:
    """Arm and version of the answers to many pumps, once the scorer has taken the revision up."""
    with tailrace.Client(connect(home=project.home)) as client:
        until(
            lambda: client.predict("pumps", {**row, "pump": "p1"}, timeout=20)["rollout_revision"] >= revision
        )
        events = [client.predict("pumps", {**row, "pump": f"p{n}"}, timeout=20) for n in range(30)]
    assert {event["role"] for event in events} == {"arm"}
    assert all(event["arm_propensity"] == pytest.approx(1 / 3, abs=1e-6) for event in events)
    return {(event["arm"], event["version"]) for event in events}


def forge(connection: Connection, version: int) -> None:
    built = models.package("logistic").numbered(version, version)
    manifest = built.manifest.model_copy(update={"model": "pumps"})
    record, _ = sealed(type(built)(manifest, built.parts), SigningKey.generate())
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    producer = Producer(dict(connection.kafka))
    producer.produce(lanes.MANIFESTS, codec.encode("ModelManifest", record), f"pumps/{version}")
    assert producer.flush(20) == 0


def wait_for_alert(connection: Connection, model: str, version: int) -> dict[str, Any]:
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))

    def alert() -> dict[str, Any] | None:
        alerts = (codec.decode("Alert", m.value()) for m in read_all(connection, [lanes.ALERTS]))
        return next((a for a in alerts if (a["model"], a["version"]) == (model, version)), None)

    return dict(until(alert, f"an alert about version {version}"))
