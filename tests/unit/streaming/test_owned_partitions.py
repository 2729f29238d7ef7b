"""What is kept account of of the partitions that an instance owns."""

from __future__ import annotations

import pytest

from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.crash_history import (
    ALONE_AFTER,
    ALONE_DEATHS,
    MAX_FACTS_BYTES,
    NO_DEATHS,
    CrashHistory,
    pack,
)
from tailrace.streaming.owned_partitions import FIRST_S, PAUSE_S, OwnedPartitions
from tailrace.streaming.processor import Output
from tailrace.streaming.records import PausedPartition, PlainMessage, Record, TopicPartition

A, B = TopicPartition("requests", 0), TopicPartition("requests", 1)
S = 1_000_000_000


def owned(a: str = "", b: str = "") -> OwnedPartitions:
    """Two partitions at offset 5, with these metadata."""
    partitions = OwnedPartitions()
    partitions.assign({A: Committed(5, a), B: Committed(5, b)}, now=0)
    return partitions


def message(offset: int, tp: TopicPartition = A) -> PlainMessage:
    return PlainMessage(tp.topic, tp.partition, offset, b"")


def died(deaths: int, until: int = 9) -> str:
    return pack(CrashHistory(deaths, until), "facts")


def test_a_batch_commits_to_its_end_and_leaves_the_facts_that_it_does_not_name() -> None:
    assert owned("facts").offsets(Output(), {A: message(7)}) == {A: Committed(8, "facts")}


def test_a_batch_commits_up_to_where_a_partition_is_paused() -> None:
    output = Output(paused={A: PausedPartition(6, "no model")}, metadata="new")
    assert owned().offsets(output, {A: message(7), B: message(5, B)}) == {
        A: Committed(6, "new"),
        B: Committed(6, "new"),
    }


def test_a_partition_that_is_paused_at_its_start_commits_nothing_unless_it_was_announced() -> None:
    partitions, output = owned(), Output(paused={A: PausedPartition(5, "no model")})
    assert partitions.offsets(output, {A: message(7)}) == {}
    partitions.announced([A])
    assert partitions.offsets(output, {A: message(7)}) == {A: Committed(5)}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (Output(paused={B: PausedPartition(5, "")}), "paused, but not in the batch"),
        (Output(paused={A: PausedPartition(4, "")}), "paused at 4"),
        (Output(paused={A: PausedPartition(9, "")}), "paused at 9"),
        (Output(metadata="m" * (MAX_FACTS_BYTES + 1)), "metadata of more than"),
    ],
)
def test_an_output_that_cannot_be_committed_is_a_bug(output: Output, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        owned().offsets(output, {A: message(7)})


def test_records_without_offsets_are_a_bug() -> None:
    with pytest.raises(ValueError, match="without any fact"):
        owned().offsets(Output([Record("answers", b"")]), {})


def test_a_first_batch_is_announced_once_and_can_be_taken_back() -> None:
    partitions = owned("facts")
    announcements = partitions.announcements({A: message(7)}, (), is_news=False)
    assert announcements == {A: Committed(5, pack(CrashHistory(1, 7), "facts"))}
    assert partitions.retractions([A]) == {}
    partitions.announced(announcements)
    assert partitions.announcements({A: message(7)}, (), is_news=False) == {}
    assert partitions.retractions([A, B]) == {A: Committed(5, "facts")}


def test_a_partition_that_was_committed_is_announced_only_with_news() -> None:
    partitions = owned()
    partitions[A].advance(Committed(8))
    assert partitions.are_plain([A])
    assert not partitions.are_plain([A, B])
    assert partitions.announcements({A: message(9)}, (), is_news=False) == {}
    announced = partitions.announcements({A: message(9)}, ["credit/2"], is_news=True)
    assert announced == {A: Committed(8, pack(CrashHistory(1, 9, {"credit/2": 1}), ""))}


def test_a_partition_at_which_processes_died_comes_first_for_a_while() -> None:
    partitions = owned(died(1))
    assert partitions.behind_first(now=0) == {B}
    assert partitions.behind_first(now=int(FIRST_S * S)) == set()
    partitions.pause({A: PausedPartition(5, "no model")}, now=0)
    assert partitions.behind_first(now=0) == set()
    assert owned().behind_first(now=0) == set()


def test_a_paused_partition_is_offered_later_and_later_until_it_moves() -> None:
    partitions, waits = owned(), []
    for _ in range(6):
        partitions.pause({A: PausedPartition(5, "no model")}, now=0)
        waits.append(partitions[A].offer_at / S)
        assert not partitions.takes(A)
        assert partitions.take_due(now=partitions[A].offer_at - 1) == []
        assert partitions.take_due(now=partitions[A].offer_at) == [A]
        assert partitions.takes(A)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == PAUSE_S
    partitions[A].advance(Committed(6))
    partitions.pause({A: PausedPartition(6, "no model")}, now=0)
    assert partitions[A].offer_at == PAUSE_S[0] * S
    partitions.offer_all()
    assert partitions.paused_for() == "requests waits: no model"
    partitions.suspended = {A}
    assert partitions.take_due(now=0) == []


def test_the_backlog_is_what_waits_behind_the_commit_that_is_under_way() -> None:
    partitions, ends = owned(), {A: 12, B: None}
    assert partitions.backlog(ends.get, {}, 100) == 7
    assert partitions.backlog(ends.get, {A: Committed(10)}, 100) == 2
    assert partitions.backlog(ends.get, {}, 3) == 3
    partitions.pause({A: PausedPartition(5, "")}, now=0)
    assert partitions.backlog(ends.get, {}, 100) == 0


@pytest.mark.parametrize(
    ("deaths", "is_alone", "is_poison"),
    [
        (ALONE_AFTER - 1, False, False),
        (ALONE_AFTER, True, False),
        (ALONE_AFTER + ALONE_DEATHS, True, True),
    ],
)
def test_a_record_is_taken_alone_and_then_not_at_all(deaths: int, is_alone: bool, is_poison: bool) -> None:
    partitions = owned(died(deaths))
    assert partitions.any_alone() == is_alone
    assert (partitions.taken_alone([message(5)]) is not None) == is_alone
    assert partitions.taken_alone([message(5), message(6)]) is None
    assert partitions.taken_alone([message(5, B)]) is None
    assert (partitions[A].poison_reason is not None) == is_poison
    partitions[A].advance(Committed(6))
    assert partitions[A].poison_reason is None


def test_what_is_found_committed_after_an_unknown_outcome_is_believed() -> None:
    partitions = owned(died(2))
    partitions[A].believe(Committed(5, pack(CrashHistory(1, 7), "others")))
    assert (partitions[A].metadata, partitions[A].crash_history.deaths) == ("others", 2)
    partitions[A].believe(Committed(8, "new"))
    assert (partitions[A].position, partitions[A].metadata) == (8, "new")
    assert partitions[A].crash_history == NO_DEATHS
    assert partitions[A].proven


def test_a_partition_that_was_revoked_is_forgotten() -> None:
    partitions = owned()
    partitions.suspended = {A, B}
    partitions.revoke([A, TopicPartition("never", 0)])
    assert partitions.positions() == {B: 5}
    assert partitions.suspended == {B}
    assert not partitions.takes(A)
