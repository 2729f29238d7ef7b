"""Waiting for what makes progress, by a clock of the test's own."""

from __future__ import annotations

import os

from tailrace.local.process import processor_time
from tailrace.runtime.patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_makes_progress_is_waited_for_without_end() -> None:
    clock = Clock()
    patience = Patience(60, clock)
    for records in range(1000):
        clock.now += 59
        assert patience.look("reading", records)


def test_what_makes_none_is_given_up_after_its_time() -> None:
    clock = Clock()
    patience = Patience(60, clock)
    assert patience.look("reading", 7)
    clock.now = 60
    assert patience.look("reading", 7)
    clock.now = 61
    assert not patience.look("reading", 7)


def test_progress_begins_the_time_anew() -> None:
    clock = Clock()
    patience = Patience(60, clock)
    patience.look(1)
    clock.now = 50
    assert patience.look(2)
    clock.now = 109
    assert patience.look(2)
    clock.now = 111
    assert not patience.look(2)


def test_a_process_that_is_gone_has_no_processor_time() -> None:
    assert processor_time(None) == 0
    assert processor_time(2**22 + 1) == 0
    assert processor_time(os.getpid()) >= 0
