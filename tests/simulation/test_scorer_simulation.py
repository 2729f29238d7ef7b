"""Scorer and shadow scorer under seeded schedules: every request answered once, by the right version, never
by an older revision than the one before it.

What is expected is computed here from what was fed, request by request, without the scorer's code.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from tests.support.scoring import Publisher
from tests.support.simulation import Scenario, drained, simulate

from tailrace.avro.codec import Codec
from tailrace.avro.columns.hashing import key_positions
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.schemas import prediction_schema
from tailrace.errors import Unavailable
from tailrace.models.columns import Array, Columns
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer.processor import ScoringProcessor
from tailrace.scorer.versions import Role
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.processor import Clock, Output, Processor
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry

TEXT = """
model: credit
owner: {{team: t}}
features:
  x: {{type: number, min: -5, max: 5}}
target: {{name: bad, type: boolean}}
policy: {policy}
guardrails: {{fallback: [{{rule: "CASE WHEN x > 0 THEN 0.25 END"}}]}}
"""
POLICIES = {
    "class": "[]",
    "always": "[{do: refuse}]",
    "score": "[{when: score < 0.4, do: approve}, {do: refuse}]",
}
CONTRACTS = {name: load_contract(TEXT.format(policy=policy)) for name, policy in POLICIES.items()}
POLICY_OF = {contract.digest: name for name, contract in CONTRACTS.items()}
REGISTRY = MemoryRegistry()
CODEC = Codec(REGISTRY)
POISON = 4.5
HOUR = 3_600_000
FAR = 1_000_000
"""More than any mark that is fed, in ms."""
BROKEN, DOUBTFUL = 5, 6
"""A version that everybody refuses, and one that some instances refuse and others do not."""


class Slope:
    def __init__(self, version: int) -> None:
        self.version = version

    def run(self, columns: Columns, rows: int) -> Array:
        if (columns["x"] == POISON).any():
            raise RuntimeError("poisoned")
        return (0.5 + columns["x"] * self.version / 100).reshape(rows, 1)


MODELS = {v: formula_model(CONTRACTS["class"], v, Slope(v)) for v in range(1, 8)}
DIGESTS = {model.digest: version for version, model in MODELS.items()}


class Slow(Executor):
    """Opens packages after as many looks at the future as chance says."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        looks = self.rng.choice([0, 0, 1, 5, 20])

        class Looked(Future[Any]):
            def done(self) -> bool:
                nonlocal looks
                looks -= 1
                if looks < 0 and not super().done():
                    try:
                        self.set_result(fn(*args, **kwargs))
                    except Exception as error:
                        self.set_exception(error)
                return super().done()

        return Looked()


class OneRevision(ScoringProcessor):
    """All that comes of a batch is of one revision."""

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        output = super().process(batch, clock)
        values = [r.value for r in output.records if r.topic.endswith("predictions") and r.value is not None]
        assert len({CODEC.decode(value, READER).record["rollout_revision"] for value in values}) <= 1
        return output


