"""How many records a batch may have, and how it is fetched."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tailrace.streaming.batches import FILL_WAIT_S, FIRST_BATCH, IDLE_WAIT_S, BatchLimit, fetch, last_of
from tailrace.streaming.bounds import Bounds
from tailrace.streaming.records import Message, PlainMessage, TopicPartition

BOUNDS = Bounds(records=1_000, size=1_000, seconds=1.0)


def test_a_full_batch_that_is_far_within_bounds_doubles_the_limit_up_to_the_most() -> None:
    limit = BatchLimit(BOUNDS, max_batch=350)
    assert limit.limit == FIRST_BATCH
    for expected in (200, 350, 350):
        assert limit.learn(limit.limit, 1, 1, 0.1) is None
        assert limit.limit == expected


@pytest.mark.parametrize(
    "came_to", [(99, 1, 1, 0.1), (100, 501, 1, 0.1), (100, 1, 501, 0.1), (100, 1, 1, 0.6)]
)
def test_a_batch_that_is_not_full_or_nearer_to_the_bounds_leaves_the_limit(
    came_to: tuple[int, int, int, float],
) -> None:
    limit = BatchLimit(BOUNDS, max_batch=1_000)
    assert limit.learn(*came_to) is None
    assert limit.limit == FIRST_BATCH


def test_a_batch_that_took_too_long_shortens_the_next() -> None:
    limit = BatchLimit(BOUNDS, max_batch=1_000)
    assert limit.learn(100, 1, 1, 5.0) is None
    assert limit.limit == 10
    limit.learn(2, 1, 1, 60.0)
    assert limit.limit == 1


@pytest.mark.parametrize("written", [(1_001, 1), (1, 1_001)])
def test_a_batch_that_comes_to_too_much_is_taken_again_in_halves_down_to_one_record(
    written: tuple[int, int],
) -> None:
    limit = BatchLimit(BOUNDS, max_batch=1_000)
    assert "too many" in (limit.learn(100, *written, 0.1) or "")
    assert limit.limit == 50
    assert limit.learn(1, *written, 0.1) is None


class Waiting:
    """A consumer that has so many messages at each call."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)
        self.calls: list[tuple[int, float]] = []

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        self.calls.append((limit, timeout_s))
        return [PlainMessage("requests", 0, at, b"") for at in range(min(limit, self.counts.pop(0)))]


@pytest.mark.parametrize(
    ("counts", "is_full", "linger_s", "calls"),
    [
        ([10], True, 0.0, [(10, FILL_WAIT_S)]),
        ([4], False, 0.0, [(10, 0)]),
        ([4, 3], False, 0.2, [(10, 0), (6, 0.2)]),
        ([10], False, 0.2, [(10, 0)]),
        ([0, 0], False, 0.2, [(10, 0), (1, IDLE_WAIT_S)]),
        ([0, 1, 5], False, 0.0, [(10, 0), (1, IDLE_WAIT_S), (9, 0.0)]),
    ],
)
def test_a_batch_waits_only_for_what_is_known_or_allowed_to_come(
    counts: list[int], is_full: bool, linger_s: float, calls: list[tuple[int, float]]
) -> None:
    consumer = Waiting(*counts)
    messages = fetch(consumer, 10, is_full=is_full, linger_s=linger_s)  # type: ignore[arg-type]
    assert consumer.calls == calls
    assert len(messages) == sum(counts)


def test_a_single_record_is_not_topped_up() -> None:
    consumer = Waiting(0, 1)
    fetch(consumer, 1, is_full=False, linger_s=0.2)  # type: ignore[arg-type]
    assert consumer.calls == [(1, 0), (1, IDLE_WAIT_S)]


def test_the_last_message_of_each_partition() -> None:
    messages = [PlainMessage("requests", p, at, b"") for p, at in ((0, 1), (1, 7), (0, 2))]
    last = last_of(messages)
    assert last == {TopicPartition("requests", 0): messages[2], TopicPartition("requests", 1): messages[1]}
