"""Garbage and tombstones on every control topic of a real broker: what people run says what it has to say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.support.control_garbage import garbage
from tests.support.stack import running_stack

from tailrace.avro.registry import RegistryClient
from tailrace.cli.control import contracts, in_service, models_in_force
from tailrace.client.client import Client
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.control.apply import apply, plan
from tailrace.control.commands import ask, rollouts
from tailrace.control.evaluations import evaluations
from tailrace.control.versions import published_versions
from tailrace.errors import TailraceError
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.backends.kafka.topics import control_topics, ensure_topics
from tailrace.verify.verify import Verification

TEXT = "model: garbage\nowner: {team: t}\nfeatures: {a: {type: number}}\ntarget: {name: y, type: boolean}\n"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Connection]:
    """On a broker of its own: other tests read the control topics of the shared one."""
    broker = LocalKafka(tmp_path / "kafka")
    broker.start()
    home = tmp_path / "home"
    home.mkdir()
    try:
        with running_stack(broker, home) as connection:
            yield connection
    finally:
        broker.stop()


def test_commands_go_on(stack: Connection, tmp_path: Path) -> None:
    ensure_topics(stack.kafka, control_topics())
    assert stack.home is not None
    file = tmp_path / "garbage.yaml"
    file.write_text(TEXT)
    in_force = contracts(stack)
    apply(stack, plan([file], in_force), in_force, print)

    producer = Producer(stack.kafka)
    registry = RegistryClient(stack.registry, stack.registry_auth)
    for topic in lanes.CONTROL_TOPICS:
        for record in list(garbage(topic, registry))[:: 1 if topic == lanes.CONTRACTS else 7]:
            if record.key is not None or topic not in (
                lanes.CHUNKS,
                lanes.WINDOW_STATE,
            ):  # those are compacted
                producer.produce(topic, record.value, record.key, headers=list(record.headers))
    assert producer.flush(60) == 0

    assert "garbage" in {model["model"] for model in models_in_force(stack)}  # status
    published_versions(stack, stack.home)  # models
    evaluations(stack)
    assert rollouts(stack).state("garbage").revision == 0
    in_service(stack, stack.home)
    in_force = contracts(stack)  # up and apply
    assert [each.is_needed for each in plan([file], in_force)] == [False]
    file.write_text(TEXT.replace("number", "number, min: 0"))
    apply(stack, plan([file], in_force), in_force, print)
    assert contracts(stack).current["garbage"].revision == 2
    with pytest.raises(TailraceError, match="the rollout did not answer within 1 s"):  # no service runs here
        ask(stack, stack.home, "rollback", "garbage", timeout_s=1)
    with Client(connection=stack) as client:
        assert client.facts("garbage").fields == {"a": "number"}
    report = Verification(stack, "garbage", wait_s=0.1, home=stack.home).run()
    assert "traceback" not in str(report).lower()
