"""Packages on a real broker, while requests are answered: hostile ones, versions of the past, keys that are revoked.

The broker is this module's own; each test begins where the one before it ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from tests.support import hostile
from tests.support.cluster import LANE, Cluster, Traffic, running_cluster, until

from tailrace.contracts import lanes
from tailrace.kit.codec import ControlCodec
from tailrace.kit.reading import read_all
from tailrace.kit.registry import RegistryClient
from tailrace.models.package import chunks_of

MORE = """
labels: {horizon: 1s}
drift: {window: 1s}
quality: {window: 1s}
keep: {predictions: 2s}
"""
CASES = hostile.CASES if os.environ.get("TAILRACE_CHAOS") == "long" else hostile.CASES[::3]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(
        tmp_path_factory.mktemp("cluster"),
        "scorer",
        "rollout",
        more=hostile.LATENCY + MORE,
        TAILRACE_PACKAGE_SECONDS="1",
        TAILRACE_PACKAGE_MEMORY_MB="512",
    ) as found:
        yield found


def steps(cluster: Cluster) -> list[dict[str, Any]]:
    codec = ControlCodec(RegistryClient(cluster.connection.registry))
    return [codec.decode("Rollout", m.value()) for m in read_all(cluster.connection, [lanes.ROLLOUTS])]


def waits_ms(cluster: Cluster, began_ms: float, ended_ms: float) -> list[int]:
    """From the append of each request in this time to its answer's. Every one has an answer."""
    asked = {s.at: s.appended_ms for s in cluster.observer.read(LANE.requests)}
    wanted = {at for at, appended in asked.items() if began_ms <= appended < ended_ms}
    found: dict[Any, int] = {}

    def answered() -> bool:
        for seen in cluster.observer.read(LANE.predictions):
            if seen.value is not None:
                source = cluster.observer.decode(seen.value)["source"]
                at = source["topic"], source["partition"], source["offset"]
                found[at] = seen.appended_ms - asked.get(at, 0)
        return wanted <= found.keys()

    until("every request is answered", answered)
    return [found[at] for at in wanted]


class Attacker:
    """Writes packages to the topics as bytes, with whatever signature they have."""

    def __init__(self, cluster: Cluster) -> None:
        self.codec = ControlCodec(RegistryClient(cluster.connection.registry))
        self.producer = Producer({**cluster.connection.kafka, "linger.ms": 0})

    def publish(self, sealed: hostile.Sealed) -> None:
        record, fetch = sealed
        offsets: dict[int, int] = {}
        named = {chunk.offset: chunk for chunk in chunks_of(record)}
        for at, chunk in named.items():

            def landed(_error: Any, message: Any, at: int = at) -> None:
                offsets[at] = message.offset()

            key = f"{record['model']}/{record['version']}/{chunk.part}/{chunk.number}"
            self.producer.produce(lanes.CHUNKS, fetch(chunk.part, [chunk]), key.encode(), on_delivery=landed)
        assert self.producer.flush(30) == 0
        chunks = [{**chunk, "offset": offsets[chunk["offset"]]} for chunk in record["chunks"]]
        value = self.codec.encode("ModelManifest", {**record, "chunks": chunks})
        self.producer.produce(lanes.MANIFESTS, value, f"{record['model']}/{record['version']}".encode())
        assert self.producer.flush(30) == 0


def test_hostile_packages_load_nothing_run_nothing_and_delay_nobody(cluster: Cluster, tmp_path: Path) -> None:
    cluster.publish(1)
    until("the scorer is ready", lambda: cluster.health("scorer", "/readyz").ok)
    hostile.trust_keys(cluster.home)
    attacker = Attacker(cluster)
    expected: dict[int, hostile.Case] = {}

    def alerts() -> dict[int, dict[str, Any]]:
        return {a["version"]: a for a in cluster.alerts() if a["kind"] == "package-refused"}

    def made(case: hostile.Case, version: int) -> hostile.Sealed:
        hostile.AS.version = version
        return case.make(tmp_path)

    packages = [made(case, version) for version, case in enumerate(CASES, 2)]
    hostile.AS.version = 2
    times = [time.time() * 1000]
    with Traffic(cluster):
        time.sleep(4)  # so long is it measured without
        times.append(time.time() * 1000)
        for case, sealed in zip(CASES, packages, strict=True):
            expected[sealed[0]["version"]] = case
            attacker.publish(sealed)
        until("each is refused", lambda: alerts().keys() >= expected.keys(), 240)
        times.append(time.time() * 1000)
        time.sleep(4)
        times.append(time.time() * 1000)

    for version, alert in alerts().items():
        wanted = expected[version].check
        # What is altered at a chunk's offset is found at the chunk.
        checks = {*wanted.split("|"), *(["chunk"] if wanted == "digest" else [])}
        assert alert["detail"]["check"] in checks, (expected[version].name, alert["summary"])
    assert not (tmp_path / "ran").exists()
    taken = steps(cluster)
    assert [s["step"] for s in taken] == ["first-champion"] + ["reject"] * len(CASES)
    assert {s["champion"] for s in taken} == {1}
    before, during, after = (waits_ms(cluster, *span) for span in pairwise(times))
    quiet = before + after
    for name, waits in (("without", quiet), ("with", during)):
        p50, p99 = np.percentile(waits, [50, 99])
        print(
            f"{name} hostile packages: n {len(waits)}, p50 {p50:.0f}, p99 {p99:.0f}, longest {max(waits)} ms"
        )
    print(f"{len(CASES)} packages in {(times[2] - times[1]) / 1000:.1f} s")
    assert max(during) <= max(quiet) + 1_000
