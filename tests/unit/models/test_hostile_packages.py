"""Hostile and broken packages: none is loaded, none runs code, each is refused by the check that is there for it.

Each goes the way of a published package: a record on the topic, chunks at offsets, a rollout service that opens it by
its checks and tells people, and a scorer that never hears of it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.hostile import CASES, CONTRACT, HOME, Case, Payload, Sealed, node, package, trust_keys
from tests.support.scoring import Bench, Publisher

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.skops.archive import check_archive
from tailrace.models.package.examiner import ExaminationLimits, Examiner
from tailrace.models.package.open import Verified, verified_manifest, verified_package
from tailrace.rollout.processor import RolloutProcessor
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.records import Record, TopicPartition
from tailrace.testing.sealed_package import sealed
from tailrace.testing.signed_records import records


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    examiner = Examiner(ExaminationLimits(memory_bytes=512 << 20, seconds=2.5, batch_rows=1_000)).start()
    yield examiner
    examiner.close()


class Service:
    """A rollout service that has let version 1 in."""

    def __init__(self, home: Path, examiner: Examiner) -> None:
        self.trust = trust_keys(home)
        self.examiner = examiner
        self.loaded: list[int] = []
        self.fetch: Callable[..., list[bytes]] = lambda *_: []
        self.publisher = Publisher()
        logic = RolloutProcessor(
            records(self.publisher.registry, "rollout"),
            lambda r: verified_manifest(r, self.trust),
            self.open,
            lambda *_: None,
        )
        self.bench = Bench(logic, self.publisher)
        logic.assigned({TopicPartition(lanes.MANIFESTS, 0): Committed(0, "")})
        self.bench.control(self.publisher.contract(CONTRACT))
        self.publish(sealed(package(version=1), HOME))
        assert self.loaded == [1]

    def open(self, record: Mapping[str, Any], contract: ModelContract, newer_than: int) -> Verified:
        found = verified_package(record, self.fetch, self.trust, newer_than=newer_than)
        self.examiner(found, contract)
        self.loaded.append(record["version"])
        return found

    def verifies(self, sealed: Sealed) -> bool:
        try:
            verified_manifest(sealed[0], self.trust)
        except PackageRefused:
            return False
        return True

    def publish(self, sealed: Sealed) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Steps and alerts that follow."""
        record, self.fetch = sealed
        key = f"{record['model']}/{record['version']}".encode()
        value = self.publisher.control.encode("ModelManifest", record)
        output = self.bench.process([self.bench.message(Record(lanes.MANIFESTS, value, key))])
        written = [r for r in output.records if r.topic == lanes.ROLLOUTS]
        self.bench.control(*written)
        steps = [self.publisher.control.decode("Rollout", r.value) for r in written]
        return steps, self.bench.alerts(output)


def test_there_are_enough_of_them() -> None:
    assert len({c.name for c in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("hostile", CASES, ids=lambda c: c.name)
def test_it_is_refused_with_an_alert_that_names_the_check(
    hostile: Case, tmp_path: Path, examiner: Examiner
) -> None:
    service = Service(tmp_path, examiner)
    sealed = hostile.make(tmp_path)
    steps, alerts = service.publish(sealed)
    assert service.loaded == [1]
    assert not (tmp_path / "ran").exists()
    # What is not verified counts for nothing: its version's number can be published yet.
    rejected = [("reject", 1, [])] if service.verifies(sealed) else []
    assert [(step["step"], step["champion"], step["shadow"]) for step in steps] == rejected
    (alert,) = alerts
    assert (alert["kind"], alert["severity"]) == ("package-refused", "severe")
    assert alert["detail"]["check"] in hostile.check.split("|"), alert["summary"]
    assert f"({alert['detail']['check']})" in alert["summary"]


def test_good_ones_are_let_in_between_them(tmp_path: Path, examiner: Examiner) -> None:
    service = Service(tmp_path, examiner)
    for version, kind in enumerate(("logistic", "forest", "boosting"), 2):
        (first, *_), alerts = service.publish(sealed(package(kind, version), HOME))
        assert (first["step"], alerts) == ("candidate", []), alerts[0]["summary"]
    assert service.loaded == [1, 2, 3, 4]


def test_what_would_run_code_would_have_left_a_file(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()
    with pytest.raises(PackageRefused, match="not let in"):
        check_archive(node("ConstructorFromReduceNode")(tmp_path))
