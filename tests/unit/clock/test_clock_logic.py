"""When a partition is silent, when traffic is of now, and who tells a lane the time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tailrace.clock.silence import LIVE_FOR_MS, LIVE_WITHIN_MS, SILENT_MS, Silence, Traffic
from tailrace.contracts.state.lane_clocks import LaneClock, LaneClocks, record_of
from tailrace.streaming.records import TopicPartition

ONE, TWO = TopicPartition("a.requests", 0), TopicPartition("a.labels", 0)
OTHER_LANE = TopicPartition("b.requests", 0)


def test_a_partition_is_told_the_time_once_it_has_been_silent_and_again_while_it_lasts() -> None:
    silence = Silence()
    assert silence.broken_at({ONE: 7}, 100_000) == {}
    assert silence.broken_at({ONE: 7}, 100_000 + SILENT_MS - 1) == {}
    assert silence.broken_at({ONE: 7}, 100_000 + SILENT_MS) == {ONE: 100_000}
    # The mark lies at 7.
    assert silence.broken_at({ONE: 8}, 100_000 + 2 * SILENT_MS - 1) == {}
    assert silence.broken_at({ONE: 8}, 100_000 + 2 * SILENT_MS) == {ONE: 100_000 + SILENT_MS}


def test_traffic_and_strangers_marks_break_the_silence() -> None:
    silence = Silence()
    silence.broken_at({ONE: 7, TWO: 1}, 0)
    assert silence.broken_at({ONE: 9, TWO: 1}, SILENT_MS) == {TWO: 0}
    assert silence.broken_at({ONE: 9, TWO: 2}, SILENT_MS + 1) == {}


def _marks(silence: Silence, ends: dict[TopicPartition, int], start_ms: int, for_ms: int) -> list[int]:
    """When partition ONE gets watermark records, looked at once a second; ``ends`` is kept up to date."""
    at = []
    for now in range(start_ms, start_ms + for_ms, 1_000):
        for partition in silence.broken_at(ends, now):
            ends[partition] += 1
            if partition == ONE:
                at.append(now)
    return at


def test_an_idle_lane_is_marked_ever_more_rarely_and_once_a_minute_at_least() -> None:
    silence, ends = Silence(), {ONE: 0, TWO: 0}
    first_hour = _marks(silence, ends, 0, 3_600_000)
    gaps = [after - before for before, after in pairwise(first_hour)]
    assert gaps[0] == SILENT_MS
    assert gaps == sorted(gaps)
    assert gaps[-1] == 60_000
    assert all(
        gap <= max(SILENT_MS, after / 12 + 1_000) for gap, after in zip(gaps, first_hour[1:], strict=True)
    )
    # What it was before: 720 an hour.
    assert len(_marks(silence, ends, 3_600_000, 3_600_000)) == 60


def test_whatever_comes_to_an_idle_lane_has_all_of_its_partitions_told_the_time_at_once() -> None:
    silence, ends = Silence(), {ONE: 0, TWO: 0, OTHER_LANE: 0}
    _marks(silence, ends, 0, 3_600_000)
    before = silence.seen[OTHER_LANE]
    ends[TWO] += 1  # a label
    now = 3_600_000 + SILENT_MS
    assert silence.broken_at(ends, now) == {ONE: now - SILENT_MS}
    ends[ONE] += 1
    assert _marks(silence, ends, now + 1_000, 60_000) == list(range(now + 5_000, now + 61_000, 5_000))
    assert silence.seen[OTHER_LANE][0] <= before[0] + 2, "another lane is as idle as before"


def test_a_partition_that_comes_back_is_watched_anew() -> None:
    silence = Silence()
    silence.broken_at({ONE: 7}, 0)
    silence.broken_at({}, 1)
    assert silence.broken_at({ONE: 7}, SILENT_MS) == {}


@given(st.lists(st.tuples(st.integers(1, 4000), st.booleans()), max_size=60))
def test_no_partition_is_left_untold_and_none_is_told_a_time_that_is_not_over(
    ticks: list[tuple[int, bool]],
) -> None:
    silence, now, end, last, came = Silence(), 0, 0, 0, 0
    silence.broken_at({ONE: 0}, 0)
    for passed, comes in ticks:
        now += passed
        if comes:
            end += 1
            last = came = now
        for time in silence.broken_at({ONE: end}, now).values():
            assert last <= time <= now - SILENT_MS
            end += 1
            last = now
        assert now - last < max(SILENT_MS, (now - came) / 12)


def test_requests_of_now_for_a_while_are_live_and_a_lone_one_is_not() -> None:
    traffic = Traffic()
    assert not traffic.is_live("a", 1_000, 1_000)
    assert not traffic.is_live("a", 0, LIVE_FOR_MS - 1)
    assert not traffic.is_live("b", 0, LIVE_FOR_MS + 1)
    assert traffic.is_live("a", 900, 1_000 + LIVE_FOR_MS)


def test_history_is_not_live_and_begins_the_count_anew() -> None:
    traffic = Traffic()
    traffic.is_live("a", 0, 0)
    assert not traffic.is_live("a", 0, LIVE_WITHIN_MS + 1)
    late = LIVE_WITHIN_MS + 2 + LIVE_FOR_MS
    assert not traffic.is_live("a", late, late)
    assert traffic.is_live("a", late, late + LIVE_FOR_MS)


def test_of_a_lane_the_last_clock_counts() -> None:
    clocks = LaneClocks()
    assert not clocks.is_replayed("a")
    clocks.apply(record_of("a", LaneClock("wall", "clock", 1)))
    assert not clocks.is_replayed("a")
    clocks.apply(record_of("a", LaneClock("replay", "ada", 2, 2)))
    assert clocks.is_replayed("a")
    assert not clocks.is_replayed("b")
    assert not clocks.apply(record_of("a", LaneClock("wall", "clock", 1)))  # the first, once more
    assert not clocks.apply(record_of("a", LaneClock("wall", "clock", 3, 4)))
    assert clocks.current["a"] == LaneClock("replay", "ada", 2, 2)
    leaping = record_of("a", LaneClock("wall", "clock", 3, 3)) | {"revision": 9}
    assert not clocks.apply(leaping), "nothing could follow it"
    assert clocks.apply(record_of("a", LaneClock("wall", "clock", 3, 3)))
