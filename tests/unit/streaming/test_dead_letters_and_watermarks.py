from __future__ import annotations

import hashlib

import pytest

from tailrace.streaming import dead_letters
from tailrace.streaming import watermark_records as marks
from tailrace.streaming.records import DeadLetter, PlainMessage, Record, RecordRef


def carried(record: Record) -> PlainMessage:
    """What a reader gets of ``record``."""
    return PlainMessage(record.topic, 0, 7, record.value, record.key, record.headers)


def test_a_dead_letter_carries_the_message_and_says_what_was_wrong() -> None:
    message = PlainMessage(
        "credit.requests", 3, 42, b"\x00broken", b"loan-1", [("trace", b"abc"), ("tailrace-code", b"x")]
    )
    letter = DeadLetter("credit.dead-letters", message, "truncated", "the Avro ends early", "income")
    record = dead_letters.to_record(letter, "scorer")
    assert (record.topic, record.key, record.value) == ("credit.dead-letters", b"loan-1", b"\x00broken")

    info = dead_letters.parse(carried(record))
    assert info.code == "truncated"
    assert info.reason == "the Avro ends early"
    assert info.field == "income"
    assert info.source == RecordRef("credit.requests", 3, 42)
    assert info.service == "scorer"
    assert info.headers == [("trace", b"abc")]
    assert info.sha256 is None


def test_a_large_message_is_cut_and_its_digest_kept() -> None:
    value = b"x" * (dead_letters.VALUE_LIMIT + 1)
    letter = DeadLetter("l.dead-letters", PlainMessage("l.requests", 0, 0, value), "too-large", "2 MB")
    info = dead_letters.parse(carried(dead_letters.to_record(letter, "scorer")))
    assert info.value == value[: dead_letters.VALUE_LIMIT]
    assert info.sha256 == hashlib.sha256(value).hexdigest()


def test_a_large_key_and_large_headers_are_cut() -> None:
    limit = dead_letters.VALUE_LIMIT
    headers = [("a", b"1"), ("b", b"x" * limit), ("c", b"3")]
    message = PlainMessage("l.requests", 0, 0, b"v", b"k" * (2 * limit), headers)
    record = dead_letters.to_record(DeadLetter("l.dead-letters", message, "too-large", "why"), "scorer")
    info = dead_letters.parse(carried(record))
    assert info.key == b"k" * limit
    assert info.headers == [("a", b"1")]


def test_what_is_no_dead_letter_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="is not a dead letter"):
        dead_letters.parse(PlainMessage("l.dead-letters", 0, 0, b"x"))


@pytest.mark.parametrize("time_ms", [0, 1_700_000_000_123, -1])
def test_a_mark_tells_its_time(time_ms: int) -> None:
    assert marks.watermark_time(carried(marks.watermark_record("l.requests", 2, time_ms))) == time_ms


def test_other_messages_are_no_marks() -> None:
    assert marks.watermark_time(PlainMessage("l.requests", 0, 0, None)) is None
    assert (
        marks.watermark_time(PlainMessage("l.requests", 0, 0, None, headers=[(marks.HEADER, b"soon")]))
        is None
    )
    far = b"%d" % 2**62  # more than a clock can hold
    assert marks.watermark_time(PlainMessage("l.requests", 0, 0, None, headers=[(marks.HEADER, far)])) is None
    assert (
        marks.watermark_time(PlainMessage("l.requests", 0, 0, b"v", headers=[(marks.HEADER, b"1")])) is None
    )


def test_what_says_two_times_is_no_mark_and_two_streams_are_none() -> None:
    two = [(marks.HEADER, b"5"), (marks.HEADER, b"6")]
    assert marks.watermark_time(PlainMessage("l.requests", 0, 0, None, headers=two)) is None
    record = marks.watermark_record("l.outcomes", 0, 5, stream="predictions", offset=3)
    again = PlainMessage("l.outcomes", 0, 0, None, headers=[*record.headers, *record.headers[1:]])
    assert (marks.watermark_time(again), marks.watermark_stream(again), marks.watermark_offset(again)) == (
        5,
        None,
        None,
    )
