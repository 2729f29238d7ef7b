"""Plans: what fits into a commit's metadata, and that it comes out as it went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace.sink.plan import InsertPlan, make_plan
from tailrace.streaming.backends.abstract import MAX_METADATA_BYTES
from tailrace.streaming.records import TopicPartition

RECORDS = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=60)


@given(st.integers(0, 10**15), RECORDS)
def test_a_plan_says_which_records_are_unreadable(start: int, gaps: list[tuple[int, bool]]) -> None:
    offset, records = start, []
    for gap, readable in gaps:
        records.append((offset, readable))
        offset += gap
    plan = make_plan(start, records)
    assert plan.end == records[-1][0] + 1
    assert InsertPlan.unpack(start, plan.pack()) == plan
    assert [plan.is_unreadable(at) for at, _ in records] == [not readable for _, readable in records]


def test_a_plan_is_cut_to_what_the_metadata_holds() -> None:
    records = [(offset, offset % 2 == 0) for offset in range(1_000, 21_000)]
    start, planned = 1_000, 0
    while start < 21_000:
        plan = make_plan(start, [record for record in records if record[0] >= start])
        assert len(plan.pack()) <= MAX_METADATA_BYTES
        assert plan.end > start
        for offset in range(start, plan.end):
            assert plan.is_unreadable(offset) == (offset % 2 == 1)
        start, planned = plan.end, planned + 1
    assert planned < 60


def test_many_unreadable_in_a_row_are_one_range() -> None:
    plan = make_plan(0, [(offset, False) for offset in range(0, 40_000, 2)])
    assert plan.unreadable == ((0, 39_998),)
    assert plan.end == 39_999


def test_no_plan_is_pending_without_metadata() -> None:
    assert InsertPlan.unpack(5, "") is None


def test_the_token_names_partition_and_range() -> None:
    assert InsertPlan(5, 9).token(TopicPartition("credit.requests", 2)) == "credit.requests/2/5/9"
