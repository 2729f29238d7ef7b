"""Tables of ClickHouse that lack some of what their topics held, as the tables themselves say.

A table that is made again, after records for it had been stored, is made with a comment that says so;
`tailrace rebuild` fills it in from the topics and puts the time of that in the comment's place. Parts of a table that
ClickHouse found damaged when it started are set aside by it.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping

from tailrace.clickhouse.client import ClickHouse, RowStore, quoted

LOST = "history lost"
GONE = "it is gone"
_REBUILT = "rebuilt "
_NAMED = 3
"""Tables that a sentence names: all twenty of a home make no sentence."""


def marked_lost(statement: str) -> str:
    """A CREATE TABLE of a table that had rows before."""
    return f"{statement} COMMENT '{LOST}'"


def mark_rebuilt(store: RowStore, table: str) -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    store.command(f"ALTER TABLE {quoted(table)} MODIFY COMMENT '{_REBUILT}{now}'")


def names_of_tables(clickhouse: ClickHouse) -> set[str]:
    return set(_comments(clickhouse))


def lacking(clickhouse: ClickHouse, tables: Collection[str] = ()) -> dict[str, str]:
    """By table that lacks rows, why it does.

    Args:
        tables: that should be there; the sink makes one that is not when it next has a row for it.
    """
    if not clickhouse.has_database():
        return dict.fromkeys(tables, GONE)
    comments = _comments(clickhouse)
    again = [table for table, comment in comments.items() if comment == LOST]
    lacks = {table: GONE for table in tables if table not in comments}
    lacks |= dict.fromkeys(again, "it was gone and is made again")
    for table, parts, last in clickhouse.query(
        "SELECT table, count(), toString(max(modification_time), 'UTC') FROM system.detached_parts"
        " WHERE database = {database:String} AND startsWith(coalesce(reason, ''), 'broken') GROUP BY table",
        {"database": clickhouse.database},
    ).rows:
        if comments.get(table, "").removeprefix(_REBUILT) <= last:
            lacks.setdefault(table, f"{parts} of its parts are damaged and set aside")
    return lacks


def remedies(lacks: Mapping[str, str]) -> list[str]:
    """What `lacking` has found, for people: a sentence for each reason, with the first tables that it holds for."""
    tables_by_reason: dict[str, list[str]] = {}
    for table, why in sorted(lacks.items()):
        tables_by_reason.setdefault(why, []).append(table)
    return [
        f"{tables[0]} lacks rows, since {why}: `tailrace rebuild {tables[0]}`"
        if len(tables) == 1
        else f"{', '.join(tables[:_NAMED])}{_others(tables)} lack rows (each: {why}): `tailrace rebuild` fills them in"
        for why, tables in tables_by_reason.items()
    ]


def _others(tables: Collection[str]) -> str:
    return f" and {len(tables) - _NAMED} more tables" if len(tables) > _NAMED else ""


def _comments(clickhouse: ClickHouse) -> dict[str, str]:
    sql = "SELECT name, comment FROM system.tables WHERE database = {database:String}"
    return dict(clickhouse.query(sql, {"database": clickhouse.database}).rows)
