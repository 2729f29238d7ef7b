"""The account of what a lane's scorers did, by the topics as readers see them and by the broker's files.

A batch is a transaction: it answers the requests between the offsets that it commits and those committed before, all
of them, in the same transaction, under one rollout revision, and with one version for each role. So what it wrote and
what it committed are compared, transaction by transaction. Shares no code with the product.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.kafka_files import Commit, commits, transactions
from tests.support.observer import Observer, Reference, Seen

Ends = Mapping[tuple[str, int], int]
WRONG = ("lost", "twice", "torn", "mixed", "stale", "misrouted", "unasked")
"""What can be wrong: a request without an answer, or with several; a transaction whose answers are not those to the
requests that it commits, or that was aborted and is seen; one with two revisions, or two versions in a role; a
partition answered under an older revision than before; an answer by a version that its revision does not name, or to
nothing."""


class Answer(NamedTuple):
    """One prediction or dead letter, as a reader of committed records sees it."""

    at: Reference
    source: Reference
    prediction: Mapping[str, Any] | None


@dataclass
class Account:
    """What is wrong, by kind, with one example each; and how long requests waited for their answers.

    Attributes:
        requests: when each was appended, in ms.
        aborted: how many transactions with answers in them were given up.
        committed_ms, producers: by request, when and by which producer its answer was committed.
        predictions: by request.
    """

    requests: dict[Reference, int]
    answers: int
    aborted: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    committed_ms: dict[Reference, int] = field(default_factory=dict)
    producers: dict[Reference, int] = field(default_factory=dict)
    predictions: dict[Reference, Mapping[str, Any]] = field(default_factory=dict)

    def note(self, kind: str, example: object) -> None:
        assert kind in WRONG
        self.wrong[kind] += 1
        self.examples.setdefault(kind, f"{kind}: {example}")

    def recovery_s(self, moment: float) -> float:
        """From a moment (``time.time()``) until what was asked after it, first in its partition, had its answer
        committed, in every partition."""
        first: dict[int, tuple[int, Reference]] = {}
        for source, appended_ms in self.requests.items():
            if appended_ms > moment * 1000:
                first[source[1]] = min((appended_ms, source), first.get(source[1], (appended_ms, source)))
        assert first, "nothing was asked after this moment"
        return max(self.committed_ms.get(source, inf) for _, source in first.values()) / 1000 - moment

    def waits_s(self) -> list[float]:
        """How long each request waited for its answer, in order."""
        return sorted((self.committed_ms[s] - self.requests[s]) / 1000 for s in self.committed_ms)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def account(observer: Observer, logs: Path, group: str, lane: str, since: Ends) -> Account:
    """The account of all requests from these offsets on.

    Args:
        logs: the broker's data folder, with a folder for each partition.
        group: the scorers' consumer group.
        since: by topic and partition, where nothing was under way.
    """
    asked = {
        r.at: r.appended_ms for r in observer.read(f"{lane}.requests", since=since) if not _is_watermark(r)
    }
    answers = [*_predictions(observer, lane, since), *_dead_letters(observer, lane, since)]
    made = Account(asked, len(answers))
    made.predictions = {a.source: a.prediction for a in answers if a.prediction is not None}
    of_answers = _transactions_of(made, answers, logs, since)
    _count(made, answers)
    _compare_with_commits(made, answers, of_answers, commits(logs, group))
    _follow_revisions(made, answers, observer)
    return made


def _is_watermark(record: Seen) -> bool:
    return "tailrace-mark" in record.headers


def _predictions(observer: Observer, lane: str, since: Ends) -> Iterable[Answer]:
    for record in observer.read(f"{lane}.predictions", since=since):
        if record.value is not None:
            event = observer.decode(record.value)
            yield Answer(record.at, _place(event["source"]), event)


def _place(source: Mapping[str, Any]) -> Reference:
    return source["topic"], source["partition"], source["offset"]


def _dead_letters(observer: Observer, lane: str, since: Ends) -> Iterable[Answer]:
    for record in observer.read(f"{lane}.dead-letters", since=since):
        topic, partition, offset = (
            record.headers[f"tailrace-{name}"].decode() for name in ("topic", "partition", "offset")
        )
        yield Answer(record.at, (topic, int(partition), int(offset)), None)


Transaction = tuple[str, int, int, int]
"""Topic, partition, producer, and which of that producer's in this partition."""


