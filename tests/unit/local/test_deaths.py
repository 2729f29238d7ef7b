"""How a program ended: how often, when, why in one sentence, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tailrace.local.deaths import LOOP_DEATHS, LOOP_S, Deaths, ended, last_error, report, sentence

NOW = 1_800_000_000.0


def _log(level: str, message: str, **more: Any) -> str:
    return json.dumps({"time": "t", "level": level, "service": "s", "logger": "l", "message": message} | more)


def _died(*before_now: float, status: int = 1, lines: tuple[str, ...] = ()) -> Deaths:
    deaths = Deaths()
    for seconds in sorted(before_now, reverse=True):
        deaths.add("joiner", NOW - seconds, status, lines)
    return deaths


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (
            (_log("info", "started"), _log("critical", "the topic is gone. Make it"), _log("info", "bye")),
            "the topic is gone. Make it",
        ),
        ((_log("critical", "cannot go on", reason="fenced"),), "cannot go on (fenced)"),
        (
            (_log("critical", "a bug", exception="Traceback (most recent call last):\n  x\nKeyError: 'a'"),),
            "a bug (KeyError: 'a')",
        ),
        (("Traceback (most recent call last):", "  File x", "tailrace.errors.TailraceError: no"), None),
        (("tailrace: the folders of joiner cannot be made ([Errno 13] Permission denied)",), None),
        (
            ("[2026-11-30T08:00:00,123] ERROR LogDirFailureChannel Error while writing", "  at kafka.log"),
            None,
        ),
        (("Segmentation fault",), "Segmentation fault"),
        (
            ("tailrace.errors.Unavailable: Kafka is away", "and then some"),
            "tailrace.errors.Unavailable: Kafka is away",
        ),
        ((), ""),
    ],
)
def test_the_last_error_of_each_kind_of_log(lines: tuple[str, ...], error: str | None) -> None:
    if error is None:
        error = next(line for line in lines if any(w in line for w in ("Error", "ERROR", "tailrace: ")))
        error = error.removeprefix("tailrace: ").partition(" ERROR ")[2] or error.removeprefix("tailrace: ")
    assert last_error(lines) == error


def test_an_exit_status_in_words() -> None:
    assert ended(-9) == "it was killed by SIGKILL"
    assert ended(1) == "exit code 1"
    assert "setting" in ended(2)
    assert "signal 99" in ended(-99)


def test_a_crash_loop_is_many_deaths_within_minutes() -> None:
    assert report(_died(*range(LOOP_DEATHS)).record(), NOW) == {
        "times": LOOP_DEATHS,
        "lately": LOOP_DEATHS,
        "last": "2027-01-15T08:00:00+00:00",
        "why": "exit code 1",
        "remedy": "Remove the cause, and it comes back by itself; its log: `tailrace logs joiner`",
        "crash_loop": True,
    }
    few = report(_died(*range(LOOP_DEATHS - 1)).record(), NOW)
    long_ago = report(_died(*(LOOP_S + n for n in range(1, 13))).record(), NOW)
    assert few
    assert not few["crash_loop"]
    assert long_ago
    assert (long_ago["times"], long_ago["lately"], long_ago["crash_loop"]) == (12, 0, False)


def test_who_never_died_has_nothing_to_say() -> None:
    assert report(Deaths().record(), NOW) is None


def test_what_is_said_to_people_is_one_sentence_and_what_to_do() -> None:
    lines = ("tailrace: the folders of joiner in the home x cannot be made: correct its rights.",)
    deaths = report(_died(*range(13), lines=lines).record(), NOW)
    assert deaths
    assert sentence("joiner", deaths) == (
        "joiner died 13 times, 13 of them within 5 minutes, last at 2027-01-15T08:00:00+00:00: exit code 1: the "
        "folders of joiner in the home x cannot be made: correct its rights. Remove the cause, and it comes back by "
        "itself; its log: `tailrace logs joiner`"
    )


@pytest.mark.parametrize(
    ("status", "lines", "remedy"),
    [
        (1, ("java.io.IOException: No space left on device",), "Free some of the disk or the quota"),
        (1, ("OSError: [Errno 24] Too many open files",), "Raise the limit of open files"),
        (-9, (), "the kernel did for want of memory"),
        (2, ("tailrace: TAILRACE_MAX_BATCH must be a number",), "Correct the setting"),
    ],
)
def test_what_to_do_follows_from_how_it_ended(status: int, lines: tuple[str, ...], remedy: str) -> None:
    deaths = report(_died(0, status=status, lines=lines).record(), NOW)
    assert deaths
    assert remedy in deaths["remedy"]


def test_a_full_disk_is_the_reason_also_where_more_was_written_after_it() -> None:
    lines = (
        "[2026-11-30 08:00:00,123] ERROR LogDirFailureChannel Error while appending",
        "java.io.IOException: No space left on device",
        *["\tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)"] * 20,
        "[2026-11-30 08:00:00,125] FATAL LogManager Shutdown broker because all log dirs have failed",
    )
    assert (
        last_error(lines)
        == "LogManager Shutdown broker because all log dirs have failed (No space left on device)"
    )


def test_what_cannot_be_started_says_why() -> None:
    deaths = Deaths()
    deaths.not_started(
        "kafka", NOW, "port 19092 for Kafka is taken by another program: stop it, or choose another"
    )
    deaths_report = report(deaths.record(), NOW)
    assert deaths_report
    assert deaths_report["why"].startswith("it cannot be started: port 19092 for Kafka is taken")
