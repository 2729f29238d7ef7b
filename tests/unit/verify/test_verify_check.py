from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.verify.check import Growing, account, compare_rows, differences

offsets = st.lists(st.integers(0, 40), max_size=60)


def _array(values: list[int]) -> np.ndarray:
    return np.array(sorted(values), dtype=np.int64)


@given(
    st.sets(st.integers(0, 40)),
    offsets,
    st.integers(0, 20),
    st.integers(0, 20),
    st.none() | st.integers(0, 45),
)
def test_account_equals_counting_by_hand(
    requested: set[int], answered: list[int], low: int, compared_from: int, committed: int | None
) -> None:
    requested = {o for o in requested if o >= low}
    result = account(
        _array(list(requested)), _array(answered), low=low, compared_from=compared_from, committed=committed
    )
    times = Counter(o for o in answered if o >= low)
    compared = {o for o in requested if o >= compared_from}
    open_requests = {o for o in compared if not times[o]}
    lost = {o for o in open_requests if committed is not None and o < committed}
    assert set(result.requests) == compared
    assert set(result.lost) == lost
    assert set(result.in_flight) == open_requests - lost
    assert set(result.duplicated) == {o for o, n in times.items() if n > 1}
    assert set(result.unasked) == set(times) - requested


@given(st.sets(st.integers(0, 40)), offsets)
def test_rows_equal_events_or_say_which_differ(events: set[int], rows: list[int]) -> None:
    result = compare_rows(_array(list(events)), _array(rows))
    assert set(result.missing) == events - set(rows)
    assert set(result.unknown) == set(rows) - events
    assert set(result.doubled) == {o for o, n in Counter(rows).items() if n > 1}
    assert result.ok == (sorted(events) == sorted(rows))


def test_one_missing_one_doubled_one_out_of_nowhere() -> None:
    requests, answers = list(range(100)), [o for o in range(100) if o != 17] + [42, 250]
    result = account(_array(requests), _array(answers), low=0, compared_from=0, committed=100)
    assert (list(result.lost), list(result.duplicated), list(result.unasked)) == ([17], [42], [250])
    assert not result.ok


def test_growing_sorts_and_keeps_repetitions() -> None:
    growing = Growing()
    for offset in (3, 1, 3):
        growing.append(offset)
    assert list(growing.array()) == [1, 3, 3]


@pytest.mark.parametrize(
    ("logged", "again", "expected"),
    [
        ({"a": 1.0, "b": [{"c": None}]}, {"a": 1.0, "b": [{"c": None}]}, []),
        ({"a": float("nan")}, {"a": float("nan")}, []),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, ["a: 0.30000000000000004 / 0.3"]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: 1 / 2"]),
        ({"a": 0.0}, {"a": -0.0}, ["a: 0.0 / -0.0"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a: [1, 2] / [1]"]),
        ({"a": True}, {"a": 1}, ["a: True / 1"]),
        ({"a": 1}, {}, ["a: 1 / None"]),
    ],
)
def test_differences_name_the_field(logged: object, again: object, expected: list[str]) -> None:
    assert differences(logged, again) == expected
