"""The accounts of a lane's outcomes: nothing on a lane in order, and each kind of trouble by its name."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import pytest
from tests.support.contracts import CREDIT, contract

from tailrace.avro.codec import Codec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Message, PlainMessage, RecordRef
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.verify.outcomes import LaneOutcomes
from tailrace.verify.stored_times import LoggedTimes

LANE = Lane("credit")
CONTRACT = contract()
LATER = contract(CREDIT.replace("  age:", "  tenure: {type: number}\n  age:"))


class World:
    """A lane in memory: whatever is written is taken into the accounts when they are settled."""

    def __init__(self) -> None:
        self.registry = registry = MemoryRegistry()
        self.codec = Codec(registry)
        self.ids = {
            (each.digest, topic): registry.register(f"{each.digest}-{topic}", schema)
            for each in (CONTRACT, LATER)
            for topic, schema in lane_schemas(each).items()
        }
        self.log: dict[RecordRef, Message] = {}
        self._ends: dict[tuple[str, int], int] = defaultdict(int)

    def write(self, topic: str, value: bytes, partition: int = 0) -> RecordRef:
        at = RecordRef(topic, partition, self._ends[topic, partition])
        self._ends[topic, partition] += 1
        self.log[at] = PlainMessage(topic, partition, at.offset, value, b"k", [], 1)
        return at

    def record(self, topic: str, record: dict[str, Any], partition: int = 0, by: Any = CONTRACT) -> RecordRef:
        return self.write(topic, self.codec.encode(self.ids[by.digest, topic], record), partition)

    def label(self, defaulted: bool | None, request: str = "r-1", partition: int = 0) -> RecordRef:
        return self.record(
            LANE.labels, {"request_id": request, "loan_id": "L", "defaulted": defaulted}, partition
        )

    def action(self, action: str, request: str = "r-1") -> RecordRef:
        return self.record(LANE.actions, {"request_id": request, "loan_id": "L", "action": action})

    def prediction(self, request: str = "r-1", offset: int = 0, shadow: bool = False) -> dict[str, Any]:
        """One that is in the log."""
        event = prediction(request, offset, shadow)
        self.record(LANE.shadow_predictions if shadow else LANE.predictions, event)
        return event

    def outcome(self, predicted: dict[str, Any], by: Any = CONTRACT, **changed: Any) -> dict[str, Any]:
        event = outcome(predicted, **changed)
        self.record(LANE.outcomes, event, by=by)
        return event

    def checks(self, lows: dict[Partition, int] | None = None) -> list[tuple[str, int]]:
        """What is wrong, with the offset of the outcome."""
        outcomes = LaneOutcomes(LANE, [CONTRACT, LATER], self.codec, self._at, LoggedTimes())
        problems = []
        for topic in (LANE.outcomes, LANE.predictions, LANE.shadow_predictions, LANE.labels, LANE.actions):
            for at, message in self.log.items():
                if at.topic != topic:
                    continue
                if topic == LANE.outcomes:
                    problems += outcomes.outcome(message)
                elif topic in (LANE.predictions, LANE.shadow_predictions):
                    header = self.codec.decode(message.value()).record
                    outcomes.prediction(message, header)
                else:
                    outcomes.truth(message)
        problems += outcomes.problems(lows or {})
        assert all(problem.topic == LANE.outcomes for problem in problems)
        return sorted((problem.check, problem.offset) for problem in problems)

    def _at(self, places: Collection[RecordRef]) -> dict[RecordRef, Message]:
        return {place: self.log[place] for place in places if place in self.log}


def prediction(request: str, offset: int, shadow: bool = False) -> dict[str, Any]:
    source = RecordRef(LANE.requests, 0, offset)
    role = "shadow" if shadow else "champion"
    return {
        "prediction_id": prediction_id(role, source, 2), "request_id": request, "key": "L", "event_time": 5,
        "source": source._asdict(), "model": "credit", "version": 2, "artifact_digest": "a",
        "contract_digest": CONTRACT.digest, "rollout_revision": 1, "runtime": {}, "role": role,
        "served_by": "model", "request": {"request_id": request, "income": 1.5}, "replaced": [],
        "score": 0.25, "probabilities": {}, "action": "approve", "action_propensity": 1.0,
        "arm_propensity": 1.0, "guardrails": [], "guarded": False, "latency_ms": 1.0,
    }  # fmt: skip


def outcome(predicted: dict[str, Any], **changed: Any) -> dict[str, Any]:
    label, action = changed.pop("label_source", None), changed.pop("action_source", None)
    return {
        "outcome_id": f"{predicted['prediction_id']}|{changed.get('revision', 1)}",
        "revision": 1, "replaces": None, "state": "labelled", "duplicate_of": None, "known_at": 9,
        "late": False, "label": True, "label_time": 8, "label_source": label and label._asdict(),
        "labelled_by": None, "action_taken": None, "action_source": action and action._asdict(),
        "before": None, "champion": None, "prediction": predicted,
    } | changed  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


def test_a_lane_in_order(world: World) -> None:
    one, two, three = (world.prediction(f"r-{n}", n) for n in (1, 2, 3))
    shadow = world.prediction("r-1", 1, shadow=True)
    label = world.label(True)
    first = world.outcome(one, label_source=label)
    corrected = world.label(False)
    action = world.action("approve")
    second = world.outcome(
        one, revision=2, replaces=first["outcome_id"], label=False, label_source=corrected,
        action_taken="approve", action_source=action,
        before={"state": "labelled", "label": True, "action_taken": None},
    )  # fmt: skip
    world.outcome(
        one, revision=3, replaces=second["outcome_id"], label_source=world.label(True),
        action_taken="approve", action_source=action,
        before={"state": "labelled", "label": False, "action_taken": "approve"},
    )  # fmt: skip
    champion = {
        "prediction_id": one["prediction_id"], "version": 2, "score": 0.25, "probabilities": {},
        "predicted_class": None, "value": None, "action": "approve",
    }  # fmt: skip
    world.outcome(shadow, label_source=label, champion=champion)
    world.outcome(two, state="unlabelled", label=None, label_time=None)
    by_json = world.write(LANE.labels, b'{"request_id": "r-3", "loan_id": "L", "defaulted": true}')
    world.outcome(three, label_source=by_json)
    assert world.checks() == []


def test_there_is_one_of_each_id(world: World) -> None:
    predicted, label = world.prediction(), world.label(True)
    world.outcome(predicted, label_source=label)
    world.outcome(predicted, label_source=label)
    assert world.checks() == [("outcome-chain", 1)] * 3 + [("outcome-twice", 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"revision": 3},
        {"replaces": "o-another"},
        {"before": {"state": "labelled", "label": False, "action_taken": None}},
    ],
)
def test_a_revision_follows_the_one_before(world: World, wrong: dict[str, Any]) -> None:
    predicted = world.prediction()
    first = world.outcome(predicted, label_source=world.label(True))
    right = {
        "revision": 2,
        "replaces": first["outcome_id"],
        "before": {"state": "labelled", "label": True, "action_taken": None},
    }
    world.outcome(predicted, label=False, label_source=world.label(False), **right | wrong)
    assert world.checks() == [("outcome-chain", 1)]


def test_the_first_revision_replaces_nothing_unless_retention_took_it(world: World) -> None:
    predicted = world.prediction()
    before = {"state": "labelled", "label": False, "action_taken": None}
    world.outcome(predicted, label_source=world.label(True), revision=2, replaces="o-1", before=before)
    assert world.checks() == [("outcome-chain", 0)]
    assert world.checks({Partition(LANE.outcomes, 0): 1}) == []


def test_a_prediction_that_is_not_there(world: World) -> None:
    world.prediction("r-2", 7)
    world.outcome(prediction("r-1", 0), label_source=world.label(True))
    assert world.checks() == [("outcome-without-prediction", 0)]
    assert world.checks({Partition(LANE.predictions, 1): 5}) == [("outcome-without-prediction", 0)]
    assert world.checks({Partition(LANE.predictions, 0): 5}) == []


def test_a_prediction_that_is_there_otherwise(world: World) -> None:
    predicted = world.prediction()
    world.outcome(predicted | {"score": 0.5}, label_source=world.label(True))
    assert world.checks() == [("outcome-differs", 0)]


def test_a_prediction_of_another_revision_of_the_contract_is_compared_by_its_fields(world: World) -> None:
    predicted = world.prediction()
    predicted["request"]["tenure"] = None
    world.outcome(predicted, by=LATER, label_source=world.label(True))
    assert world.checks() == []
    other = world.prediction("r-2", 1)
    other["request"]["tenure"] = 2.0
    world.outcome(other, by=LATER, label_source=world.label(True, "r-2"))
    assert world.checks() == [("outcome-differs", 1)]


def test_labels_and_actions_are_there_and_say_so(world: World) -> None:
    label, action = world.label(True), world.action("refer")
    nowhere = RecordRef(LANE.labels, 0, 40)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("outcome-without-label", {"label_source": None}),
        ("outcome-without-label", {"label_source": nowhere}),
        ("outcome-mislabel", {"label_source": label, "label": False}),
        ("outcome-mislabel", {"label_source": world.label(True, "r-77")}),
        ("outcome-misaction", {"label_source": label, "action_source": action, "action_taken": "approve"}),
        (
            "outcome-without-action",
            {
                "label_source": label,
                "action_source": nowhere._replace(topic=LANE.actions),
                "action_taken": "x",
            },
        ),
    ]
    for number, (_, changed) in enumerate(cases):
        world.outcome(world.prediction("r-1", number), **changed)
    assert world.checks() == sorted((check, number) for number, (check, _) in enumerate(cases))
    kept = world.checks({Partition(LANE.labels, 0): 41})
    assert ("outcome-without-label", 1) not in kept
    assert len(kept) == len(cases) - 1


def test_what_an_outcome_names_is_what_it_says_it_is(world: World) -> None:
    label = world.label(True)
    champion = {
        "prediction_id": prediction_id("champion", RecordRef(LANE.requests, 0, 9), 1), "version": 1, "score": None,
        "probabilities": {}, "predicted_class": None, "value": None, "action": "approve",
    }  # fmt: skip
    world.outcome(world.prediction("r-1", 1, shadow=True), label_source=label, champion=champion)
    world.outcome(world.prediction("r-1", 2), label_source=label._replace(topic=LANE.actions))
    world.write(LANE.outcomes, b"\0\0")
    assert world.checks() == [("outcome-misnamed", 0), ("outcome-misnamed", 1), ("unreadable", 2)]


@pytest.mark.parametrize("place", [(40_000, 0), (-1, 0), (0, 2**48), (0, -5), (20_000, 2**63 - 1)])
def test_an_outcome_that_names_a_place_where_no_record_can_be(world: World, place: tuple[int, int]) -> None:
    world.outcome(world.prediction(), label_source=RecordRef(LANE.labels, *place))
    assert world.checks() == [("unreadable", 0)]


def test_an_outcome_is_of_either_prediction_where_an_id_is_there_twice(world: World) -> None:
    world.record(LANE.predictions, prediction("r-1", 0, False) | {"score": 0.123})
    predicted = world.prediction()
    world.outcome(predicted, label_source=world.label(True))
    assert world.checks() == []


def test_an_outcome_whose_times_are_none_is_unreadable(world: World) -> None:
    predicted = world.prediction()
    label = world.label(True)
    foreign: Any = copy.deepcopy(lane_schemas(CONTRACT)[LANE.outcomes])
    known_at = next(field for field in foreign["fields"] if field["name"] == "known_at")
    known_at["type"] = "string"
    event = outcome(predicted, label_source=label) | {"known_at": "yesterday"}
    world.write(LANE.outcomes, world.codec.encode(world.registry.register("foreign", foreign), event))
    assert world.checks() == [("unreadable", 0)]