class ScorerScenario(Scenario):
    role: Role = "champion"
    output = "credit.predictions"
    max_batch = 3

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng = rng
        self.publisher = Publisher(REGISTRY)
        self.requests: dict[RecordRef, float | None] = {}
        self.marks: list[list[int]] = [[] for _ in range(self.partitions)]
        self.states: list[dict[str, Any]] = []
        self.published: set[int] = set()
        for topic in (
            "tailrace.contracts",
            "tailrace.model-manifests",
            "tailrace.rollouts",
            "tailrace.clocks",
            "tailrace.alerts",
        ):
            log.create_topic(topic)
        for suffix in ("requests", "predictions", "shadow-predictions", "dead-letters"):
            log.create_topic(f"credit.{suffix}", self.partitions)
        if rng.random() < 0.8:
            self._contract(log, "class")
        self.from_the_start = bool(self.publisher.contracts) and rng.random() < 0.8
        if self.from_the_start:
            self._roll_out(log, 1)

    def _append(self, log: MemoryLog, record: Record) -> None:
        log.append(*record)

    def _contract(self, log: MemoryLog, policy: str) -> None:
        self._append(log, self.publisher.contract(CONTRACTS[policy]))

    def _roll_out(self, log: MemoryLog, champion: int, last: bool = False) -> None:
        shadow = sorted(self.rng.sample(range(1, 7), self.rng.choice([0, 0, 1, 2])))
        beside = self._beside(champion, (1, 2, 3, 4) if last else (1, 2, 3, 4, BROKEN, DOUBTFUL))
        for version in sorted({champion, *shadow, *(slot[0] for slot in beside["slots"])} - self.published):
            self._append(log, self.publisher.manifest(version, MODELS[version]))
            self.published.add(version)
        state: dict[str, Any] = {"champion": champion, "shadow": shadow, "off": self.rng.random() < 0.2}
        if self.states:
            state["previous"] = self.states[-1]["champion"]
        self.states.append(state | beside)
        state |= beside["record"]
        self._append(log, self.publisher.rollout(**state))
        if self.rng.random() < 0.2:  # somebody else, too late: a loser
            loser = self.publisher.rollout(champion=7, follows=len(self.states) - 1)
            self._append(log, loser)

    def _beside(self, champion: int, among: Sequence[int]) -> dict[str, Any]:
        """Who answers beside the champion: the fields of the step; and the stretches of keys between 0 and 1, each with
        its end, version, role and arm.
        """
        others = [v for v in among if v != champion]
        what, salt = self.rng.random(), f"salt {self.rng.randrange(3)}"
        if what < 0.3:
            version, share = self.rng.choice(others), self.rng.choice([0.1, 0.5, 1.0])
            record = {"canary": {"version": version, "share": share, "salt": salt, "step": 1}}
            return {"record": record, "salt": salt, "slots": [(version, share, "canary", None, share)]}
        if what > 0.7:
            return {"record": {}, "salt": "", "slots": []}
        versions = [champion, *self.rng.sample(others, self.rng.choice([1, 2]))]
        share, odds = self.rng.choice([0.5, 1.0]), [self.rng.randint(1, 4) for _ in versions]
        arms = [
            {"arm": "abc"[at], "version": version, "probability": odds[at] / sum(odds)}
            for at, version in enumerate(versions)
        ]
        slots, end = [], 0.0
        for arm in arms:
            end += share * arm["probability"]
            slots.append((arm["version"], end, "arm", arm["arm"], share * arm["probability"]))
        record = {"experiment": {"assign": "fixed", "share": share, "salt": salt, "arms": arms}}
        return {"record": record, "salt": salt, "slots": slots}

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if rng.random() < 0.2 and len(self.publisher.contracts.get("credit", ())) < 3:
            self._contract(log, rng.choice(["class", "always", "score"]))
        if rng.random() < 0.4 and self.publisher.contracts:
            self._roll_out(log, rng.choice([1, 2, 3, 4, BROKEN, DOUBTFUL]))
        for _ in range(rng.randint(1, 8)):
            x = rng.choice([None, POISON, 9.0, math.inf, *[rng.randint(-40, 40) / 10] * 8])
            key = None if rng.random() < 0.1 else b"k%d" % rng.randrange(9)
            source = log.append("credit.requests", self._value(x, key), key)
            self.requests[source] = x
        if rng.random() < 0.3:
            partition, time = rng.randrange(self.partitions), len(self.marks[0]) + sum(map(len, self.marks))
            made = watermark_record("credit.requests", partition, time)
            log.append(made.topic, made.value, made.key, made.headers, made.partition)
            self.marks[partition].append(time)

    def _value(self, x: float | None, key: bytes | None) -> bytes:
        request = {"request_id": None if key is None else key.decode(), "x": x}
        if self.rng.random() < 0.1 and x is not None and math.isfinite(x):
            return json.dumps(request).encode()
        return self.publisher.request_value(request, CONTRACTS["class"])

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        if not self.publisher.contracts:
            self._contract(log, "always")
        self._roll_out(log, 7, last=True)

    def logic(self) -> Processor:
        trusting = self.rng.random() < 0.5

        def opened(record: Any, contract: Any) -> LoadedModel:
            version = record["version"]
            if version == BROKEN or (version == DOUBTFUL and not trusting):
                raise PackageRefused("signature", "not trusted here")
            if self.rng.random() < 0.1:
                raise Unavailable("away")
            return MODELS[version]

        return OneRevision(
            self.role,
            self.publisher.control.by("scorer" if self.role == "champion" else "shadow-scorer"),
            opened,
            Slow(self.rng),
        )

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, ["credit.requests"])

    # What ought to be ---

    def check(self, log: MemoryLog) -> None:
        answers = self._answers(log)
        letters = {
            dead_letters.parse(m).source: dead_letters.parse(m).code
            for m in log.messages("credit.dead-letters")
        }
        assert len(letters) == len(log.messages("credit.dead-letters"))
        assert answers.keys() | letters.keys() == self.requests.keys()
        assert not answers.keys() & letters.keys()
        for source, x in self.requests.items():
            if x is None or not math.isfinite(x) or abs(x) > 5:
                code = "missing" if x is None else "out-of-range" if math.isfinite(x) else "not-finite"
                assert letters[source] == code
            else:
                (event,) = answers[source]
                self._check_event(source, x, event)
        self._check_revisions(answers)
        self._check_marks(log)

    def _answers(self, log: MemoryLog) -> dict[RecordRef, list[dict[str, Any]]]:
        by_source: dict[RecordRef, list[dict[str, Any]]] = defaultdict(list)
        for message in log.messages(self.output):
            if watermark_time(message) is None:
                event = CODEC.decode(message.value(), READER).record
                by_source[RecordRef(**event["source"])].append(event)
        return dict(by_source)

    def _check_event(self, source: RecordRef, x: float, event: dict[str, Any]) -> None:
        version = event["version"]
        state = self.states[event["rollout_revision"] - 1]
        if self.role == "champion":
            self._check_route(source, state, event)
        else:
            assert (event["role"], event["arm"], event["arm_propensity"]) == ("shadow", None, 1.0)
            assert version in state["shadow"]
        assert DIGESTS[event["artifact_digest"]] == version
        off = state["off"] and self.role == "champion"
        # Instances die, and now and then so often on the same records that a version is taken for the cause.
        suspected = event["served_cause"] == "quarantined"
        instead = off or suspected or (x == POISON and self.role == "champion")
        cause = "off" if off else "quarantined" if suspected else "model" if instead else None
        assert event["served_cause"] == cause
        if instead and x <= 0:
            answer = (event["served_by"], event["score"], event["predicted_class"], event["action"])
            assert answer == ("person", None, None, "refer")
        else:
            assert event["served_by"] == ("rule" if instead else "model")
            score = 0.25 if instead else 0.5 + x * version / 100
            assert event["score"] == score
            predicted = "true" if score > 0.5 else "false"
            decided = {
                "class": predicted,
                "always": "refuse",
                "score": "approve" if score < 0.4 else "refuse",
            }
            assert event["predicted_class"] == predicted
            assert event["action"] == decided[POLICY_OF[event["contract_digest"]]]
        assert event["prediction_id"] == prediction_id(event["role"], source, version)
        assert event["request"]["x"] == x
        assert version != BROKEN or off
        assert x != POISON or instead

    def _check_route(self, source: RecordRef, state: dict[str, Any], event: dict[str, Any]) -> None:
        """The version in whose stretch the key lies answers, and the champion where that is nobody's."""
        routed = (event["version"], event["role"], event["arm"], pytest.approx(event["arm_propensity"]))
        if state["off"]:
            assert routed == (state["champion"], "champion", None, 1.0)
            return
        (at,) = key_positions([(event["request"]["request_id"] or str(source)).encode()], state["salt"])
        taken = sum(width for *_, width in state["slots"])
        expected = (state["champion"], "champion", None, 1.0 - taken)
        for version, end, role, arm, width in state["slots"]:
            if at < end:
                expected = (version, role, arm, width)
                break
        doubtful = {v: width for v, _, role, _, width in state["slots"] if role == "arm" and v >= BROKEN}
        if not doubtful:
            assert routed == expected
            return
        # The champion answers for arms that this instance refuses, and for nobody else.
        refused = doubtful if event["role"] == "champion" else doubtful.keys() & {BROKEN}
        if expected[0] in refused or expected[1] == "champion":
            assert routed[:3] == (state["champion"], "champion", None)
            chances = [1 - taken + sum(likely) for likely in ([doubtful.get(BROKEN, 0.0)], doubtful.values())]
            assert event["arm_propensity"] in [pytest.approx(chance) for chance in chances]
        else:
            assert routed == expected

    def _check_revisions(self, answers: dict[RecordRef, list[dict[str, Any]]]) -> None:
        last: dict[int, int] = {}
        for source in sorted(answers):
            for event in answers[source]:
                revision = event["rollout_revision"]
                assert revision >= last.get(source.partition, 0), "answered by an older revision"
            last[source.partition] = revision

    def _check_marks(self, log: MemoryLog) -> None:
        for partition, fed in enumerate(self.marks):
            messages = log.messages(self.output, partition)
            times = [t for m in messages if (t := watermark_time(m)) is not None]
            assert [time for time in times if time < FAR] == fed
            # Requests have no event time of their own: each time at which one was appended is told, to the hour.
            asked = [m.timestamp()[1] for m in log.messages("credit.requests", partition) if m.value()]
            hours = {time - time % HOUR for time in asked}
            assert {time for time in times if time >= FAR} == hours
        # Requests with a key are answered in the partition that they came in, in their order, marks among
        # them.
        for partition in range(self.partitions):
            asked = [self._name(m) for m in log.messages("credit.requests", partition)]
            order = {name: at for at, name in enumerate(asked)}
            names = [self._name(m) for m in log.messages(self.output, partition)]
            places = [order[name] for name in names if name in order]
            assert places == sorted(places)

    def _name(self, message: Message) -> object:
        time = watermark_time(message)
        if time is not None:
            return ("mark", time)
        if message.topic() == "credit.requests":
            return RecordRef.of(message)
        event = CODEC.decode(message.value(), READER).record
        return RecordRef(**event["source"])


