"""Contracts applied to a real broker, registry and ClickHouse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.support import models

import tailrace
from tailrace.avro.registry import RegistryClient
from tailrace.cli.control import contracts, in_service
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.state.contracts import Contracts
from tailrace.control.apply import Outrun, apply, plan
from tailrace.errors import TailraceError
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics, lane_topics
from tailrace.testing.signed_records import home_with_keys, signed_at

TEXT = """\
model: MODEL
owner: {team: t}
features:
  a: {type: number, min: 0}
  b: {categories: [x, y]}
target: {name: t, type: boolean}
labels: {horizon: 30d}
policy:
  - {when: "score < 0.5", do: approve}
  - {do: refer}
"""


@pytest.fixture
def where(stack: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("TAILRACE_LANE_PARTITIONS", "2")
    ensure_topics(stack.kafka, control_topics())
    return stack


def bring_into_force(where: Connection, file: Path, fold: Contracts | None = None) -> Contracts:
    fold = fold or contracts(where)
    apply(where, plan([file], fold), fold, print)
    return fold


def test_an_applied_contract_has_topics_schemas_tables_and_is_in_force(
    where: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(TEXT.replace("MODEL", "apply-one"))
    returned = bring_into_force(where, file).current["apply-one"]
    assert returned.revision == 1

    read = contracts(where).current["apply-one"]
    assert read == returned
    assert read.source_text == file.read_text()
    assert read.contract.digest == read.digest
    keep = read.contract.keep
    wanted = lane_topics(
        "apply-one",
        {
            "requests": keep.requests_ms,
            "predictions": keep.predictions_ms,
            "labels": keep.labels_ms,
            "outcomes": keep.outcomes_ms,
            "dead_letters": keep.dead_letters_ms,
        },
    )
    assert ensure_topics(where.kafka, wanted) == []
    registry = RegistryClient(where.registry, where.registry_auth)
    for suffix in ("requests", "predictions", "shadow-predictions", "labels", "actions", "outcomes"):
        assert registry.latest(f"apply-one.{suffix}-value") is not None
    clickhouse = ClickHouse.connect(where)
    assert {"a", "b", "score", "action", "_offset"} <= set(clickhouse.columns("apply_one_predictions"))
    assert {"a", "score", "state", "label", "_offset"} <= set(clickhouse.columns("apply_one_outcomes"))
    clickhouse.close()


def test_again_changes_nothing_and_a_change_makes_the_next_revision(
    where: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TEXT.replace("MODEL", "apply-two"))
    fold = bring_into_force(where, file)
    bring_into_force(where, file, fold)
    file.write_text("# Another spelling of the same.\n" + file.read_text().replace("30d", "720h"))
    assert bring_into_force(where, file).current["apply-two"].revision == 1

    file.write_text(
        file.read_text()
        .replace("score < 0.5", "score < 0.4")
        .replace("labels:", "context: {c: {type: string}}\nlabels:")
    )
    fold = contracts(where)
    [planned] = plan([file], fold)
    assert [change.field for change in planned.changes] == ["context.c", "policy[0].when"]
    apply(where, [planned], fold, print)
    assert fold.current["apply-two"].revision == 2
    clickhouse = ClickHouse.connect(where)
    assert "c" in clickhouse.columns("apply_two_requests")
    clickhouse.close()


def test_of_two_appliers_at_once_one_wins_and_the_other_is_told(where: Connection, tmp_path: Path) -> None:
    files = []
    for threshold in ("0.1", "0.2", "0.3"):
        files.append(tmp_path / f"{threshold}.yaml")
        files[-1].write_text(TEXT.replace("MODEL", "apply-race").replace("0.5", threshold))
    start = [contracts(where) for _ in files]

    def run(index: int) -> str | None:
        try:
            bring_into_force(where, files[index], start[index])
        except Outrun as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(files)) as pool:
        errors = list(pool.map(run, range(len(files))))
    assert sorted(message is None for message in errors) == [False, False, True]
    assert all(
        "was first (revision 1): run `tailrace apply` again" in message for message in errors if message
    )
    in_force = contracts(where).current["apply-race"]
    assert in_force.source_text == files[errors.index(None)].read_text()


def test_a_refused_file_keeps_all_others_of_its_call_from_being_applied(
    where: Connection, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(TEXT.replace("MODEL", "apply-good"))
    bad.write_text(TEXT.replace("MODEL", "apply-bad").replace("number", "nmber"))
    with pytest.raises(TailraceError, match="nmber"):
        plan([good, bad], contracts(where))
    assert "apply-good" not in contracts(where).current


def test_what_the_registry_holds_under_the_name_is_not_broken(where: Connection, tmp_path: Path) -> None:
    registry = RegistryClient(where.registry, where.registry_auth)
    foreign = {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "z", "type": "long"}]}
    registry.set_level("apply-taken.requests-value", "FULL_TRANSITIVE")
    registry.register("apply-taken.requests-value", foreign)
    file = tmp_path / "taken.yaml"
    file.write_text(TEXT.replace("MODEL", "apply-taken"))
    with pytest.raises(TailraceError, match=r"apply-taken\.requests-value"):
        bring_into_force(where, file)
    assert "apply-taken" not in contracts(where).current


def test_a_feature_that_the_champion_needs_may_not_go(where: Connection, tmp_path: Path) -> None:
    file = tmp_path / "needed.yaml"
    text = models.CONTRACT.replace("model: credit", "model: apply-needed").replace(
        "TARGET", models.TARGETS["binary"]
    )
    file.write_text(text)
    bring_into_force(where, file)
    frame, truth = models.rows()
    fitted = models.estimator("logistic").fit(frame, truth)
    home_with_keys(tmp_path)
    tailrace.publish(fitted, frame, truth, model="apply-needed", connection=where, home=tmp_path)
    [feature, *_] = contracts(where).current["apply-needed"].contract.features
    without = "\n".join(line for line in text.splitlines() if not line.strip().startswith(f"{feature}:"))
    file.write_text(without)

    # A candidate keeps nothing from changing; the champion does.
    assert plan([file], contracts(where), in_service(where, tmp_path))
    first = {
        "model": "apply-needed",
        "revision": 1,
        "follows": 0,
        "step": "first-champion",
        "version": 1,
        "champion": 1,
        "reason": "first",
        "by": "test",
        "source": {"topic": lanes.MANIFESTS, "partition": 0, "offset": 0},
    }
    producer = Producer(where.kafka)
    record = signed_at(where, "Rollout", first)
    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
    assert producer.flush(30) == 0
    with pytest.raises(
        TailraceError,
        match=rf"features.{feature}: version 1 \(champion\) could not serve: the model reads {feature}",
    ):
        plan([file], contracts(where), in_service(where, tmp_path))


def test_what_is_held_changes_nothing_for_producers(where: Connection, tmp_path: Path) -> None:
    file = tmp_path / "held.yaml"
    text = TEXT.replace("MODEL", "apply-held")
    file.write_text(text)
    fold = bring_into_force(where, file)
    registry = RegistryClient(where.registry, where.registry_auth)
    before = registry.latest("apply-held.requests-value")
    assert before is not None
    file.write_text(text.replace("features:\n", "features:\n  added: {type: number, missing: pass}\n"))
    changed = [replace(each, is_held=True) for each in plan([file], fold)]
    assert changed[0].is_needed
    apply(where, changed, fold, print)
    assert "apply-held" in contracts(where).held
    anew = RegistryClient(where.registry, where.registry_auth)
    assert anew.latest("apply-held.requests-value") == before
    bring_into_force(where, file)
    after = RegistryClient(where.registry, where.registry_auth).latest("apply-held.requests-value")
    assert after is not None
    assert after.version == before.version + 1
