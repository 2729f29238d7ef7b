"""The joiner under seeded schedules: whatever comes when, wherever, and whoever dies: the outcomes and dead letters
are those that the contents of the inputs say, each once.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from tests.support.joining_oracle import World, expected
from tests.support.memory_key_value_store import MemoryKeyValueStore
from tests.support.simulation import Scenario, drained, simulate

from tailrace.errors import StateLost
from tailrace.joiner import partition as joiner_partition
from tailrace.joiner.processor import JoiningProcessor
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import STEP
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record, watermark_stream, watermark_time
from tailrace.testing.joined_lane import CONTRACT as LANE_CONTRACT
from tailrace.testing.joined_lane import JoinedLane
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import records

REGISTRY = MemoryRegistry()
START = 1_600_000_000_000
SECOND = 1_000
TOLERANCE = 10
CONTRACT = LANE_CONTRACT.replace("horizon: 60s", f"tolerance: {TOLERANCE}s, horizon: 60s")
VARIANTS = {
    "": JoinedLane(CONTRACT, REGISTRY),
    "later": JoinedLane(CONTRACT.replace("team: t", "team: u"), REGISTRY),
    "assume": JoinedLane(CONTRACT.replace("horizon: 60s", "horizon: 60s, never: {assume: false}"), REGISTRY),
    "only": JoinedLane(
        CONTRACT.replace(
            "horizon: 60s", "horizon: 60s, never: {assume: false}, known_only_for: ['true', approve]"
        )
        + 'policy: [{when: "score < 0.1", do: approve}]\n',
        REGISTRY,
    ),
}
INPUTS = ("predictions", "shadow-predictions", "labels", "actions")


class Asked(NamedTuple):
    request_id: str
    key: str
    source: RecordRef
    time: int


class JoinerScenario(Scenario):
    group = "joiner"
    co_partitioned = True

    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.rng, self.log = rng, log
        self.variant = rng.choice(["", "", "assume", "only"])
        self.made = VARIANTS[self.variant]
        self.partitions = rng.choice([1, 2, 3, 3])
        self.now = START
        self.asked: list[list[Asked]] = [[] for _ in range(self.partitions)]
        # How many of each partition's requests each scorer has answered.
        self.answered = {shadow: [0] * self.partitions for shadow in (False, True)}
        # Of what is due, a step may do all, or a few.
        self.bounds = STEP._replace(records=rng.choice([STEP.records, 1, 2, 5]))
        self.disks: dict[tuple[str, int], list[MemoryKeyValueStore]] = defaultdict(list)
        log.create_topic("tailrace.contracts")
        for suffix in (*INPUTS, "rekeyed", "outcomes", "dead-letters"):
            log.create_topic(f"credit.{suffix}", self.partitions)
        self._append(log, self.made.contract_record())
        # A later contract, under which predictions are made before everybody has heard of it.
        self.next = VARIANTS["later"] if self.variant == "" and rng.random() < 0.5 else None
        self.is_applied = False

    def _append(self, log: MemoryLog, record: Record, partition: int | None = None) -> None:
        where = record.partition if partition is None else partition
        log.append(record.topic, record.value, record.key, record.headers, where)

    # What happens ---

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        self.now += rng.choice([0, 1, 1, 3, 10, 40]) * SECOND
        for _ in range(rng.randint(0, 4)):
            self._ask(rng)
        for shadow in (False, True):
            for partition in range(self.partitions):
                if rng.random() < 0.6:
                    self._answer(log, rng, shadow, partition)
        for _ in range(rng.randint(0, 5)):
            self._tell(log, rng)
        if rng.random() < 0.1:
            self._apply_next(log)
        if rng.random() < 0.5:
            self._mark(log, rng, rng.choice(["labels", "actions"]), rng.randrange(self.partitions))

    def _apply_next(self, log: MemoryLog) -> None:
        if self.next is not None and not self.is_applied:
            self._append(log, self.next.contract_record(follows=1))
            self.is_applied = True

    def _ask(self, rng: random.Random) -> None:
        number = rng.randrange(12)
        partition = rng.randrange(self.partitions)
        time = self.now - rng.choice([0, 0, 0, 2, 7, 30, 80]) * SECOND
        source = RecordRef("credit.requests", partition, len(self.asked[partition]))
        self.asked[partition].append(Asked(f"r{number}", f"k{number}", source, time))

    def _answer(self, log: MemoryLog, rng: random.Random, shadow: bool, partition: int) -> None:
        """A scorer answers the next requests of a partition, in their order; some are bad and some it only marks."""
        topic = "credit.shadow-predictions" if shadow else "credit.predictions"
        done = self.answered[shadow]
        for _ in range(rng.randint(1, 4)):
            if done[partition] == len(self.asked[partition]):
                break
            request = self.asked[partition][done[partition]]
            done[partition] += 1
            versions = [2, 3][: rng.randint(0, 2)] if shadow else [1] * (rng.random() < 0.9)
            for version in versions:
                made = self.made if self.next is None or rng.random() < 0.7 else self.next
                if made is self.next:  # whoever predicts was told of it before
                    self._apply_next(log)
                record = made.prediction(
                    request.source, request.request_id, request.key, request.time, version=version, shadow=shadow,
                    action=rng.choice(["true", "false"]),
                )  # fmt: skip
                self._append(log, record, partition_of(request.key.encode(), self.partitions))
        if rng.random() < 0.3:
            offset = done[partition] - 1
            self._append(log, watermark_record(topic, partition, self.now, offset=offset))

    def _tell(self, log: MemoryLog, rng: random.Random) -> None:
        number = rng.choice([*range(12), 99])
        time = self.now + rng.choice([0, 0, 0, 1, -3, -20, -70, 20]) * SECOND
        record: dict[str, Any] = {"request_id": f"r{number}", "loan_id": f"k{number}", "at": time}
        what = rng.random()
        if what < 0.03:
            del record["loan_id"]
        elif what < 0.06:
            del record["request_id"]
        elif what < 0.09:
            record["at"] = 4_102_444_800_000  # 2100
        elif what < 0.12:
            record["loan_id"] = "k5"
        is_label = rng.random() < 0.65
        if rng.random() > 0.03:
            record |= (
                {"bad": rng.random() < 0.5} if is_label else {"action": rng.choice(["approve", "refuse"])}
            )
        topic = "credit.labels" if is_label else "credit.actions"
        if rng.random() < 0.3:
            value = json.dumps(record).encode()
        else:
            value = (self.made.label if is_label else self.made.action)(**record).value or b""
        partition = partition_of(record.get("loan_id", "").encode(), self.partitions)
        if rng.random() < 0.3:
            partition = rng.randrange(self.partitions)
        self._append(log, Record(topic, value), partition)

    def _mark(self, log: MemoryLog, rng: random.Random, suffix: str, partition: int) -> None:
        self._append(
            log, watermark_record(f"credit.{suffix}", partition, self.now - rng.choice([0, 0, 5]) * SECOND)
        )

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        """Everything is answered or not, and time passes: a little, or so much that nothing stays open."""
        self._apply_next(log)
        self.now += rng.choice([0, 10, 64, 70, 500]) * SECOND
        for partition in range(self.partitions):
            for suffix in ("labels", "actions"):
                if self.always(rng):
                    self._append(log, watermark_record(f"credit.{suffix}", partition, self.now))
            for shadow in (False, True):
                while rng.random() < 0.9 and self.answered[shadow][partition] < len(self.asked[partition]):
                    self._answer(log, rng, shadow, partition)
                topic = "credit.shadow-predictions" if shadow else "credit.predictions"
                if rng.random() < 0.8:
                    offset = self.answered[shadow][partition] - 1
                    self._append(log, watermark_record(topic, partition, self.now, offset=offset))

    def always(self, rng: random.Random) -> bool:
        return rng.random() < 0.9

    def logic(self) -> Processor:
        return JoiningProcessor(
            records(REGISTRY),
            self._open,
            lambda topic: self.partitions,
            lambda: self.log.messages("tailrace.contracts"),
            self.bounds,
        )

    def _open(self, lane: str, number: int) -> MemoryKeyValueStore:
        """An empty store, or one as an earlier owner left it, perhaps long ago."""
        disks = self.disks[lane, number]
        store = self._store()
        if disks and self.rng.random() < 0.6:
            MemoryKeyValueStore.write(store, self.rng.choice(disks[-3:]).content, ())
        disks.append(store)
        return store

    def _store(self) -> MemoryKeyValueStore:
        return MemoryKeyValueStore()

    def done(self, log: MemoryLog) -> bool:
        topics = [f"credit.{suffix}" for suffix in (*INPUTS, "rekeyed")]
        if not drained(log, self.group, topics):
            return False
        return self.is_still(log)

    # What ought to be ---

    def check(self, log: MemoryLog) -> None:
        outcomes, letters = expected(self._world(log))
        by_id: dict[str, dict[str, Any]] = {}
        for message in log.messages("credit.outcomes"):
            if watermark_time(message) is None:
                outcome = flat(self.made.outcome(message)) | {"partition": message.partition()}
                assert outcome["outcome_id"] not in by_id, "an outcome twice"
                by_id[outcome["outcome_id"]] = outcome
                assert message.key() == self.made.outcome(message)["prediction"]["key"].encode()
        dead = [dead_letters.parse(message) for message in log.messages("credit.dead-letters")]
        written = [(str(letter.source), letter.code) for letter in dead]
        assert sorted(written) == sorted(letters | (letters.early & set(written)))
        assert by_id == outcomes
        for letter in dead:
            self._check_letter(log, letter)
        self._check_marks(log)

    def _world(self, log: MemoryLog) -> World:
        return World(
            "credit",
            {s: [log.messages(f"credit.{s}", p) for p in range(self.partitions)] for s in INPUTS},
            lambda value: self.made.codec.decode(value).record,
            60 * SECOND,
            5 * SECOND,
            300 * SECOND,
            TOLERANCE * SECOND,
            "loan_id",
            "at",
            "bad",
            False if self.variant else None,
            ("true", "approve") if self.variant == "only" else (),
        )

    def _check_letter(self, log: MemoryLog, letter: dead_letters.DeadLetterInfo) -> None:
        """It is the original, wherever the joiner had it from."""
        topic, partition, offset = letter.source
        (original,) = [m for m in log.messages(topic, partition) if m.offset() == offset]
        assert (letter.key, letter.value, letter.headers) == (
            original.key(),
            original.value(),
            original.headers() or [],
        )

    def _check_marks(self, log: MemoryLog) -> None:
        """What a mark rules out does not come after it."""
        for partition in range(self.partitions):
            watermarks: dict[str, int] = defaultdict(lambda: -(10**18))
            for message in log.messages("credit.outcomes", partition):
                time = watermark_time(message)
                if time is not None:
                    stream = watermark_stream(message) or ""
                    watermarks[stream] = max(watermarks[stream], time)
                    continue
                outcome = self.made.outcome(message)
                shadow = outcome["prediction"]["role"] == "shadow"
                assert outcome["known_at"] >= watermarks["shadow-predictions" if shadow else "predictions"]
            clock = max(map(self._time, log.messages("credit.predictions", partition)), default=None)
            marks = [self._final(log, "labels"), self._final(log, "actions")]
            if clock is not None and None not in marks:
                assert watermarks["predictions"] == min(clock, *(m for m in marks if m is not None))

    def _time(self, message: Message) -> int:
        time = watermark_time(message)
        return time if time is not None else self.made.codec.decode(message.value()).record["event_time"]

    def _final(self, log: MemoryLog, suffix: str) -> int | None:
        """The least final clock of the partitions, where all have one."""
        last = []
        for partition in range(self.partitions):
            messages = log.messages(f"credit.{suffix}", partition)
            times = [time for message in messages if (time := watermark_time(message)) is not None]
            if not times or times[-1] != self.now:
                return None
            last.append(times[-1])
        return None if self._ahead(log, suffix) else min(last)

    def _ahead(self, log: MemoryLog, suffix: str) -> bool:
        """Whether a truth is later than the final mark."""
        for message in log.messages(f"credit.{suffix}"):
            value = message.value()
            if value is not None:
                record = json.loads(value) if value.startswith(b"{") else self.made.codec.decode(value).record
                if self.now < (record.get("at") or 0) < 4_000_000_000_000:
                    return True
        return False


def flat(outcome: dict[str, Any]) -> dict[str, Any]:
    """What the joiner decides of an outcome, as the oracle has it."""

    def source(name: str) -> str | None:
        place = outcome[name]
        return place and "{topic}/{partition}/{offset}".format(**place)

    before = outcome["before"]
    return {
        "outcome_id": outcome["outcome_id"],
        "prediction_id": outcome["prediction"]["prediction_id"],
        "revision": outcome["revision"],
        "replaces": outcome["replaces"],
        "state": outcome["state"],
        "duplicate_of": outcome["duplicate_of"],
        "known_at": outcome["known_at"],
        "late": outcome["late"],
        "label": outcome["label"],
        "label_time": outcome["label_time"],
        "label_source": source("label_source"),
        "action_taken": outcome["action_taken"],
        "action_source": source("action_source"),
        "before": before and (before["state"], before["label"], before["action_taken"]),
        "champion": outcome["champion"] and outcome["champion"]["prediction_id"],
    }


class PausingScenario(JoinerScenario):
    """Few labels and actions are held; so that all can be read in the end, every clock goes on in the end."""

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        self.now += 100 * SECOND
        super().finish(log, rng)

    def always(self, rng: random.Random) -> bool:
        return True


class DamagedStore(MemoryKeyValueStore):
    """A store that turns out to be damaged now and then, whatever is asked of it."""

    def __init__(self, scenario: DamagedScenario) -> None:
        super().__init__()
        self.scenario = scenario

    def _look_at_the_sums(self) -> None:
        if self.scenario.rng.random() < self.scenario.damage:
            self.throw_away("a sum is wrong")
            raise StateLost("a sum is wrong")

    def get(self, key: bytes) -> bytes | None:
        self._look_at_the_sums()
        return super().get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._look_at_the_sums()
        return super().get_many(keys)

    def timers(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        self._look_at_the_sums()
        return super().timers(begin, end)

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        self._look_at_the_sums()
        super().write(puts, deletes)


class DamagedScenario(JoinerScenario):
    """What is kept of the log is lost again and again, until the end comes."""

    damage = 0.04

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        self.damage = 0.0
        super().finish(log, rng)

    def _store(self) -> MemoryKeyValueStore:
        return DamagedStore(self)


def test_outcomes_are_what_the_log_says() -> None:
    simulate(JoinerScenario, 80, long=500)


def test_damaged_stores_change_nothing() -> None:
    simulate(DamagedScenario, 40)


def test_reading_pauses_where_too_much_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joiner_partition, "MOST_PENDING", 5)
    simulate(PausingScenario, 30)