READER = prediction_schema(CONTRACTS["class"])


class ShadowScenario(ScorerScenario):
    role: Role = "shadow"
    output = "credit.shadow-predictions"

    def check(self, log: MemoryLog) -> None:
        assert log.messages("credit.dead-letters") == []
        assert log.messages("credit.predictions") == []
        answers = self._answers(log)
        assert answers.keys() <= self.requests.keys()
        for source, events in answers.items():
            x = self.requests[source]
            assert x is not None
            (revision,) = {event["rollout_revision"] for event in events}
            versions = [event["version"] for event in events]
            assert len(set(versions)) == len(versions)
            shadow = set(self.states[revision - 1]["shadow"])
            assert shadow - {BROKEN, DOUBTFUL} <= set(versions) <= shadow
            for event in events:
                self._check_event(source, x, event)
        self._check_revisions(answers)
        self._check_marks(log)
        if self.from_the_start and all(set(s["shadow"]) - {BROKEN, DOUBTFUL} for s in self.states):
            scorable = {s for s, x in self.requests.items() if x is not None and abs(x) <= 5 and x != POISON}
            assert answers.keys() == scorable


def test_every_request_is_answered_once_by_the_right_version() -> None:
    simulate(ScorerScenario, 200, long=2_000)


def test_shadows_score_what_the_champion_answers() -> None:
    simulate(ShadowScenario, 110, long=1_000)
