"""Why an event time is refused: in which unit it may have been sent by mistake."""

from __future__ import annotations

import pytest

from tailrace.contracts.instants import ahead, is_in_seconds

NOW = 1_767_225_600_000


@pytest.mark.parametrize(
    ("time", "unit"),
    [(NOW * 1_000, "microseconds"), (NOW * 1_000_000, "nanoseconds"), (NOW + 600_000, None), (NOW * 3, None)],
)
def test_a_time_far_ahead_is_told_with_the_unit_that_it_looks_like(time: int, unit: str | None) -> None:
    reason = ahead(time, NOW, 300_000)
    assert "300 s are allowed" in reason
    assert [word for word in ("microseconds", "nanoseconds") if word in reason] == ([unit] if unit else [])


@pytest.mark.parametrize(
    ("time", "expected"),
    [(-1, False), (0, True), (NOW // 1000, True), (10**10, True), (10**10 + 1, False), (NOW, False)],
)
def test_seconds_are_told_by_where_they_lie(time: int, expected: bool) -> None:
    assert is_in_seconds(time) is expected
