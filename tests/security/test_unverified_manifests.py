"""Door: whoever may write to ``tailrace.model-manifests``. What nobody trusted has signed counts for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import models
from tests.support.hostile import CONTRACT, HOME, REVOKED, STRANGER, package, trust_keys
from tests.support.scoring import Bench, Publisher

from tailrace.contracts.records import lanes
from tailrace.control.publish import _next_numbers
from tailrace.models.catalog import LEAP, Catalog
from tailrace.models.manifest import canonical_json, sha256
from tailrace.models.package.open import verified_manifest, verified_package
from tailrace.rollout.processor import RolloutProcessor
from tailrace.signing.trust import TrustStore
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.records import Record, TopicPartition
from tailrace.testing.sealed_package import sealed

FAR = 2**63 - 2


def forged(version: int, sequence: int, key: Any = None) -> dict[str, Any]:
    """A manifest record of these numbers; unsigned, but for where a key is given."""
    record, _ = sealed(package(version=1), key or HOME)
    manifest = canonical_json(
        models.package().manifest.model_dump(mode="json", exclude={"conformal", "calibration"})
        | {"version": version, "sequence": sequence}
    )
    signature = key.sign(manifest) if key else b""
    changed = {"version": version, "manifest": manifest, "digest": sha256(manifest), "signature": signature}
    return {**record, **changed, "key_id": key.key_id if key else ""}


def signed(version: int, key: Any = HOME, sequence: int | None = None) -> dict[str, Any]:
    built = models.package().numbered(version, sequence or version)
    return sealed(built, key)[0]


@pytest.fixture
def past(tmp_path: Path) -> TrustStore:
    trust_keys(tmp_path)
    return TrustStore(tmp_path / "keys", past=True)


def test_ten_versions_can_be_published_after_a_forged_one_of_the_last_sequence(past: TrustStore) -> None:
    manifests = [forged(FAR, FAR), forged(1, FAR), forged(FAR, FAR, STRANGER), signed(7, STRANGER)]
    for number in range(1, 11):
        assert _next_numbers(manifests, past) == (number, number)
        manifests += [signed(number), forged(number + 1, FAR)]


def test_a_key_that_was_revoked_took_its_numbers_but_cannot_take_all(past: TrustStore) -> None:
    manifests = [signed(1), signed(2, REVOKED)]
    assert _next_numbers(manifests, past) == (3, 3)
    manifests.append(signed(2**31 - 1, REVOKED))
    manifests.append(signed(3, REVOKED, sequence=3 + LEAP))
    assert _next_numbers(manifests, past) == (3, 3)


def test_the_first_verified_manifest_of_a_version_counts_whatever_came_before(past: TrustStore) -> None:
    catalog = Catalog(lambda record: verified_manifest(record, past))
    for record in (forged(1, 1), forged(2, FAR), signed(3, STRANGER)):
        catalog.apply(record)
    assert catalog.versions("credit") == []
    assert catalog.verified("credit", 1) is None
    true = signed(1)
    catalog.apply(true)
    catalog.apply(signed(1, REVOKED))
    assert catalog.versions("credit") == [1]
    assert catalog.record("credit", 1) is true


def test_a_version_is_let_in_though_its_number_was_forged_before(tmp_path: Path) -> None:
    trust = trust_keys(tmp_path)
    fetched: list[Any] = []

    def opened(record: Any, contract: Any, newer_than: int) -> Any:
        return verified_package(record, fetched[-1], trust, newer_than=newer_than)

    publisher = Publisher()
    records = publisher.control.by("rollout")
    processor = RolloutProcessor(records, lambda r: verified_manifest(r, trust), opened, lambda *_: None)
    bench = Bench(processor, publisher)
    processor.assigned({TopicPartition(lanes.MANIFESTS, 0): Committed(0, "")})
    bench.control(publisher.contract(CONTRACT))

    def publish(record: dict[str, Any], *, is_read_before: bool = True) -> tuple[list[str], list[str]]:
        written = Record(lanes.MANIFESTS, publisher.control.encode("ModelManifest", record), b"credit/1")
        if is_read_before:  # by what reads the control topics, which may also come later
            bench.control(written)
        output = bench.process([bench.message(written)])
        steps = [r for r in output.records if r.topic == lanes.ROLLOUTS]
        bench.control(*steps)
        names = [publisher.control.decode("Rollout", r.value)["step"] for r in steps]
        return names, [alert["kind"] for alert in bench.alerts(output)]

    taken_up = (1, ["first-champion"]), (2, ["candidate", "shadow"]), (3, ["candidate", "shadow"])
    for number, steps in taken_up:
        assert publish(forged(number, FAR)) == ([], ["package-refused"])
        assert publish(forged(FAR, FAR)) == ([], ["package-refused"])
        assert publish(signed(number, STRANGER)) == ([], ["package-refused"])
        record, fetch = sealed(models.package().numbered(number, number), HOME)
        fetched.append(fetch)
        assert publish(record, is_read_before=False) == (steps, [])
