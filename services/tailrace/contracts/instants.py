"""Instants as whole milliseconds since 1970: one rounding for every way in, and what is seconds by mistake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SECONDS_UNTIL_MS = 10**10
"""26 April 1970. As seconds, the numbers from 0 up to here are the times of 1970 to 2286."""

_YEAR_2200_MS = 7_258_118_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(time: datetime) -> int:
    """The nearest whole millisecond, the later one of two; UTC where the time names no zone."""
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return int((since + _MILLISECOND / 2) // _MILLISECOND)


def read_time(text: str) -> int:
    """Milliseconds of an ISO 8601 time; UTC where it names no zone.

    Raises:
        ValueError: the text is no such time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write it as 1996-05-07T00:00:00Z") from None
    return milliseconds(time)


def is_in_seconds(time_ms: int) -> bool:
    """Whether a number that is to be milliseconds lies where seconds would."""
    return 0 <= time_ms <= SECONDS_UNTIL_MS


def in_seconds(time_ms: int, name: str) -> str:
    """Why such a time is refused, and the remedy; ``name`` is the field's."""
    day = (_EPOCH + timedelta(milliseconds=time_ms)).date()
    as_seconds = (_EPOCH + timedelta(seconds=time_ms)).isoformat().replace("+00:00", "Z")
    return (
        f"{name} is {time_ms} ms, which is {day}; as seconds it is {as_seconds}. Send milliseconds since 1970, or "
        "allow such times in the contract by event_time: {early_1970: true}"
    )


def ahead(time_ms: int, appended_ms: int, skew_ms: int) -> str:
    """Why a time further ahead of its append time than the skew is refused."""
    reason = (
        f"{(time_ms - appended_ms) / 1000:,.0f} s after it was appended; {skew_ms / 1000:,.0f} s are allowed"
    )
    for power, unit in ((3, "microseconds"), (6, "nanoseconds")):
        if SECONDS_UNTIL_MS < time_ms // 10**power < _YEAR_2200_MS:
            return f"{reason}. It looks like {unit}: send milliseconds since 1970"
    return reason
