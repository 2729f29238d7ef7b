"""What came of a transaction, by what the producer's calls raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Committed,
    Fenced,
    LogError,
    Membership,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record, TopicPartition
from tailrace.streaming.transactions import TransactionOutcome, TransactionResult, Transactions

Answer = TypeVar("Answer")

COMMITTED, ABORTED, UNKNOWN = TransactionResult
MEMBER = Membership("member", None)
OFFSETS = {TopicPartition("requests", 0): Committed(1)}
RECORD = Record("answers", b"a")


class Producer:
    """Keeps a list of calls; each raises what is scripted for it, one after the other."""

    def __init__(self, script: dict[str, list[LogError | None]]) -> None:
        self.script = script
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        error = self.script[name].pop(0) if self.script.get(name) else None
        if error is not None:
            raise error

    def init(self) -> None:
        self._call("init")

    def begin(self) -> None:
        self._call("begin")

    def produce(self, records: Sequence[Record]) -> None:
        self._call("produce")

    def send_offsets(self, *_: object) -> None:
        self._call("send_offsets")

    def begin_commit(self, *_: object) -> None:
        self._call("begin_commit")

    def commit(self) -> None:
        self._call("commit")

    def abort(self) -> None:
        self._call("abort")

    def close(self) -> None:
        self._call("close")


class Member:
    def __init__(self, name: str = "member") -> None:
        self.name = name

    def member_id(self) -> str:
        return self.name


class Bench:
    """Transactions with a scripted producer; a call is repeated twice, then what it raises comes out."""

    def __init__(self, **script: LogError | list[LogError | None]) -> None:
        calls = {name: list(e) if isinstance(e, list) else [e] for name, e in script.items()}
        self.producer = Producer(calls)
        self.log = MemoryLog()
        backend = type("Backend", (), {"producer": lambda _, transactional_id: self.producer})()
        self.transactions = Transactions(backend, "service-0", MemoryClock(self.log), self.patiently)
        self.transactions.start()
        self.producer.calls.clear()

    def patiently(self, call: Callable[..., Answer], *arguments: object, limit_s: float = 0) -> Answer:
        for _ in range(2):
            try:
                return call(*arguments)
            except Retriable:
                pass
        return call(*arguments)

    def transact(self, member: str = "member") -> TransactionOutcome:
        return self.transactions.transact(Member(member), MEMBER, OFFSETS, [RECORD])  # type: ignore[arg-type]


def test_what_is_written_is_committed_with_its_offsets() -> None:
    bench = Bench()
    assert bench.transact() == TransactionOutcome(COMMITTED)
    assert bench.producer.calls == ["begin", "produce", "send_offsets", "commit"]
    assert not bench.transactions.is_open


def test_a_producer_is_made_once() -> None:
    bench = Bench()
    bench.transactions.start()
    assert bench.producer.calls == []


@pytest.mark.parametrize("call", ["produce", "send_offsets", "commit"])
def test_what_cannot_go_through_is_aborted(call: str) -> None:
    bench = Bench(**{call: Abortable("no longer a member")})
    assert bench.transact() == TransactionOutcome(ABORTED, "no longer a member")
    assert bench.producer.calls[-1] == "abort"
    assert not bench.transactions.is_open
    assert bench.transactions.aborts == 1


def test_a_transaction_that_has_not_begun_is_not_aborted_at_the_log() -> None:
    bench = Bench(begin=Abortable("not now"))
    assert bench.transact() == TransactionOutcome(ABORTED, "not now")
    assert bench.producer.calls == ["begin"]


def test_who_is_no_longer_the_member_that_read_the_batch_sends_no_offsets() -> None:
    bench = Bench()
    assert bench.transact("another").result is ABORTED
    assert bench.producer.calls == ["begin", "produce", "abort"]


@pytest.mark.parametrize(
    ("call", "result"), [("send_offsets", ABORTED), ("commit", UNKNOWN), ("begin", ABORTED)]
)
def test_only_a_commit_without_an_answer_leaves_the_outcome_open(
    call: str, result: TransactionResult
) -> None:
    bench = Bench(**{call: [Retriable("no answer")] * 3})
    assert bench.transact() == TransactionOutcome(result, "no answer")


def test_a_commit_that_is_repeated_may_still_go_through() -> None:
    bench = Bench(commit=[Retriable("no answer"), None])
    assert bench.transact().is_committed


def test_a_commit_that_was_repeated_and_then_refused_is_unknown() -> None:
    bench = Bench(commit=[Retriable("no answer"), Abortable("no such transaction")])
    assert bench.transact() == TransactionOutcome(UNKNOWN, "no such transaction")
    assert bench.transactions.is_open
    assert bench.transactions.aborts == 0


@pytest.mark.parametrize("call", ["send_offsets", "commit"])
def test_what_the_producer_does_not_know_is_unknown(call: str) -> None:
    assert Bench(**{call: OutcomeUnknown("cut")}).transact() == TransactionOutcome(UNKNOWN, "cut")


@pytest.mark.parametrize("error", [Retriable("late"), Abortable("late"), OutcomeUnknown("late")])
def test_an_abort_that_fails_is_unknown(error: LogError) -> None:
    bench = Bench(produce=Abortable("no"), abort=[error] * 3)
    assert bench.transact() == TransactionOutcome(UNKNOWN, "late")


@pytest.mark.parametrize("call", ["produce", "commit"])
@pytest.mark.parametrize("abort", [[], [OutcomeUnknown("cut")]])
def test_a_record_that_is_rejected_is_in_the_outcome_of_the_abort(
    call: str, abort: list[LogError | None]
) -> None:
    rejected = RecordRejected("too large")
    outcome = Bench(**{call: rejected}, abort=abort).transact()
    assert outcome.rejected is rejected
    assert outcome.result is (UNKNOWN if abort else ABORTED)


@pytest.mark.parametrize("call", ["send_offsets", "commit", "abort"])
@pytest.mark.parametrize("is_late", [True, False])
def test_a_producer_is_fenced_off_by_the_log_or_by_another_process(call: str, is_late: bool) -> None:
    """By the log alone where the transaction has outlived its time."""
    bench = Bench(**({"send_offsets": Abortable("no")} if call == "abort" else {}), **{call: Fenced("old")})
    assert bench.transactions.write(Member(), MEMBER, [RECORD]) is None  # type: ignore[arg-type]
    bench.log.now_ms += TRANSACTION_TIMEOUT_MS - (0 if is_late else 1)
    if is_late:
        assert bench.transactions.commit(OFFSETS, MEMBER) == TransactionOutcome(UNKNOWN, "old")
    else:
        with pytest.raises(Fenced):
            bench.transactions.commit(OFFSETS, MEMBER)


def test_a_new_producer_begins_with_nothing_open() -> None:
    bench = Bench(commit=OutcomeUnknown("cut"))
    bench.transact()
    bench.producer.calls.clear()
    bench.transactions.replace_producer("cut")
    assert bench.producer.calls == ["close", "init"]
    assert not bench.transactions.is_open


def test_a_commit_that_was_begun_is_waited_for() -> None:
    bench = Bench()
    assert bench.transactions.write(Member(), MEMBER, [RECORD], []) is None  # type: ignore[arg-type]
    bench.transactions.begin_commit(OFFSETS, MEMBER)
    assert bench.transactions.await_commit() == TransactionOutcome(COMMITTED)
    assert bench.producer.calls == ["begin", "produce", "begin_commit", "commit"]
