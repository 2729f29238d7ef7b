"""Packages on a real broker, while requests are answered: hostile ones, versions of the past, keys that are revoked.

The broker is this module's own; each test begins where the one before it ended.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from tests.support import hostile
from tests.support.cluster import LANE, REQUEST, Cluster, Traffic, running_cluster
from tests.support.waiting import until
from typer.testing import CliRunner

from tailrace.avro.registry import RegistryClient
from tailrace.cli.app import app
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.control.commands import ask
from tailrace.errors import TailraceError
from tailrace.models.errors import PackageRefused
from tailrace.models.package.open import chunks_of, verified_manifest
from tailrace.signing.trust import TrustStore, own_key
from tailrace.streaming.backends.kafka.clients import end
from tailrace.streaming.backends.kafka.reading import read_all, read_at

MORE = """
labels: {horizon: 1s}
drift: {window: 1s}
quality: {window: 1s}
keep: {predictions: 2s}
"""
CASES = hostile.CASES if os.environ.get("TAILRACE_CHAOS") == "long" else hostile.CASES[::4]


REVOKED = {n for n, case in enumerate(CASES, 2) if case.name == "signed-by-a-revoked-key"}
"""Versions whose key counts for the past alone: no step is about them, and their numbers and chunks stay taken."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with _cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def calm_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Another one, in which nobody has been refused: of many that are, not each is told."""
    with _cluster(tmp_path) as cluster:
        cluster.publish(1)
        until(lambda: steps(cluster) and cluster.health("scorer", "/readyz").ok, "version 1 answers")
        second = cluster.publish(kind="forest")
        until(lambda: steps(cluster)[-1]["version"] == second, "it waits")
        promoted(cluster, second)
        assert ask(cluster.connection, cluster.home, "rollback", "credit").step is not None
        yield cluster


@contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    with running_cluster(
        folder,
        "scorer",
        "rollout",
        more=hostile.LATENCY + MORE,
        TAILRACE_PACKAGE_SECONDS="1",
        TAILRACE_PACKAGE_MEMORY_MB="512",
    ) as cluster:
        # The contract's two seconds are what `--prune` goes by; what is there is to stay until a test removes it.
        configure(cluster, ResourceType.TOPIC, LANE.predictions, retention_ms="-1")
        yield cluster


def steps(cluster: Cluster) -> list[dict[str, Any]]:
    codec = ControlCodec(RegistryClient(cluster.connection.registry, cluster.connection.registry_auth))
    return [codec.decode("Rollout", m.value()) for m in read_all(cluster.connection, [lanes.ROLLOUTS])]


def waits_ms(cluster: Cluster, began_ms: float, ended_ms: float) -> list[int]:
    """From the append of each request in this time to its answer's. Every one has an answer."""
    asked = {s.at: s.appended_ms for s in cluster.observer.read(LANE.requests)}
    wanted = {at for at, appended in asked.items() if began_ms <= appended < ended_ms}
    waits: dict[Any, int] = {}

    def answered() -> bool:
        for seen in cluster.observer.read(LANE.predictions):
            if seen.value is not None:
                source = cluster.observer.decode(seen.value)["source"]
                at = source["topic"], source["partition"], source["offset"]
                waits[at] = seen.appended_ms - asked.get(at, 0)
        return wanted <= waits.keys()

    until(answered, "every request is answered")
    return [waits[at] for at in wanted]


class Attacker:
    """Writes packages to the topics as bytes, with whatever signature they have."""

    def __init__(self, cluster: Cluster) -> None:
        self.codec = ControlCodec(
            RegistryClient(cluster.connection.registry, cluster.connection.registry_auth)
        )
        self.producer = Producer({**cluster.connection.kafka, "linger.ms": 0, "message.max.bytes": 4 << 20})

    def close(self) -> None:
        end(self.producer)

    def publish(self, sealed: hostile.Sealed) -> None:
        record, fetch = sealed
        offsets: dict[int, int] = {}
        named = {chunk.offset: chunk for chunk in chunks_of(record)}
        for at, chunk in named.items():

            def landed(_error: Any, message: Any, at: int = at) -> None:
                offsets[at] = message.offset()

            key = f"{record['model']}/{record['version']}/{chunk.part}/{chunk.number}"
            self.producer.produce(lanes.CHUNKS, fetch([chunk])[0], key.encode(), on_delivery=landed)
        assert self.producer.flush(30) == 0
        chunks = [{**chunk, "offset": offsets[chunk["offset"]]} for chunk in record["chunks"]]
        value = self.codec.encode("ModelManifest", {**record, "chunks": chunks})
        self.producer.produce(lanes.MANIFESTS, value, f"{record['model']}/{record['version']}".encode())
        assert self.producer.flush(30) == 0


