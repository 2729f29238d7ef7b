"""What people read of tables that lack rows."""

from __future__ import annotations

from tailrace.clickhouse.history import GONE, remedies


def test_one_table_is_named_with_what_fills_it() -> None:
    assert remedies({"credit_requests": GONE}) == [
        "credit_requests lacks rows, since it is gone: `tailrace rebuild credit_requests`"
    ]


def test_many_tables_make_one_sentence_for_each_reason() -> None:
    lacks = dict.fromkeys(["e", "d", "c", "b", "a"], GONE) | {"z": "3 of its parts are damaged and set aside"}
    gone, damaged = remedies(lacks)
    assert gone == "a, b, c and 2 more tables lack rows (each: it is gone): `tailrace rebuild` fills them in"
    assert damaged.startswith("z lacks rows, since 3 of its parts")


def test_as_many_as_a_sentence_names_are_all_named() -> None:
    [sentence] = remedies(dict.fromkeys("abc", GONE))
    assert sentence.startswith("a, b, c lack rows")
