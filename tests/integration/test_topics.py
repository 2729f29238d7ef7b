"""Topics on a real broker: created as described, compared, and left alone."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.support.waiting import until

from tailrace.errors import Unavailable
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import free_port
from tailrace.streaming.backends.kafka.topics import align_topics, control_topics, ensure_topics, lane_topics


def test_what_is_missing_is_made_and_a_second_look_finds_nothing_to_say(kafka: LocalKafka) -> None:
    options = {"bootstrap.servers": kafka.bootstrap}
    wanted = [*control_topics(), *lane_topics("lane-made", {"requests": 86_400_000}, partitions=3)]
    assert ensure_topics(options, wanted) == []
    assert ensure_topics(options, wanted) == []
    listed = AdminClient(options).list_topics(timeout=10).topics
    assert {len(listed[t.name].partitions) for t in wanted if t.lane} == {3}
    assert {len(p.replicas) for t in wanted for p in listed[t.name].partitions.values()} == {1}


def test_what_differs_is_said_and_only_aligned_where_asked(kafka: LocalKafka) -> None:
    options = {"bootstrap.servers": kafka.bootstrap}
    admin = AdminClient(options)
    other = {
        "cleanup.policy": "compact",
        "max.message.bytes": "1000000",
        "message.timestamp.type": "CreateTime",
    }
    made = admin.create_topics([NewTopic("lane-other.requests", num_partitions=2, config=other)])
    made["lane-other.requests"].result(10)
    while "lane-other.requests" not in admin.list_topics(timeout=10).topics:
        pass  # the controller has it, and the broker hears of it

    wanted = lane_topics("lane-other", partitions=4)
    differences = ensure_topics(options, wanted)
    assert ensure_topics(options, wanted) == differences, "looking changes nothing"
    settings = {(d.setting, d.found) for d in differences if d.topic == "lane-other.requests"}
    assert settings == {("partitions", "2"), *other.items(), ("retention.ms", "604800000")}
    elsewhere = [d for d in differences if d.topic != "lane-other.requests"]
    assert {(d.setting, d.wanted, d.found) for d in elsewhere} == {("partitions", "4", "2")}, (
        "the lane's other topics have as many as those that were there, or keys would not meet"
    )
    assert "lane-other.requests: partitions is 2, 4 is expected" in map(str, differences)

    remaining = align_topics(options, differences)
    assert {d.setting for d in remaining} == {"partitions"}
    aligned = lane_topics("lane-other", partitions=2)
    # The controller has them, and the broker hears of it.
    until(lambda: not ensure_topics(options, aligned), "the settings are as wanted")


def test_no_broker_is_a_retry() -> None:
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        ensure_topics({"bootstrap.servers": f"127.0.0.1:{free_port()}"}, control_topics(), timeout=0.3)
