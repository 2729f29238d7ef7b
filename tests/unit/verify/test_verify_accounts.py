"""What verify makes of a whole lane, on a log in memory; with a broker it is in the integration tests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.scoring import NOW, REQUEST, Bench, Publisher

from tailrace.connection import Connection
from tailrace.models.manifest import Manifest
from tailrace.streaming import dead_letters
from tailrace.streaming.records import DeadLetter, Message, PlainMessage, Record, TopicPartition
from tailrace.testing.formula_model import formula_model
from tailrace.verify import verify as module
from tailrace.verify.log import OffsetRange
from tailrace.verify.report import VerifyReport
from tailrace.verify.verify import Verification

REQUESTS, PREDICTIONS, SHADOWS = "credit.requests", "credit.predictions", "credit.shadow-predictions"
COUNT = 20


class Kept:
    """A log of which retention has deleted what is before ``lows``."""

    def __init__(self) -> None:
        self.messages: dict[TopicPartition, list[Message]] = {}
        self.lows: dict[TopicPartition, int] = {}
        self.done: dict[TopicPartition, int | None] = {}

    def append(self, record: Record, at_ms: int = NOW) -> PlainMessage:
        place = TopicPartition(record.topic, record.partition or 0)
        messages = self.messages.setdefault(place, [])
        message = PlainMessage(*place, len(messages), record.value, record.key, record.headers, at_ms)
        messages.append(message)
        return message

    def retained(self, topics: Collection[str]) -> dict[TopicPartition, OffsetRange]:
        return {
            p: OffsetRange(self.lows.get(p, 0), len(m)) for p, m in self.messages.items() if p.topic in topics
        }

    def read(self, ranges: Mapping[TopicPartition, OffsetRange]) -> Iterator[Message]:
        for place, (low, end) in ranges.items():
            yield from self.messages[place][low:end]

    def committed(self, _: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
        return {place: self.done.get(place, len(self.messages[place])) for place in partitions}

    def offsets_at(
        self, time_ms: int, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int | None]:
        return {
            place: next((m.offset() for m in self.messages[place] if m.timestamp()[1] >= time_ms), None)
            for place in partitions
        }

    def compacted(self, _: str) -> bool:
        return False

    def close(self) -> None: ...


class Lane:
    """Requests, each answered a millisecond later by version 1, and scored in shadow by version 2."""

    def __init__(self) -> None:
        self.publisher = Publisher()
        self.log = Kept()
        contract = self.publisher.contract()
        models = {v: formula_model(self.publisher.contracts["credit"][-1], v) for v in (1, 2)}
        manifests = [self.publisher.manifest(version, model) for version, model in models.items()]
        self.manifests = {model.digest: model.manifest for model in models.values()}
        control = [contract, *manifests, self.publisher.rollout(champion=1, shadow=[2])]
        for record in control:
            self.log.append(record)
        requests = [
            self.log.append(
                Record(REQUESTS, self.publisher.request_value(REQUEST | {"loan_id": f"l{n}"})), NOW + 10 * n
            )
            for n in range(COUNT)
        ]
        for role in ("champion", "shadow"):
            bench = Bench(self.publisher.logic(role), self.publisher)  # type: ignore[arg-type]
            bench.control(*control)
            for request in requests:
                for record in bench.process([request]).records:
                    if record.value is not None:
                        self.log.append(record, request.timestamp()[1] + 1)

    def verified(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> VerifyReport:
        def manifest(record: Mapping[str, Any]) -> Manifest:
            return self.manifests[record["digest"]]

        with monkeypatch.context() as patch:
            patch.setattr(module, "Log", lambda _: self.log)
            patch.setattr(module, "RegistryClient", lambda *_: self.publisher.registry)
            patch.setattr(module, "known_to", lambda _: manifest)
            patch.setattr(module.ControlRecords, "of_home", lambda *_: self.publisher.control.by("owner"))
            return Verification(Connection({"bootstrap.servers": "nowhere:1"}, "", home=home)).run()


def offences(report: VerifyReport) -> set[tuple[str, int]]:
    return {(problem.check, problem.offset) for problem in report.problems}


def place(topic: str) -> TopicPartition:
    return TopicPartition(topic, 0)


def test_a_lane_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = Lane().verified(monkeypatch, tmp_path)
    assert report.problems == []
    totals = report.topics[REQUESTS]
    assert (totals.requests, totals.predictions, totals.lost) == (COUNT, COUNT, 0)
    assert report.topics[SHADOWS].events == COUNT


@pytest.mark.parametrize("topic", [REQUESTS, PREDICTIONS, SHADOWS])
def test_what_retention_deleted_on_one_side_is_not_missed_on_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, topic: str
) -> None:
    lane = Lane()
    lane.log.lows[place(topic)] = 7
    report = lane.verified(monkeypatch, tmp_path)
    assert report.problems == []
    # Whether shadows are kept is nothing to the account of the answers.
    left = {REQUESTS: COUNT - 7, PREDICTIONS: COUNT - 8, SHADOWS: COUNT}[topic]
    assert report.topics[REQUESTS].requests == left


def test_where_retention_deleted_more_of_one_topic_than_of_another_the_later_one_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lane = Lane()
    letters = "credit.dead-letters"
    request = lane.log.messages[place(REQUESTS)][0]
    for _ in range(2):  # of another service: they are no answers
        letter = DeadLetter(letters, request, "no-request", "nobody asked")
        lane.log.append(dead_letters.to_record(letter, "joiner"), NOW + 1)
    lane.log.lows |= {place(letters): 1, place(PREDICTIONS): 7}
    report = lane.verified(monkeypatch, tmp_path)
    assert report.problems == []
    assert report.topics[REQUESTS].requests == COUNT - 8


def test_a_request_is_missed_though_shadow_predictions_are_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lane = Lane()
    answers = lane.log.messages[place(PREDICTIONS)]
    answers[2] = PlainMessage(PREDICTIONS, 0, 2, None, b"l2", (("tailrace-mark", b"1"),), NOW)
    lane.log.lows[place(SHADOWS)] = 15
    assert ("lost", 2) in offences(lane.verified(monkeypatch, tmp_path))


def test_shadow_predictions_are_accounted_for_from_the_first_request_that_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lane = Lane()
    shadows = lane.log.messages[place(SHADOWS)]
    again = [PlainMessage(SHADOWS, 0, COUNT + n, shadows[n].value(), shadows[n].key()) for n in (3, 12)]
    shadows.extend(again)
    assert offences(lane.verified(monkeypatch, tmp_path)) == {
        ("shadow-duplicated", 3),
        ("shadow-duplicated", 12),
    }
    lane.log.lows[place(REQUESTS)] = 7
    assert offences(lane.verified(monkeypatch, tmp_path)) == {("shadow-duplicated", 12)}


def test_what_nobody_claims_to_be_done_with_is_in_flight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lane = Lane()
    lane.log.append(Record(REQUESTS, lane.publisher.request_value(REQUEST)), NOW + 1_000)
    lane.log.done[place(REQUESTS)] = COUNT
    report = lane.verified(monkeypatch, tmp_path)
    assert (report.problems, report.topics[REQUESTS].in_flight) == ([], 1)
    lane.log.done[place(REQUESTS)] = COUNT + 1
    assert offences(lane.verified(monkeypatch, tmp_path)) == {("lost", COUNT)}


def test_answers_without_a_request_and_shadows_of_versions_that_are_none_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lane = Lane()
    for topic in (PREDICTIONS, SHADOWS):
        answer = lane.log.messages[place(topic)][3]
        schema_id, event = lane.publisher.codec.decode(answer.value())
        event["source"]["offset"] = 100
        lane.log.append(Record(topic, lane.publisher.codec.encode(schema_id, event), answer.key()))
    checks = offences(lane.verified(monkeypatch, tmp_path))
    assert {("unasked", 100), ("shadow-unasked", 100)} < checks
    assert {check for check, _ in checks} == {"unasked", "shadow-unasked", "misnamed"}