def is_signed(record: dict[str, Any], home: Path) -> bool:
    try:
        verified_manifest(record, TrustStore(home / "keys"))
    except PackageRefused:
        return False
    return True


def test_hostile_packages_load_nothing_run_nothing_and_delay_nobody(
    cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cluster.publish(1)
    answered_by(cluster, 1)
    hostile.trust_keys(cluster.home)
    # What was fetched is kept by digest, and the good package has the parts that bad ones were made from: with a file
    # in the place of these folders everything is read from the topic.
    caches = list((cluster.home / "cache").glob("*/packages"))
    assert caches
    for cache in caches:
        shutil.rmtree(cache)
        cache.touch()
    attacker = Attacker(cluster)
    request.addfinalizer(attacker.close)
    expected: dict[int, hostile.Case] = {}

    def alerts() -> dict[int, dict[str, Any]]:
        return {a["version"]: a for a in cluster.alerts() if a["kind"] == "package-refused"}

    def made(case: hostile.Case, version: int) -> hostile.Sealed:
        hostile.AS.version = version
        return case.make(tmp_path)

    packages = [made(case, version) for version, case in enumerate(CASES, 2)]
    # What nobody trusted has signed counts for nothing: no step is about it, and of a flood not every one is told.
    signed = {sealed[0]["version"] for sealed in packages if is_signed(sealed[0], cluster.home)}
    assert 0 < len(signed) < len(CASES)
    hostile.AS.version = 2
    times = [time.time() * 1000]
    with Traffic(cluster):
        time.sleep(2)  # so long is it measured without
        times.append(time.time() * 1000)
        for case, sealed in zip(CASES, packages, strict=True):
            expected[sealed[0]["version"]] = case
            attacker.publish(sealed)
        until(lambda: alerts().keys() >= signed, "each is refused")
        times.append(time.time() * 1000)
        time.sleep(2)
        times.append(time.time() * 1000)
    cache.unlink()

    for version, alert in alerts().items():
        wanted = expected[version].check
        # What is altered at a chunk's offset is found at the chunk.
        checks = {*wanted.split("|"), *(["chunk"] if wanted == "digest" else [])}
        assert alert["detail"]["check"] in checks, (expected[version].name, alert["summary"])
    assert not (tmp_path / "ran").exists()
    taken = steps(cluster)
    assert [s["step"] for s in taken] == ["first-champion"] + ["reject"] * len(signed)
    assert {s["champion"] for s in taken} == {1}
    before, during, after = (waits_ms(cluster, *span) for span in itertools.pairwise(times))
    quiet = before + after
    for name, waits in (("without", quiet), ("with", during)):
        p50, p99 = np.percentile(waits, [50, 99])
        print(
            f"{name} hostile packages: n {len(waits)}, p50 {p50:.0f}, p99 {p99:.0f}, longest {max(waits)} ms"
        )
    print(f"{len(CASES)} packages in {(times[2] - times[1]) / 1000:.1f} s")
    assert max(during) <= max(quiet) + 1_000


def run(cluster: Cluster, *command: str) -> Any:
    """What ``tailrace ... --json`` prints."""
    done = CliRunner().invoke(app, [*command, "--json"], env=cluster.env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def promoted(cluster: Cluster, version: int) -> None:
    """Once the version answers."""
    answer = until(
        lambda: ask(cluster.connection, cluster.home, "promote", "credit", version).step,
        f"{version} is promoted",
    )
    assert answer["champion"] == version
    answered_by(cluster, version)


def answered_by(cluster: Cluster, version: int) -> None:
    answers = cluster.answering()

    def answered() -> bool:
        cluster.send(REQUEST)
        return any(event["version"] == version for event in answers())

    until(answered, f"version {version} answers")


def whole(cluster: Cluster, version: int) -> bool:
    """Whether every chunk of a version can be read."""
    codec = ControlCodec(RegistryClient(cluster.connection.registry, cluster.connection.registry_auth))
    manifests = (
        codec.decode("ModelManifest", m.value()) for m in read_all(cluster.connection, [lanes.MANIFESTS])
    )
    record = next(r for r in manifests if r["model"] == "credit" and r["version"] == version)
    places = [(chunk.partition, chunk.offset) for chunk in chunks_of(record)]
    return read_at(cluster.connection, lanes.CHUNKS, places).keys() == set(places)


def configure(cluster: Cluster, kind: ResourceType, name: str, **settings: str) -> None:
    """Settings of the broker or of a topic; underscores stand for dots."""
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for key, value in settings.items()
    ]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    admin = AdminClient(dict(cluster.connection.kafka))
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(20)


def compact_now(cluster: Cluster) -> None:
    """Has the broker compact the chunks at once, which it does in its own time otherwise."""
    configure(cluster, ResourceType.BROKER, "1", log_cleaner_backoff_ms="100")
    soon = {"segment_ms": "1", "min_cleanable_dirty_ratio": "0", "delete_retention_ms": "0"}
    configure(cluster, ResourceType.TOPIC, lanes.CHUNKS, **soon)
    time.sleep(0.01)
    producer = Producer(cluster.connection.kafka)
    producer.produce(lanes.CHUNKS, b"", b"credit/0/closes-the-segment")  # only closed segments are compacted
    assert producer.flush(20) == 0


def test_pruning_removes_what_nothing_needs_and_everything_goes_on(cluster: Cluster) -> None:
    second = cluster.publish()
    until(lambda: steps(cluster)[-1]["version"] == second, "it waits")
    promoted(cluster, second)
    third = cluster.publish(kind="forest")
    until(lambda: steps(cluster)[-1]["version"] == third, "it waits")
    promoted(cluster, third)
    rejected = until(lambda: ask(cluster.connection, cluster.home, "reject", "credit", 1).step, "1 is out")
    assert rejected["previous"] == second
    waiting = cluster.publish(kind="forest")
    until(lambda: waiting in {*steps(cluster)[-1]["shadow"], *steps(cluster)[-1]["candidates"]}, "it waits")
    producer = Producer({**cluster.connection.kafka, "transactional.id": "interrupted"})
    producer.init_transactions(20)
    for number, ends in ((9998, producer.abort_transaction), (9999, producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(lanes.CHUNKS, b"half", f"credit/{number}/model/0".encode())
        producer.flush(20)
        ends(20)

    def unneeded() -> list[dict[str, Any]]:
        return run(cluster, "models", "credit", "--prune", "--dry-run")

    def versions(listed: list[dict[str, Any]]) -> set[int]:
        return {each["version"] for each in listed}

    time.sleep(2.1)  # longer than the contract keeps predictions
    # Predictions of version 1 are there, since Kafka deletes later than it might.
    assert versions(unneeded()).isdisjoint({1, second, third, waiting})
    assert versions(unneeded()) >= {9999}
    admin = AdminClient(dict(cluster.connection.kafka))
    deleted = admin.delete_records([TopicPartition(LANE.predictions, p, OFFSET_END) for p in range(3)])
    for done in deleted.values():
        done.result(20)
    answered_by(cluster, third)
    listed = unneeded()
    assert listed == unneeded()
    assert versions(listed) >= {1, 9999}
    assert versions(listed).isdisjoint({second, third, waiting})
    why = {each["version"]: each["why"] for each in listed}
    assert "has not scored since" in why[1]
    assert "no manifest" in why[9999]
    assert versions(run(cluster, "models", "credit", "--prune")) == versions(listed)
    assert unneeded() == run(cluster, "models", "credit", "--prune") == []

    last = {seen.key: seen.value for seen in cluster.observer.read(lanes.CHUNKS)}
    alive = {int(key.split(b"/")[1]) for key, value in last.items() if key and value is not None}
    assert alive - REVOKED == {second, third, waiting}
    states = {v["version"]: v["state"] for v in run(cluster, "models", "credit")}
    assert states[1] == "pruned"
    assert (states[second], states[third]) == ("previous", "champion")
    for command in ("promote", "shadow"):
        with pytest.raises(TailraceError, match="publish the model again as a new version"):
            run(cluster, command, "credit", "1")

    compact_now(cluster)
    until(lambda: not whole(cluster, 1), "the broker has forgotten version 1")
    assert all(whole(cluster, version) for version in (second, third, waiting))
    for name in ("scorer", "rollout"):
        cluster.processes[name].kill()
    shutil.rmtree(cluster.home / "cache")
    for name in ("trainer", "rollout", "scorer"):
        cluster.run(name)
    answered_by(cluster, third)
    back = ask(cluster.connection, cluster.home, "rollback", "credit").step
    assert back is not None
    answered_by(cluster, second)
    until(lambda: cluster.health("trainer", "/readyz").ok, "the trainer is ready")
    cluster.processes["trainer"].stop(10)
    verified = run(cluster, "verify", "--deep", "--wait", "0")
    assert verified["ok"], verified["problems"][:5]
    assert verified["rescored"] > 0


def test_what_a_revoked_key_has_signed_is_taken_up_no_more_and_goes_on_where_it_answers(
    calm_cluster: Cluster,
) -> None:
    cluster = calm_cluster
    champion = steps(cluster)[-1]["champion"]
    old = own_key(cluster.home)
    made = run(cluster, "keys", "new")
    run(cluster, "keys", "revoke", old.key_id)
    assert {k["key_id"]: k["state"] for k in run(cluster, "keys", "list")}[old.key_id] == "revoked"
    answered_by(cluster, champion)  # goes on

    late = cluster.publish(key=old)

    def alert(version: int, service: str) -> Any:
        def raised() -> list[dict[str, Any]]:
            cluster.send(REQUEST)  # the scorer tells with its answers
            return [a for a in cluster.alerts() if (a["version"], a["service"]) == (version, service)]

        return until(raised, f"{service} tells of {version}")[-1]

    assert alert(late, "rollout")["detail"]["check"] == "signature"
    assert "revoked" in alert(late, "rollout")["summary"]

    # To bring an older one back is refused, and what answers is still shown as what it is.
    (reopened,) = steps(cluster)[-1]["rolled_back"]
    with pytest.raises(TailraceError, match="revoked here"):
        run(cluster, "promote", "credit", str(reopened))
    with pytest.raises(TailraceError, match="revoked here"):
        run(cluster, "shadow", "credit", str(reopened))
    shown = {v["version"]: (v["state"], v["trusted"]) for v in run(cluster, "models", "credit")}
    assert (shown[champion], shown[reopened]) == (("champion", False), ("rolled back", False))
    answered_by(cluster, champion)

    cluster.processes["scorer"].kill()
    cluster.run("scorer")
    cluster.send(*[REQUEST] * 5)
    until(lambda: "revoked" in cluster.health("scorer", "/readyz").text, "it waits and says why")
    new = cluster.publish()
    until(lambda: steps(cluster)[-1]["version"] == new, "it waits")
    run(cluster, "promote", "credit", str(new))
    answered_by(cluster, new)
    verified = run(cluster, "verify", "--deep", "--wait", "0")
    assert verified["ok"], verified["problems"][:5]
    assert any(f"version {champion} (key {old.key_id})" in text for text in verified["revoked"])

    # Keys are trusted again, and others revoked. No answer falls back to an older revision by itself: people decide.
    (public,) = (cluster.home / "keys" / "revoked").rglob(f"{old.key_id}.pub")
    run(cluster, "keys", "trust", str(public), "--signer", "owner")
    run(cluster, "keys", "revoke", made["key_id"])
    answered_by(cluster, new)
    cluster.processes["scorer"].kill()
    cluster.run("scorer")
    cluster.send(REQUEST)
    until(lambda: "revoked" in cluster.health("scorer", "/readyz").text, "it waits and says why")
    run(cluster, "keys", "new")
    run(cluster, "promote", "credit", str(reopened))
    answered_by(cluster, reopened)
