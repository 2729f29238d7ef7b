"""The exactly-once runner under thousands of seeded schedules: nothing lost, nothing twice, in order, same results."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from tests.support.simulation import OUTSIDE, Scenario, drained, simulate

from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import DeadLetter, Message, PausedPartition, Record, RecordRef, TopicPartition

RULES = "tailrace.rules"
FIRST, SECOND = "one.requests", "two.requests"
LANES = (FIRST, SECOND)


def dead_letters_of(topic: str) -> str:
    return f"{topic.partition('.')[0]}.dead-letters"


class NumberedEcho:
    """Answers each request with its number in its partition and the revision in force, twice.

    The number is state that is handed on in the commit metadata; so is the revision, which must not go back
    for a partition. A request may need a revision that is not there yet, and is then held.
    """

    def __init__(self, revision: int, *, ahead: bool = False) -> None:
        self.at_least = revision
        self.ahead = ahead
        self.latest: Output | None = None
        self.revision = 0
        self.open: set[str] = set()
        self.counts: dict[TopicPartition, int] = {}
        self.floors: dict[TopicPartition, int] = {}

    def control_topics(self) -> Sequence[str]:
        return [RULES]

    def topics(self) -> frozenset[str]:
        return frozenset(self.open)

    def control(self, messages: Sequence[Message]) -> None:
        for message in messages:
            rule = json.loads(message.value() or b"")
            assert rule["revision"] == self.revision + 1, "control records are read once and in order"
            self.revision = rule["revision"]
            self.open |= set(rule["open"])

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None:
        assert not partitions.keys() & self.counts.keys(), "assigned twice"
        for tp, (_, metadata) in partitions.items():
            facts = json.loads(metadata or "{}")
            self.floors[tp] = facts.get("revision", 0)
            self.counts[tp] = facts.get("counts", {}).get(f"{tp.topic}/{tp.partition}", 0)

    def restore(self, messages: Sequence[Message]) -> None:
        raise AssertionError("nothing was asked for")

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            del self.counts[tp], self.floors[tp]

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        assert self.revision >= self.at_least, "all that was on the control topics is read before"
        records: list[Record] = []
        output = Output(records)
        counts = dict(self.counts)
        for message in batch:
            tp = TopicPartition(message.topic(), message.partition())
            needs = int((message.value() or b"0|").split(b"|")[0])
            if tp in output.paused:
                continue
            if self.revision < max(needs, self.floors[tp]):
                output.paused[tp] = PausedPartition(message.offset(), "revision not there yet")
                continue
            counts[tp] += 1
            source = str(RecordRef.of(message))
            if b"bad" in (message.value() or b""):
                output.dead_letters.append(DeadLetter(dead_letters_of(tp.topic), message, "bad", "as told"))
                continue
            answer = {"source": source, "number": counts[tp], "revision": self.revision}
            lane = tp.topic.partition(".")[0]
            records.append(
                Record(f"{lane}.answers", json.dumps(answer).encode(), message.key(), (), tp.partition)
            )
            records.append(Record("all.sources", source.encode(), message.key()))
        seen = {TopicPartition(m.topic(), m.partition()) for m in batch}
        output.metadata = json.dumps(
            {"revision": self.revision, "counts": {f"{tp.topic}/{tp.partition}": counts[tp] for tp in seen}}
        )
        if self.ahead and not output.paused:
            output.pipelined = True
            self.counts = counts
        else:
            output.on_committed = lambda: self._apply(output, counts)
        self.latest = output
        return output

    def _apply(self, output: Output, counts: dict[TopicPartition, int]) -> None:
        assert output is self.latest, "what is not ahead is committed before the next batch"
        self.counts = counts

    def waiting(self) -> str | None:
        return None


class EchoScenario(Scenario):
    def setup(self, log: MemoryLog, rng: random.Random) -> None:
        self.revision = 0
        self.late = rng.random() < 0.3
        self.producer = log.backend(OUTSIDE).producer("rules")
        self.producer.init()
        for topic in ("one.answers", "one.dead-letters", "two.answers", "two.dead-letters", "all.sources"):
            log.create_topic(topic, self.partitions)
        log.create_topic(RULES)
        log.create_topic(FIRST, self.partitions)
        if not self.late:
            log.create_topic(SECOND, self.partitions)
        self._rule(log)
        self.fed = 0

    def _rule(self, log: MemoryLog) -> None:
        self.revision += 1
        opened = [FIRST] if self.revision == 1 else list(LANES)
        self.producer.begin()
        self.producer.produce(
            [Record(RULES, json.dumps({"revision": self.revision, "open": opened}).encode())]
        )
        self.producer.commit()

    def feed(self, log: MemoryLog, rng: random.Random) -> None:
        if rng.random() < 0.2:
            self._rule(log)
        if self.late and rng.random() < 0.3 and SECOND not in log.topics():
            log.create_topic(SECOND, self.partitions)
        for _ in range(rng.randint(1, 10)):
            topic = rng.choice([lane for lane in LANES if lane in log.topics()])
            needs = self.revision + 1 if rng.random() < 0.05 else rng.randint(0, self.revision)
            what = rng.choice(["bad", "good", "good", "good"])
            self.fed += 1
            key = None if rng.random() < 0.1 else b"key-%d" % rng.randrange(9)
            log.append(topic, f"{needs}|{what} {self.fed}".encode(), key)

    def finish(self, log: MemoryLog, rng: random.Random) -> None:
        if SECOND not in log.topics():
            log.create_topic(SECOND, self.partitions)
        self._rule(log)
        self._rule(log)

    def logic(self) -> NumberedEcho:
        return NumberedEcho(self.revision)

    def done(self, log: MemoryLog) -> bool:
        return drained(log, self.group, LANES)

    def check(self, log: MemoryLog) -> None:
        good: dict[str, int] = {}
        bad: Counter[str] = Counter()
        for lane in LANES:
            for partition in range(self.partitions):
                for number, message in enumerate(log.messages(lane, partition), 1):
                    if b"bad" in (message.value() or b""):
                        bad[str(RecordRef.of(message))] += 1
                    else:
                        good[str(RecordRef.of(message))] = number

        answers = []
        for lane in ("one", "two"):
            for partition in range(self.partitions):
                revisions = [0]
                offsets = [-1]
                for message in log.messages(f"{lane}.answers", partition):
                    answer = json.loads(message.value() or b"")
                    answers.append((answer["source"], answer["number"]))
                    revisions.append(answer["revision"])
                    offsets.append(int(answer["source"].split("/")[2]))
                assert revisions == sorted(revisions), "a partition's answers never go back in revision"
                assert offsets == sorted(offsets), "a partition's answers are in order"
        assert Counter(answers) == Counter(good.items())
        sources = [(m.value() or b"").decode() for m in log.messages("all.sources")]
        assert Counter(sources) == Counter(good.keys())

        letters: Counter[str] = Counter()
        for lane in ("one", "two"):
            for message in log.messages(f"{lane}.dead-letters"):
                facts = defaultdict(bytes, message.headers() or [])
                at = (facts["tailrace-topic"], facts["tailrace-partition"], facts["tailrace-offset"])
                letters["/".join(part.decode() for part in at)] += 1
        assert letters == bad


class AheadEchoScenario(EchoScenario):
    """Batches are processed while the ones before them are being committed."""

    max_batch = 3

    def logic(self) -> NumberedEcho:
        return NumberedEcho(self.revision, ahead=True)


class EagerEchoScenario(EchoScenario):
    """Partitions of one number belong together, so all are given up at each rebalance."""

    co_partitioned = True


def test_every_request_is_answered_once_whatever_happens() -> None:
    simulate(EchoScenario, 500, long=5_000)


def test_the_same_where_batches_are_processed_ahead() -> None:
    simulate(AheadEchoScenario, 400, long=5_000)


def test_the_same_with_partitions_that_are_given_up_at_each_rebalance() -> None:
    simulate(EagerEchoScenario, 300, long=2_000)
