from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.support.scoring import CONTRACT, NOW, REQUEST, Bench, Publisher

from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Tolerance
from tailrace.streaming.records import Message, PlainMessage, Record, RecordRef
from tailrace.testing.formula_model import formula_model
from tailrace.verify.rescore import Rescorer, Sample

REQUESTS = 16
TOLERANCE = 1e-4


class World:
    """A log with two contracts and two versions, each in force for some of the requests, at last switched off."""

    def __init__(self, contract: str = CONTRACT) -> None:
        self.publisher = Publisher()
        self.log: list[Message] = []
        self.requests: dict[RecordRef, Message] = {}
        self.predictions: list[PlainMessage] = []
        self.bench = Bench(self.publisher.logic(), self.publisher)
        self.control(self.publisher.contract(contract), self._version(1))
        self.control(self.publisher.rollout(champion=1))
        self.score()
        self.control(self.publisher.contract(contract.replace("score < 0.6", "score < 0.7")))
        self.score()
        self.control(self._version(2), self.publisher.rollout(champion=2, previous=1))
        self.score()
        self.control(self.publisher.rollout(champion=2, previous=1, off=True))
        self.score()

    def canary(self, share: float) -> None:
        """Version 1 answers a share beside version 2."""
        state = {"canary": {"version": 1, "share": share, "salt": "s", "step": 1}}
        self.control(self.publisher.rollout(champion=2, shadow=[1], **state))
        self.score()

    def _version(self, number: int) -> Record:
        tolerance = Tolerance(absolute=0.0, relative=TOLERANCE)
        contract = self.publisher.contracts["credit"][-1]
        return self.publisher.manifest(number, formula_model(contract, number, tolerance=tolerance))

    def control(self, *records: Record) -> None:
        messages = [self.bench.message(record) for record in records]
        self.bench.logic.control(messages)
        self.log += messages

    def score(self) -> None:
        for _ in range(REQUESTS // 4):
            number = len(self.requests)
            request = REQUEST | {"loan_id": f"l{number}", "debt_ratio": number / 4, "purpose": "boat"}
            if number % 3 == 0:
                request |= {"income": None, "applied_at": None, "request_id": None}
            message = self.bench.message(
                Record("credit.requests", self.publisher.request_value(request)), NOW + number
            )
            self.requests[RecordRef.of(message)] = message
            for record in self.bench.process([message]).records:
                if record.value is None:  # a mark
                    continue
                offset = len(self.predictions)
                self.predictions.append(
                    PlainMessage(record.topic, 0, offset, record.value, record.key, (), NOW)
                )

    def problems(
        self, predictions: Sequence[Message] | None = None, requests: dict[RecordRef, Message] | None = None
    ) -> list[tuple[int, str]]:
        rescorer = Rescorer(self.publisher.control.by("scorer"), self.log, self.publisher.open)
        held = self.requests if requests is None else requests
        differing = rescorer.problems(
            self.predictions if predictions is None else predictions,
            lambda sources: {s: held[s] for s in sources if s in held},
        )
        return [(problem.offset, problem.detail) for problem in differing]

    def altered(self, offset: int, change: Callable[[dict[str, Any]], None]) -> PlainMessage:
        message = self.predictions[offset]
        schema_id, event = self.publisher.codec.decode(message.value())
        change(event)
        value = self.publisher.codec.encode(schema_id, event)
        return PlainMessage(message.topic(), 0, offset, value, message.key(), (), NOW)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_same_requests_come_to_the_same_events(world: World) -> None:
    assert len(world.predictions) == REQUESTS
    assert world.problems() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", 0.123),
        ("action", "approve"),
        ("rule", "another"),
        ("predicted_class", "neither"),
        ("event_time", NOW - 5),
        ("served_by", "rule"),
        ("action_propensity", 0.5),
        ("replaced", []),
        ("key", "somebody else"),
    ],
)
def test_an_altered_field_shows(world: World, field: str, value: Any) -> None:
    ((offset, detail),) = world.problems([world.altered(9, lambda event: event.update({field: value}))])
    assert offset == 9
    assert f"{field}" in detail


def test_an_altered_input_shows(world: World) -> None:
    ((_, detail),) = world.problems([world.altered(4, lambda event: event["request"].update(amount=2.0))])
    assert "request.amount: 2.0 / 1000.0" in detail


def test_another_key_shows(world: World) -> None:
    one = world.predictions[9]
    moved = PlainMessage(one.topic(), 0, 9, one.value(), b"somebody else", (), NOW)
    ((offset, detail),) = world.problems([moved])
    assert (offset, "its key: b'somebody else' / b'l9'" in detail) == (9, True)


def test_latency_is_not_compared(world: World) -> None:
    assert world.problems([world.altered(4, lambda event: event.update(latency_ms=99.0))]) == []


def test_another_runtime_is_compared_within_tolerance(world: World) -> None:
    def elsewhere(event: dict[str, Any], by: float) -> None:
        event["runtime"] = {"cpu": "another"}
        event["score"] *= 1 + by

    assert world.problems([world.altered(4, lambda event: elsewhere(event, 0.9 * TOLERANCE))]) == []
    ((_, detail),) = world.problems([world.altered(4, lambda event: elsewhere(event, 1.1 * TOLERANCE))])
    assert detail.startswith("scored again: score:")


def test_a_package_that_is_refused_now_shows(world: World) -> None:
    world = World()
    world.publisher.models["credit", 2] = PackageRefused("signature", "altered")
    assert {offset for offset, _ in world.problems()} == set(range(8, 12))
    assert all("signature" in detail for _, detail in world.problems())


