"""Scorers under seeded schedules in which versions kill their processes: each request is answered, or a dead letter,
once; a version that always kills answers nothing, the one before it does; and nothing stops for good.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from tests.simulation.test_scorer_simulation import TEXT, Slow
from tests.support.scoring import Publisher
from tests.support.simulation import Crash, Scenario, drained, simulate

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records import lanes
from tailrace.contracts.records.schemas import prediction_schema
from tailrace.errors import Unavailable
from tailrace.models.columns import Array, Columns
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer.processor import ScoringProcessor
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Record, RecordRef
from tailrace.streaming.watermark_records import watermark_time
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry

WITH_CHAIN = load_contract(TEXT.format(policy="[]"))
WITHOUT = load_contract(TEXT.format(policy="[]").partition("guardrails")[0])
REGISTRY = MemoryRegistry()
READER = prediction_schema(WITHOUT)
ALWAYS, SOMETIMES, KILLER = 5, 6, 4.5
"""A version that kills whenever it is asked, one that does so on some rows, and what these rows have."""

ALERTED: Counter[int] = Counter()
"""How often each version was quarantined, over all schedules."""


class Deadly:
    def __init__(self, version: int) -> None:
        self.version = version

    def run(self, columns: Columns, rows: int) -> Array:
        if self.version == ALWAYS or (self.version == SOMETIMES and (columns["x"] == KILLER).any()):
            raise Crash(f"version {self.version}")
        return (0.5 + columns["x"] * self.version / 100).reshape(rows, 1)


MODELS = {v: formula_model(WITHOUT, v, Deadly(v)) for v in range(1, 7)}


class DeadlyScenario(Scenario):
    group = "scorer"

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.publisher = Publisher(REGISTRY)
        self.contract = rng.choice([WITH_CHAIN, WITHOUT])
        self.states: list[dict[str, Any]] = []
        self.requests: dict[RecordRef, float] = {}
        for topic in (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS, lanes.CLOCKS, lanes.ALERTS):
            log.create_topic(topic)
        for suffix in ("requests", "predictions", "dead-letters"):
            log.create_topic(f"credit.{suffix}", self.partitions)
        self._append(log, self.publisher.contract(self.contract))
        for version, model in MODELS.items():
            self._append(log, self.publisher.manifest(version, model))
        self._roll_out(log, champion=1, previous=2)

    def _append(self, log: MemoryLog, record: Record) -> None:
        log.append(*record)

    def _roll_out(self, log: MemoryLog, **state: Any) -> None:
        self.states.append(state)
        self._append(log, self.publisher.rollout(**state))

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if rng.random() < 0.3:
            champion, previous, canary = rng.sample(range(1, 7), 3)
            state: dict[str, Any] = {"champion": champion, "previous": rng.choice([1, 2, previous])}
            if rng.random() < 0.4:
                state |= {"canary": {"version": canary, "share": 0.5, "salt": "s", "step": 1}}
            if state["previous"] == champion or (state["previous"] == canary and "canary" in state):
                del state["previous"]
            self._roll_out(log, **state)
        for _ in range(rng.randint(1, 8)):
            x = KILLER if rng.random() < 0.05 else rng.randint(-40, 40) / 10
            key = b"k%d" % rng.randrange(99)
            value = self.publisher.request_value({"request_id": key.decode(), "x": x}, self.contract)
            self.requests[log.append("credit.requests", value, key)] = x

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        self._roll_out(log, champion=rng.choice([1, ALWAYS, SOMETIMES]), previous=2)

    def logic(self) -> Processor:
        def opened(record: Any, contract: Any) -> LoadedModel:
            if self.rng.random() < 0.1:
                raise Unavailable("away")
            return MODELS[record["version"]]

        return ScoringProcessor("champion", self.publisher.control.by("scorer"), opened, Slow(self.rng))

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, ["credit.requests"])

    def check(self, log: MemoryLog) -> None:
        letters = [dead_letters.parse(message) for message in log.messages("credit.dead-letters")]
        messages = [m for m in log.messages("credit.predictions") if watermark_time(m) is None]
        events = [self.publisher.codec.decode(m.value(), READER).record for m in messages]
        sources = [RecordRef(**event["source"]) for event in events]
        assert Counter([*sources, *(letter.source for letter in letters)]) == Counter(self.requests.keys())
        assert {letter.code for letter in letters} <= {"quarantined"}
        for source, event in zip(sources, events, strict=True):
            x, state = self.requests[source], self.states[event["rollout_revision"] - 1]
            answers = state["champion"] if event["role"] == "champion" else state["canary"]["version"]
            assert event["version"] == answers
            self._check_who(x, event, state)
        alerts = [self.publisher.control.decode("Alert", m.value()) for m in log.messages(lanes.ALERTS)]
        ALERTED.update(alert["version"] for alert in alerts if alert["kind"] == "version-quarantined")

    def _check_who(self, x: float, event: dict[str, Any], state: dict[str, Any]) -> None:
        version = event["version"]
        if event["served_by"] == "model":
            assert version != ALWAYS
            assert (version, x) != (SOMETIMES, KILLER)
            assert event["score"] == 0.5 + x * version / 100
            return
        assert event["served_cause"] == "quarantined"
        if self.contract is WITH_CHAIN:
            assert event["served_by"] == ("rule" if x > 0 else "person")
            return
        stands_in = state["previous"] if event["role"] == "champion" else state["champion"]
        assert event["served_by"] == "previous"
        assert event["guardrails"][-1]["detail"].startswith(f"version {stands_in},")
        assert event["score"] == 0.5 + x * stands_in / 100


def test_versions_that_kill_are_found_out_and_no_request_is_lost() -> None:
    simulate(DeadlyScenario, 60, long=1_000)
    if len(ALERTED) > 1:  # all schedules, not one by its seed
        assert min(ALERTED[ALWAYS], ALERTED[SOMETIMES]) > 5
        # Processes die of other things too, and now and then twice in a row.
        assert sum(count for version, count in ALERTED.items() if version not in (ALWAYS, SOMETIMES)) <= 2
