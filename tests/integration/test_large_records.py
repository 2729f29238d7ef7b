"""Records that are small as they are sent, and large once they are decompressed: no process dies of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.support.cluster import LANE, REQUEST, Cluster, running_cluster
from tests.support.waiting import until

LARGE = 60 * 1024 * 1024
SERVICES = ("scorer", "joiner", "rollout")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), *SERVICES) as made:
        made.publish(1)
        made.send(REQUEST)
        until(lambda: len(made.events()) == 1, "the first request is answered")
        yield made


def letters(cluster: Cluster) -> list[tuple[str, str]]:
    """Code and topic of each dead letter."""
    seen = [one.headers for one in cluster.observer.read(LANE.dead_letters) if one.value is not None]
    return [(headers["tailrace-code"].decode(), headers["tailrace-topic"].decode()) for headers in seen]


def peak_mib(pid: int | None) -> int:
    """The most memory that the process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def send(cluster: Cluster, codec: str, topic: str, record: dict[str, object]) -> None:
    options = {**cluster.connection.kafka, "compression.type": codec, "message.max.bytes": 2 * LARGE}
    with closing(Producer(options)) as producer:
        producer.produce(topic, json.dumps(record).encode(), b"k")
        assert producer.flush(60) == 0


@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip"])
def test_a_bomb_is_a_dead_letter_and_nobody_dies(cluster: Cluster, codec: str) -> None:
    before = letters(cluster)
    pids = {name: process.pid for name, process in cluster.processes.items()}
    send(cluster, codec, LANE.requests, REQUEST | {"purpose": "x" * LARGE})
    send(cluster, codec, LANE.labels, {"request_id": "r1", "target": True, "labelled_by": "x" * LARGE})
    send(cluster, codec, LANE.actions, {"request_id": "r1", "action": "x" * LARGE})
    until(lambda: len(letters(cluster)) == len(before) + 3, "all three are dead letters")
    new = Counter(letters(cluster)) - Counter(before)
    assert new == {("too-large", topic): 1 for topic in (LANE.requests, LANE.labels, LANE.actions)}
    answered = len(cluster.events())
    cluster.send(REQUEST)
    until(lambda: len(cluster.events()) == answered + 1, "what comes after it is answered")
    assert {name: process.pid for name, process in cluster.processes.items()} == pids
    print("peak MiB", codec, {name: peak_mib(pid) for name, pid in pids.items()})