def test_requests_that_are_gone_are_taken_from_the_event(world: World) -> None:
    assert world.problems(requests={}) == []
    altered = world.altered(9, lambda event: event["request"].update(debt_ratio=0.0))
    ((offset, detail),) = world.problems([altered], requests={})
    assert offset == 9
    assert "score" in detail
    moved = world.altered(4, lambda event: event["source"].update(offset=999))
    ((_, detail),) = world.problems([moved])
    assert "prediction_id" in detail


def test_the_sample_is_bounded_and_the_same_for_the_same_log(world: World) -> None:
    def take(messages: Sequence[Message]) -> list[RecordRef]:
        sample = Sample(5)
        for message in messages:
            sample.offer(message)
        return [RecordRef.of(message) for message in sample.messages()]

    assert take(world.predictions) == take(world.predictions[::-1])
    sources = [RecordRef.of(message) for message in world.predictions]
    lowest = sorted(sources, key=lambda source: zlib.crc32(str(source).encode()))[:5]
    assert take(world.predictions) == sorted(lowest)
    assert take([]) == []


def test_answers_of_canaries_and_explored_actions_come_to_the_same() -> None:
    world = World(CONTRACT + "explore: {share: 50%, from: refuse, do: approve}\n")
    for share in (0.3, 0.5, 0.9):
        world.canary(share)
    events = [world.publisher.codec.decode(m.value()).record for m in world.predictions]
    assert {e["role"] for e in events[REQUESTS:]} == {"champion", "canary"}
    assert {e["action"] for e in events if e["rule"] == "refuse-5"} == {"refuse", "approve"}
    assert world.problems() == []


@pytest.mark.parametrize(
    ("field", "value"), [("arm_propensity", 0.5), ("role", "champion"), ("action_propensity", 0.1)]
)
def test_altered_routing_shows(field: str, value: Any) -> None:
    world = World()
    world.canary(1.0)
    offset = REQUESTS + 1
    ((_, detail),) = world.problems([world.altered(offset, lambda event: event.update({field: value}))])
    assert field in detail


def test_answers_of_fallbacks_come_to_the_same_and_altered_ones_show() -> None:
    chain = '[{previous: true}, {rule: "CASE WHEN debt_ratio > 3 THEN 0.9 END"}, {do: person}]'
    world = World(CONTRACT + f"guardrails: {{score: {{max: 0.65}}, fallback: {chain}}}\n")
    events = [world.publisher.codec.decode(m.value()).record for m in world.predictions]
    served = [e["served_by"] for e in events]
    assert {"model", "rule", "person"} <= set(served)
    assert world.problems() == []
    ((_, detail),) = world.problems(
        [world.altered(served.index("rule"), lambda event: event.update(score=0.8))]
    )
    assert "score: 0.8 / 0.9" in detail


@pytest.mark.parametrize("cause", ["latency", "quarantined"])
def test_what_was_answered_for_the_moment_s_sake_comes_to_the_same_for_the_same_cause(cause: str) -> None:
    world = World(CONTRACT + 'guardrails: {fallback: [{rule: "debt_ratio / 10"}]}\n')
    world.control(world.publisher.rollout(champion=2, previous=1))
    world.bench.logic.as_logged(cause)
    world.score()
    last = world.publisher.codec.decode(world.predictions[-1].value()).record
    assert (last["served_by"], last["served_cause"]) == ("rule", cause)
    assert world.problems() == []
    ((_, detail),) = world.problems(
        [world.altered(len(world.predictions) - 1, lambda event: event.update(score=0.5))]
    )
    assert "score" in detail


def test_a_fallback_that_could_not_ask_the_previous_version_comes_to_the_same() -> None:
    chain = '[{previous: true}, {rule: "0.25"}]'
    world = World(CONTRACT + f"guardrails: {{score: {{max: 0.99}}, fallback: {chain}}}\n")
    world.control(world.publisher.rollout(champion=2, previous=1))
    known = world.publisher.models["credit", 1]
    for opened, by in ((Unavailable("not yet"), "rule"), (known, "previous")):
        world.publisher.models["credit", 1] = opened
        world.bench.logic = restarted = world.publisher.logic()
        restarted.control(world.log)
        world.score()
        served = [world.publisher.codec.decode(m.value()).record["served_by"] for m in world.predictions]
        assert by in served[-4:]
    assert world.problems() == []
    offset = served.index("rule")
    ((_, detail),) = world.problems([world.altered(offset, lambda event: event.update(score=0.26))])
    assert "score: 0.26" in detail


def test_answers_of_arms_come_to_the_same_and_altered_ones_show() -> None:
    world = World()
    arms = [{"arm": f"arm-{v}", "version": v, "probability": p} for v, p in ((2, 0.5), (1, 0.5))]
    world.control(
        world.publisher.rollout(
            champion=2, experiment={"assign": "fixed", "share": 1.0, "salt": "s", "arms": arms}
        )
    )
    for _ in range(3):
        world.score()
    events = [world.publisher.codec.decode(m.value()).record for m in world.predictions]
    assert {(e["role"], e["arm"], e["version"]) for e in events[REQUESTS:]} == {
        ("arm", "arm-1", 1),
        ("arm", "arm-2", 2),
    }
    assert world.problems() == []
    for change in ({"arm": "arm-3"}, {"arm_propensity": 1.0}):
        ((_, detail),) = world.problems([world.altered(REQUESTS, lambda event, c=change: event.update(c))])
        assert next(iter(change)) in detail
