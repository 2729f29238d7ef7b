"""The client against a real broker; a hand-made scorer answers what it is asked."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from tests.support.lane import HandmadeLane

from tailrace.avro.registry import RegistryClient
from tailrace.client import Client, DeliveryFailed, Rejected, Timeout
from tailrace.connection import Connection
from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.lanes import ALERTS
from tailrace.errors import UsageError
from tailrace.streaming import dead_letters
from tailrace.streaming.records import DeadLetter, Record, RecordRef


class Answering(threading.Thread):
    """Answers every request of a lane: a dead letter where the income is negative, nothing where it is 13."""

    def __init__(self, lane: HandmadeLane) -> None:
        super().__init__(daemon=True)
        self.lane = lane
        self.stopping = threading.Event()
        self.consumer = Consumer(
            {**lane.connection.kafka, "group.id": lane.model, "auto.offset.reset": "earliest"}
        )
        self.consumer.subscribe([lane.lane.requests])

    def run(self) -> None:
        while not self.stopping.is_set():
            message = self.consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            asked = self.lane.codec.decode(message.value()).record
            source = RecordRef.of(message)
            if asked["income"] == 13:
                continue
            if asked["income"] < 0:
                letter = DeadLetter(self.lane.lane.dead_letters, message, "out-of-range", "below 0", "income")
                records = [dead_letters.to_record(letter, "scorer")]
            else:
                records = [
                    self.lane.prediction(source, score=asked["income"] / 100)._replace(key=message.key())
                ]
            self.lane.write(records, transactional_id=f"{self.lane.model}-scorer")
        self.consumer.close()


@pytest.fixture(scope="module")
def lane(stack: Connection) -> Iterator[HandmadeLane]:
    made = HandmadeLane(stack, f"c{uuid.uuid4().hex[:10]}")
    answering = Answering(made)
    answering.start()
    yield made
    answering.stopping.set()
    answering.join()


@pytest.fixture(scope="module")
def client(lane: HandmadeLane) -> Iterator[Client]:
    with Client(lane.connection) as made:
        yield made


def test_predict_returns_the_event_of_this_very_request(client: Client, lane: HandmadeLane) -> None:
    first = client.predict(lane.model, {"income": 40, "purpose": "car"}, timeout=30, request_id="same")
    second = client.predict(lane.model, {"income": 80, "purpose": "car"}, timeout=30, request_id="same")
    assert (first["score"], second["score"]) == (0.4, 0.8)
    assert first["source"] != second["source"]


def test_threads_get_their_own_answers(client: Client, lane: HandmadeLane) -> None:
    scores: dict[int, float] = {}

    def ask(income: int) -> None:
        scores[income] = client.predict(lane.model, {"income": income}, timeout=30)["score"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20, 28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {n: n / 100 for n in range(20, 28)}


def test_a_dead_letter_is_raised_as_a_rejection(client: Client, lane: HandmadeLane) -> None:
    with pytest.raises(Rejected) as refused:
        client.predict(lane.model, {"income": -1}, timeout=30)
    assert (refused.value.code, refused.value.field, refused.value.reason) == (
        "out-of-range",
        "income",
        "below 0",
    )


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"income": "much"}, "wrong-type", "income"),
        ({"incme": 1}, "unknown-field", "incme"),
    ],
)
def test_what_cannot_be_sent_is_rejected_at_once(
    client: Client, lane: HandmadeLane, row: dict[str, object], code: str, field: str
) -> None:
    with pytest.raises(Rejected) as refused:
        client.predict(lane.model, row, timeout=30)
    assert (refused.value.code, refused.value.field) == (code, field)


def test_no_answer_in_time(client: Client, lane: HandmadeLane) -> None:
    with pytest.raises(Timeout, match=f"{lane.lane.requests}/"):
        client.predict(lane.model, {"income": 13}, timeout=0.5)


def test_a_model_that_is_not_there(client: Client, lane: HandmadeLane) -> None:
    with pytest.raises(UsageError, match=f"nobody.*{lane.model}.*tailrace apply"):
        client.send("nobody", {})


def test_what_kafka_does_not_take_is_said(client: Client, lane: HandmadeLane) -> None:
    with pytest.raises(DeliveryFailed) as failed:
        client.send(lane.model, {"purpose": "x" * 2_000_000}, request_id="large")
    assert failed.value.ids == ["large"]


def test_alerts_of_one_model(client: Client, lane: HandmadeLane) -> None:
    alerts = client.alerts(lane.model, idle=10)
    codec = ControlCodec(RegistryClient(lane.connection.registry, lane.connection.registry_auth))
    alert = {
        "alert_id": "1",
        "state": "raised",
        "kind": "test",
        "severity": "info",
        "service": "tests",
        "summary": "a test",
        "at": 0,
    }
    lane.write(
        Record(ALERTS, codec.encode("Alert", alert | {"model": model}), model.encode())
        for model in ("somebody-else", lane.model)
    )
    assert next(alerts)["model"] == lane.model


def test_predictions_from_now_on_and_from_the_start(client: Client, lane: HandmadeLane) -> None:
    events = client.predictions(lane.model, idle=10)  # the position is taken here
    asked = client.predict(lane.model, {"income": 77}, timeout=30)
    assert next(events)["prediction_id"] == asked["prediction_id"]
    seen = client.predictions(lane.model, from_start=True, idle=1)
    assert asked["prediction_id"] in [next(seen)["prediction_id"] for _ in range(5)] + [
        event["prediction_id"] for event in seen
    ]


def test_labels_and_actions_are_keyed_as_their_request(client: Client, lane: HandmadeLane) -> None:
    request_id = client.send(lane.model, {"income": 50})
    client.label(lane.model, True, request_id=request_id, event_time="2026-01-01T00:00Z", by="court")
    client.act(lane.model, "approve", request_id=request_id)
    client.flush()
    consumer = Consumer(
        {**lane.connection.kafka, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([lane.lane.requests, lane.lane.labels, lane.lane.actions])
    received: dict[str, tuple[int, dict[str, object]]] = {}
    while len(received) < 3:
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        if message.key() == request_id.encode():
            received[message.topic()] = (message.partition(), lane.codec.decode(message.value()).record)
    consumer.close()
    assert len({partition for partition, _ in received.values()}) == 1
    assert received[lane.lane.labels][1]["defaulted"] is True
    assert received[lane.lane.labels][1]["event_time"] == 1767225600000
    assert received[lane.lane.actions][1]["action"] == "approve"