def _transactions_of(
    made: Account, answers: Iterable[Answer], logs: Path, since: Ends
) -> dict[Reference, Transaction]:
    """By answer, the transaction that wrote it."""
    by_answer: dict[Reference, Transaction] = {}
    answered = {answer.at: answer.source for answer in answers}
    for topic, partition in sorted({at[:2] for at in answered}):
        for number, written in enumerate(transactions(logs / f"{topic}-{partition}")):
            if max(written.offsets) < since[topic, partition]:
                continue
            if written.end == "abort":
                made.aborted += 1
                for offset in written.offsets:
                    if (topic, partition, offset) in answered:
                        made.note("torn", f"of an aborted transaction: {(topic, partition, offset)}")
                continue
            for offset in written.offsets:
                at = (topic, partition, offset)
                if at in answered:
                    by_answer[at] = (topic, partition, written.producer, number)
                    made.committed_ms[answered[at]] = written.ended_ms
                    made.producers[answered[at]] = written.producer
    return by_answer


def _count(made: Account, answers: Iterable[Answer]) -> None:
    counted = Counter(answer.source for answer in answers)
    for source in made.requests:
        if counted[source] != 1:
            made.note("lost" if not counted[source] else "twice", source)
    for source in counted.keys() - made.requests.keys():
        made.note("unasked", source)


def _compare_with_commits(
    made: Account,
    answers: Iterable[Answer],
    of_answers: Mapping[Reference, Transaction],
    committed: Iterable[Commit],
) -> None:
    by_source = {answer.source: answer for answer in answers}
    by_partition: dict[tuple[str, int], deque[int]] = {}
    for topic, partition, offset in sorted(made.requests):
        by_partition.setdefault((topic, partition), deque()).append(offset)
    reached: dict[tuple[str, int], int] = {}
    # By transaction as the answers' partitions show it: which commit it belongs to.
    belongs: dict[Transaction, int] = {}
    for number, commit in enumerate(committed):
        served: dict[str, set[tuple[int, int]]] = {}
        shown: dict[tuple[str, int], Transaction] = {}
        for place, end in commit.offsets.items():
            start, reached[place] = reached.get(place, 0), end
            if end < start:
                made.note("torn", f"{place} went back from {start} to {end}")
            offsets = by_partition.get(place, deque())
            while offsets and offsets[0] < end:
                source = (*place, offsets.popleft())
                answer = by_source.get(source)
                transaction = None if answer is None else of_answers.get(answer.at)
                if answer is None or transaction is None:
                    made.note("torn", f"{source} is committed and has no answer")
                    continue
                # Its own producer's, the same for all answers of this commit, and of no other commit.
                same = shown.setdefault(transaction[:2], transaction) == transaction
                if (
                    transaction[2] != commit.producer
                    or not same
                    or belongs.setdefault(transaction, number) != number
                ):
                    made.note("torn", f"{source} is answered in another transaction than it is committed in")
                if answer.prediction is not None:
                    by = (answer.prediction["rollout_revision"], answer.prediction["version"])
                    served.setdefault(answer.prediction["role"], set()).add(by)
        revisions = {revision for versions in served.values() for revision, _ in versions}
        if len(revisions) > 1 or any(len(versions) > 1 for versions in served.values()):
            made.note("mixed", served)
    for place, offsets in by_partition.items():
        for offset in offsets:
            if (*place, offset) in by_source:
                made.note("torn", f"{(*place, offset)} is answered and not committed")


def _follow_revisions(made: Account, answers: Iterable[Answer], observer: Observer) -> None:
    named: dict[str, list[dict[str, int | None]]] = {}
    for record in sorted(observer.read("tailrace.rollouts"), key=lambda record: record.at):
        step = observer.decode(record.value or b"")
        steps = named.setdefault(step["model"], [])
        if step["follows"] == len(steps):
            canary = step["canary"] and step["canary"]["version"]
            steps.append({"champion": step["champion"], "canary": canary})
    newest: dict[int, int] = {}
    for answer in sorted(answers, key=lambda answer: answer.source):
        if (event := answer.prediction) is None:
            continue
        revision, partition = event["rollout_revision"], answer.source[1]
        if revision < newest.get(partition, 0):
            made.note("stale", f"{answer.source} under {revision} after {newest[partition]}")
        newest[partition] = revision
        if named[event["model"]][revision - 1][event["role"]] != event["version"]:
            made.note("misrouted", f"{answer.source} by {event['role']} {event['version']} under {revision}")
