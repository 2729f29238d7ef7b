"""The client between an application and Kafka: what Kafka says of records comes to who sent them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tailrace.client import Client, DeliveryFailed, Rejected
from tailrace.client import client as module
from tailrace.connection import Connection
from tailrace.errors import TailraceError
from tailrace.streaming.records import Message, PlainMessage, RecordRef
from tailrace.testing.joined_lane import CONTRACT, JoinedLane

REFUSED, SILENT = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), KafkaError(KafkaError._MSG_TIMED_OUT)
SOON_S = 5.0


class Broker:
    """Takes records, and reports on them where somebody asks; what ``error`` says is not taken."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        self.sent: list[tuple[str, bytes | None]] = []
        self.values: list[bytes] = []
        self.contracts: list[Message] = []
        self.reports: list[Callable[[], None]] = []
        self.is_silent = False

    def produce(
        self, topic: str, value: bytes, key: bytes | None, *, on_delivery: Callable[..., None]
    ) -> None:
        self.sent.append((topic, key))
        self.values.append(value)
        error = self.error
        self.reports.append(lambda: on_delivery(error, None))

    def poll(self, timeout_s: float) -> None:
        time.sleep(0.001)
        while self.reports and not self.is_silent:
            self.reports.pop(0)()

    def flush(self, timeout_s: float) -> int:
        self.poll(0)
        return len(self.reports)

    def close(self) -> None: ...


@pytest.fixture
def lane() -> JoinedLane:
    return JoinedLane()


def contract_message(lane: JoinedLane, follows: int = 0) -> Message:
    record = lane.contract_record(follows)
    return PlainMessage(record.topic, 0, follows, record.value, record.key)


@pytest.fixture
def broker(lane: JoinedLane, monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    broker.contracts.append(contract_message(lane))
    monkeypatch.setattr(module, "RegistryClient", lambda *_: lane.registry)
    monkeypatch.setattr(module, "read_all", lambda *_: broker.contracts)
    monkeypatch.setattr(module.kafka, "producer", lambda _: broker)
    return broker


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    client = Client(Connection({"bootstrap.servers": "nowhere:1"}, "http://nowhere"))
    yield client
    broker.error, broker.is_silent = None, False
    try:
        client.close()
    except DeliveryFailed:
        client.close()


def send(client: Client, name: str) -> str:
    return client.send("credit", {"x": 1.0, "loan_id": "k1"}, request_id=name)


def heard(broker: Broker) -> None:
    """Waits until every report was asked for."""
    until = time.monotonic() + SOON_S
    while broker.reports and time.monotonic() < until:
        time.sleep(0.002)
    assert not broker.reports, "nobody asks what became of the records"
    time.sleep(0.01)  # the last one is being handed over


def test_records_are_sent_under_their_keys_to_the_topics_of_the_lane(client: Client, broker: Broker) -> None:
    assert send(client, "r1") == "r1"
    client.label("credit", True, request_id="r1", key="k1")
    client.act("credit", "approve", request_id="r1", key="k1")
    client.flush()
    assert broker.sent == [(f"credit.{name}", b"k1") for name in ("requests", "labels", "actions")]


def test_who_sends_next_hears_of_what_was_not_delivered_once(client: Client, broker: Broker) -> None:
    broker.error = REFUSED
    send(client, "r1")
    heard(broker)
    broker.error = None
    with pytest.raises(DeliveryFailed) as failed:
        send(client, "r2")
    assert (failed.value.ids, failed.value.unknown) == (["r1"], [])
    assert send(client, "r3") == "r3"
    assert [topic for topic, _ in broker.sent] == ["credit.requests"] * 2, "r2 was not sent"


@pytest.mark.parametrize("what", ["send", "label", "act"])
def test_a_flush_tells_what_was_not_delivered_and_what_is_not_known(
    client: Client, broker: Broker, what: str
) -> None:
    broker.error = SILENT
    if what == "send":
        send(client, "r1")
    elif what == "label":
        client.label("credit", True, request_id="r1", key="k1")
    else:
        client.act("credit", "approve", request_id="r1", key="k1")
    with pytest.raises(DeliveryFailed) as failed:
        client.flush()
    assert (failed.value.ids, failed.value.unknown) == (["r1"], ["r1"])
    client.flush()


def test_what_is_still_on_its_way_is_told_by_its_number(client: Client, broker: Broker) -> None:
    broker.is_silent = True
    send(client, "r1")
    send(client, "r2")
    with pytest.raises(TailraceError, match="2 records are still on their way"):
        client.flush(0.01)


def test_an_end_tells_it_too(client: Client, broker: Broker) -> None:
    broker.error = REFUSED
    send(client, "r1")
    with pytest.raises(DeliveryFailed):
        client.close()
    client.close()


def test_a_request_that_is_not_delivered_fails_for_who_waits(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        def __init__(self, *_: Any) -> None: ...

        def poll(self, timeout: float) -> None:
            time.sleep(0.01)

        def close(self) -> None: ...

    monkeypatch.setattr("tailrace.client.answers.Follower", Nothing)
    broker.error = REFUSED
    with pytest.raises(DeliveryFailed) as failed:
        client.predict("credit", {"x": 1.0, "loan_id": "k1"}, request_id="r1", timeout=SOON_S)
    assert failed.value.ids == ["r1"]
    client.flush()


def test_a_field_that_the_contract_has_gained_is_sent_by_who_began_before(
    client: Client, broker: Broker, lane: JoinedLane
) -> None:
    send(client, "r1")
    changed = CONTRACT.replace("x: {type: number}", "x: {type: number}, y: {type: number}")
    later = JoinedLane(changed, lane.registry)  # whose schemas are registered
    broker.contracts.append(contract_message(later, follows=1))
    client.send("credit", {"x": 1.0, "y": 2.5, "loan_id": "k1"}, request_id="r2")
    client.flush()
    first, second = (lane.codec.decode(value).record for value in broker.values)
    assert ("y" in first, second["y"]) == (False, 2.5)
    with pytest.raises(Rejected, match="no field z"):
        client.send("credit", {"x": 1.0, "z": 2.5, "loan_id": "k1"})


def test_who_follows_a_model_gets_its_events_and_no_others_of_the_lane(
    client: Client, lane: JoinedLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("credit", "other", "credit")
    events = [
        lane.prediction(RecordRef("credit.requests", 0, at), f"r{at}", "k", at, model=model).value
        for at, model in enumerate(models)
    ]
    left: list[Message] = [PlainMessage("credit.predictions", 0, at, v) for at, v in enumerate(events)]

    class Following:
        def __init__(self, *_: Any) -> None: ...

        def poll(self, timeout: float) -> Message | None:
            return left.pop(0) if left else None

        def close(self) -> None: ...

    monkeypatch.setattr(module.kafka, "Follower", Following)
    followed = list(client.predictions("credit", from_start=True, idle=0.05))
    assert [event["request_id"] for event in followed] == ["r0", "r2"]
