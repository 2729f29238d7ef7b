"""What several versions answer to one batch goes out in the order of the requests."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.scorer.batch import Batch
from tailrace.streaming.records import Record, Records, Runs
from tailrace.streaming.watermark_records import watermark_record


def answers(topic: str, *positions: int) -> Records:
    return Records(
        topic, *(BytesColumn.of([b"%s-%d" % (what, at) for at in positions]) for what in (b"value", b"key"))
    )


def written(*pairs: tuple[list[int], Records | list[Record]]) -> list[Record]:
    work = Batch(["requests"] * 5, [0] * 5, [*range(5)], [0] * 5, 0)
    for positions, records in pairs:
        work.write(np.array(positions), records)
    return list(work.records())


def test_records_stand_in_the_order_of_their_messages_each_with_its_key() -> None:
    records = written(([1, 3, 4], answers("out", 1, 3, 4)), ([0, 2], answers("out", 0, 2)))
    assert records == list(answers("out", 0, 1, 2, 3, 4))


def test_records_of_two_topics_stay_in_theirs() -> None:
    records = written(([1], answers("one", 1)), ([0, 2], answers("other", 0, 2)))
    assert records == [*answers("other", 0), *answers("one", 1), *answers("other", 2)]


def test_a_mark_stands_behind_what_was_answered_to_its_message() -> None:
    watermark = watermark_record("out", 0, 1_000, offset=1)
    records = written(([1, 3], answers("out", 1, 3)), ([0], answers("out", 0)), ([1], [watermark]))
    assert records == [*answers("out", 0, 1), watermark, *answers("out", 3)]


@given(
    st.binary(min_size=400, max_size=400).map(lambda chosen: [byte % 4 for byte in chosen]),
    st.lists(st.integers(0, 399), max_size=9).map(sorted),
)
def test_marks_stand_among_answers_of_several_versions(owners: list[int], watermark: list[int]) -> None:
    """Each message is answered by one of three versions, or by none; marks may be anywhere."""
    work = Batch(["requests"] * 400, [0] * 400, [*range(400)], [0] * 400, 0)
    expected = []
    for owner in (0, 1, 2):
        positions = [at for at, who in enumerate(owners) if who == owner]
        if positions:
            work.write(np.array(positions), answers("out", *positions))
            expected += list(zip(positions, answers("out", *positions), strict=True))
    marks = [(at, watermark_record("out", 0, at, offset=at)) for at in watermark]
    if marks:
        work.write(np.array(watermark), [record for _, record in marks])
    expected = [record for _, record in sorted([*expected, *marks], key=lambda each: each[0])]
    records = work.records()
    assert list(records) == expected
    assert len(records) == len(expected)
    assert [*records[:1], *(records[at] for at in range(1, len(records)))] == expected


def test_a_mark_among_thousands_of_answers_costs_these_nothing() -> None:
    work = Batch(["requests"] * 5_000, [0] * 5_000, [*range(5_000)], [0] * 5_000, 0)
    work.write(np.arange(5_000), answers("out", *range(5_000)))
    work.write(np.array([3_000]), [watermark_record("out", 0, 1_000, offset=3_000)])
    records = work.records()
    assert isinstance(records, Runs)
    assert [len(run) for run in records.runs] == [3_001, 1, 1_999]
    assert [isinstance(run, Records) for run in records.runs] == [True, False, True]


def test_nothing_written_is_no_record() -> None:
    assert written() == []
