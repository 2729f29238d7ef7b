"""Running services on a real broker, and somebody who can write to every topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.support.cluster import LANE, REQUEST, Cluster, running_cluster
from tests.support.waiting import until

from tailrace.avro.registry import RegistryClient
from tailrace.contracts.records import lanes
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.control.commands import ask
from tailrace.signing.keys import KeyFile
from tailrace.signing.signers import ROLLOUT
from tailrace.signing.trust import TrustStore, new_signing_key
from tailrace.streaming.backends.kafka.reading import Ends, read_all


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("forged"), "scorer", "rollout") as found:
        yield found


def refused(cluster: Cluster) -> list[str]:
    return [alert["source"]["topic"] for alert in cluster.alerts() if alert["kind"] == "record-refused"]


def answer(cluster: Cluster) -> dict[str, Any]:
    before = len(cluster.events())
    cluster.send(REQUEST)
    until(lambda: len(cluster.events()) > before, "it is answered")
    return max(cluster.events(), key=lambda event: int(event["request_id"][1:]))


def test_forged_records_of_every_kind_change_nothing_and_are_told_once_each(cluster: Cluster) -> None:
    cluster.publish(1)
    until(lambda: cluster.health("scorer", "/readyz").ok, "the scorer is ready")
    assert answer(cluster)["version"] == 1
    codec = ControlCodec(RegistryClient(cluster.connection.registry, cluster.connection.registry_auth))
    place = {"topic": lanes.COMMANDS, "partition": 0, "offset": 0}
    known = codec.decode("Contract", next(read_all(cluster.connection, [lanes.CONTRACTS])).value())
    steps = [codec.decode("Rollout", m.value()) for m in read_all(cluster.connection, [lanes.ROLLOUTS])]
    off = {**steps[-1], "revision": len(steps) + 1, "follows": len(steps), "off": True, "command_id": None}
    forged = {
        "Rollout": [off, off | {"evidence": {"sequence": "abc"}}],
        "Contract": [known | {"revision": 2, "follows": 1, "applied_by": "mallory"}],
        "Clock": [{"lane": "credit", "revision": 1, "follows": 0, "owner": "replay", "by": "mallory", "at": 0}],
        "Alert": [
            {
                "alert_id": "x", "state": "raised", "kind": "version-quarantined", "severity": "severe",
                "model": "credit", "version": 1, "service": "scorer", "summary": "", "source": place, "at": 0,
            }
        ],
    }  # fmt: skip
    producer = Producer(cluster.connection.kafka)
    topics = {
        "Rollout": lanes.ROLLOUTS,
        "Contract": lanes.CONTRACTS,
        "Clock": lanes.CLOCKS,
        "Alert": lanes.ALERTS,
    }
    for name, records in forged.items():
        for record in records:
            producer.produce(topics[name], codec.encode(name, record), b"credit", partition=0)
        producer.produce(topics[name], b"rubbish", b"credit", partition=0)
    assert producer.flush(30) == 0
    expected = sorted(topics[name] for name, records in forged.items() for _ in [*records, b"rubbish"])
    until(lambda: len(refused(cluster)) >= len(expected), "each is told")
    event = answer(cluster)
    assert (event["version"], event["served_by"]) == (1, "model")
    time.sleep(1)
    assert sorted(refused(cluster)) == expected
    assert all(process.running() for process in cluster.processes.values())
    assert [e["served_by"] for e in cluster.events(LANE.predictions)] == ["model"] * cluster.sent


def test_a_key_is_replaced_while_the_services_run_and_what_was_decided_stays(cluster: Cluster) -> None:
    old = KeyFile(cluster.home, ROLLOUT).key()
    new_signing_key(cluster.home, signer=ROLLOUT)
    assert ask(cluster.connection, cluster.home, "freeze", "credit").step is not None
    until_now = {
        at.topic: end for at, end in Ends(cluster.connection).of([lanes.ROLLOUTS, lanes.ALERTS]).items()
    }
    TrustStore(cluster.home / "keys").revoke(old.key_id, until_now)
    for name in ("scorer", "rollout"):
        cluster.processes[name].stop(10)
        cluster.run(name)
    until(lambda: cluster.health("scorer", "/readyz").ok, "the scorer is ready")
    assert answer(cluster)["version"] == 1
    assert ask(cluster.connection, cluster.home, "unfreeze", "credit").step is not None
    assert len(refused(cluster)) == 9, "nothing of what the old key had signed is told of again"
