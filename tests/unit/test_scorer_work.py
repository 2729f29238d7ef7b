"""What several versions answer to one batch goes out in the order of the requests."""

from __future__ import annotations

import numpy as np

from tailrace.kit.marks import mark
from tailrace.kit.messages import Record, Records
from tailrace.kit.spans import Spans
from tailrace.scorer.work import Work


def answers(topic: str, *positions: int) -> Records:
    return Records(
        topic, *(Spans.of([b"%s-%d" % (what, at) for at in positions]) for what in (b"value", b"key"))
    )


def written(*some: tuple[list[int], Records | list[Record]]) -> list[Record]:
    work = Work(["requests"] * 5, [0] * 5, [*range(5)], [0] * 5, 0)
    for positions, records in some:
        work.write(np.array(positions), records)
    return list(work.records())


def test_records_stand_in_the_order_of_their_messages_each_with_its_key() -> None:
    found = written(([1, 3, 4], answers("out", 1, 3, 4)), ([0, 2], answers("out", 0, 2)))
    assert found == list(answers("out", 0, 1, 2, 3, 4))


def test_records_of_two_topics_stay_in_theirs() -> None:
    found = written(([1], answers("one", 1)), ([0, 2], answers("other", 0, 2)))
    assert found == [*answers("other", 0), *answers("one", 1), *answers("other", 2)]


def test_a_mark_stands_behind_what_was_answered_to_its_message() -> None:
    told = mark("out", 0, 1_000, offset=1)
    found = written(([1, 3], answers("out", 1, 3)), ([0], answers("out", 0)), ([1], [told]))
    assert found == [*answers("out", 0, 1), told, *answers("out", 3)]


def test_nothing_written_is_no_record() -> None:
    assert written() == []
