"""Whom the fallback answers so that the latency level is kept: by hand-made ages, and by a clock that a model moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.support.scoring import CONTRACT, NOW, REQUEST, Bench, Publisher

from tailrace.contracts.state.lane_clocks import LaneClock, record_of
from tailrace.models.columns import Array, Columns
from tailrace.scorer.serving.load_shedding import LatencyEstimates, too_many
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record
from tailrace.testing.formula_model import Formula, formula_model

LEVEL = "service_levels: {latency_p99: 200ms}\n"
CHAIN = "guardrails: {fallback: [{previous: true}, {constant: 0.4}]}\n"


def ages(*groups: tuple[int, float]) -> Array:
    return np.concatenate([np.full(count, age) for count, age in groups])


def test_where_all_is_in_time_the_model_takes_all() -> None:
    assert len(too_many(ages((640, 0.0)), 200.0, 20.0, 0.0)) == 0  # 10 blocks of 20 ms
    assert len(too_many(ages((640, 1.0)), 200.0, 20.0, 0.0)) > 0


def test_the_model_takes_as_many_as_can_be_answered_in_time() -> None:
    by_fallback = too_many(ages((6_400, 20.0)), 200.0, 20.0, 60.0)
    assert by_fallback.tolist() == list(range(6 * 64, 6_400))  # 200 - 60 - 20 ms are six blocks


def test_who_is_too_late_already_is_left_to_the_model() -> None:
    assert len(too_many(ages((6_400, 3_600_000.0)), 200.0, 20.0, 0.0)) == 0
    # The blocks of those that are late are in the way of the others.
    by_fallback = too_many(ages((128, 5_000.0), (6_400, 0.0)), 200.0, 20.0, 0.0)
    assert by_fallback.tolist() == list(range(128 + 8 * 64, 128 + 6_400))
    assert len(too_many(ages((6_400, 5_000.0), (100, 0.0)), 200.0, 20.0, 0.0)) == 0


def test_more_is_not_given_up_than_is_saved() -> None:
    # Ten requests have 5 ms left, and nine blocks would have to go without the model for them.
    assert len(too_many(ages((10, 175.0), (630, 0.0)), 200.0, 2.0, 20.0)) == 0


def test_where_nobody_would_be_in_time_the_model_is_left_what_it_has() -> None:
    # A block takes longer than anybody has; to ask nobody but the fallback would leave the version unmeasured.
    assert len(too_many(ages((640, 190.0)), 200.0, 20.0, 0.0)) == 0
    by_fallback = too_many(ages((640, 175.0)), 200.0, 20.0, 0.0)
    assert by_fallback.tolist() == list(range(64, 640))


def test_a_single_pause_says_nothing() -> None:
    pace = LatencyEstimates()
    for took in (10.0, 10.0, 900.0, 10.0, 10.0):
        pace.learn(took + 5.0, {("credit", 1): (took, 640)})
    assert (pace.block_ms("credit", 1), pace.besides_ms) == (1.0, 5.0)
    assert pace.block_ms("credit", 2) is None


def test_versions_that_are_gone_are_forgotten() -> None:
    pace = LatencyEstimates()
    pace.learn(30.0, {("credit", 1): (10.0, 640), ("credit", 2): (20.0, 640)})
    pace.keep({("credit", 2), ("other", 1)})
    assert (pace.block_ms("credit", 1), pace.block_ms("credit", 2)) == (None, 2.0)


class Slow(Formula):
    """Takes 20 ms for a block, by the clock of the test."""

    def __init__(self, version: int, log: MemoryLog) -> None:
        super().__init__(version)
        self.log = log

    def run(self, columns: Columns, rows: int) -> Array:
        self.log.now_ms += 20 * rows // 64
        return super().run(columns, rows)


class Hurried(Bench):
    """A scorer on a clock that only the model moves."""

    def __init__(self, sections: str, role: Any = "champion") -> None:
        publisher = Publisher()
        self.log = MemoryLog(start_ms=NOW)
        super().__init__(publisher.logic(role), publisher)
        self._clock = MemoryClock(self.log)
        contract = publisher.contract(CONTRACT + sections)
        model = publisher.contracts["credit"][-1]
        self.control(
            contract,
            publisher.manifest(1, formula_model(model, 1)),
            publisher.manifest(2, formula_model(model, 2, Slow(2, self.log))),
            publisher.rollout(champion=2, previous=1, shadow=[2] if role == "shadow" else []),
        )

    def wave(self, count: int, age_ms: int = 0) -> list[tuple[str, str | None]]:
        """Who answers so many requests that have waited so long, and why."""
        at = self.log.now_ms - age_ms
        values = [self.publisher.request_value(REQUEST | {"loan_id": f"l{n}"}) for n in range(count)]
        output = self.process([self.message(Record("credit.requests", value), at) for value in values])
        topic = output.records[0].topic
        return [(e["served_by"], e["served_cause"]) for e in self.events(output, topic)]


def test_more_than_the_model_can_answer_in_time_is_left_to_the_fallback_and_no_more_than_that() -> None:
    bench = Hurried(CHAIN + LEVEL)
    assert set(bench.wave(64)) == {("model", None)}  # the version is measured
    answers = bench.wave(1_280)
    # Not the previous version: another model would take as long.
    assert answers == [("model", None)] * 640 + [("constant", "latency")] * 640
    assert set(bench.wave(640)) == {("model", None)}


def with_a_canary() -> Hurried:
    """The champion and a canary that answers half of the requests, both measured."""
    bench = Hurried(CHAIN + LEVEL)
    slow = formula_model(bench.publisher.contracts["credit"][-1], 3, Slow(3, bench.log))
    canary = {"canary": {"version": 3, "share": 0.5, "salt": "pepper", "step": 1}}
    bench.control(
        bench.publisher.manifest(3, slow), bench.publisher.rollout(champion=2, previous=1, **canary)
    )
    bench.wave(256, age_ms=60_000)  # both are measured
    return bench


def test_what_a_canary_takes_is_in_the_champions_way() -> None:
    bench = with_a_canary()
    began = bench.log.now_ms
    assert ("constant", "latency") in bench.wave(960)  # of 20 ms for each 64, by one after the other
    assert bench.log.now_ms - began <= 200


def test_of_two_versions_each_takes_what_the_other_leaves_time_for_and_no_less() -> None:
    """Each of them is given what is left once the other has taken all that goes to it, whichever comes first."""
    bench = with_a_canary()
    at = bench.log.now_ms
    values = [bench.publisher.request_value(REQUEST | {"loan_id": f"l{n}"}) for n in range(600)]
    output = bench.process([bench.message(Record("credit.requests", value), at) for value in values])
    events = bench.events(output, output.records[0].topic)
    asked = Counter(e["role"] for e in events)
    by_model = Counter(e["role"] for e in events if e["served_by"] == "model")
    for role, other in (("champion", "canary"), ("canary", "champion")):
        blocks = (200 - 20 * -(-asked[other] // 64)) // 20
        assert (by_model[role], asked[role] > by_model[role]) == (64 * blocks, True)
        assert blocks > 2


def test_a_backlog_after_an_outage_is_worked_off_by_the_model() -> None:
    bench = Hurried(CHAIN + LEVEL)
    bench.wave(64)
    for _ in range(5):
        assert set(bench.wave(1_280, age_ms=60_000)) == {("model", None)}
    assert ("constant", "latency") in bench.wave(1_280)


@pytest.mark.parametrize("sections", [LEVEL, CHAIN, ""])
def test_without_a_level_or_a_chain_the_model_takes_its_time(sections: str) -> None:
    bench = Hurried(sections)
    for _ in range(3):
        assert set(bench.wave(1_280)) == {("model", None)}


def test_a_replay_and_a_shadow_are_in_no_hurry() -> None:
    bench = Hurried(CHAIN + LEVEL)
    record = record_of("credit", LaneClock("replay", "test", NOW))
    bench.control(bench.publisher.control.record("Clock", record, b"credit"))
    shadow = Hurried(CHAIN + LEVEL, role="shadow")
    for _ in range(3):
        assert set(bench.wave(1_280)) == {("model", None)}
        assert set(shadow.wave(1_280)) == {("model", None)}


def test_who_scores_again_has_the_fallback_answer_where_it_did() -> None:
    bench = Hurried(CHAIN + LEVEL)
    bench.logic.as_logged("latency")  # type: ignore[attr-defined]
    assert bench.wave(1) == [("constant", "latency")]
    bench.logic.as_logged("quarantined")  # type: ignore[attr-defined]
    assert bench.wave(1) == [("previous", "quarantined")]
    bench.logic.as_logged(None)  # type: ignore[attr-defined]
    assert set(bench.wave(1_280)) == {("model", None)}
