"""Tables of ClickHouse that lack some of what their topics held, as the tables themselves say.

A table that is made again, after records for it had been stored, is made with a comment that says so;
`tailrace rebuild` fills it in from the topics and puts the time of that in the comment's place. Parts of a table that
ClickHouse found damaged when it started are set aside by it.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping

from tailrace.kit.clickhouse import ClickHouse, Store, quoted

LOST = "history lost"
GONE = "it is gone"
_REBUILT = "rebuilt "


def marked_lost(statement: str) -> str:
    """A CREATE TABLE of a table that had rows before."""
    return f"{statement} COMMENT '{LOST}'"


def mark_rebuilt(store: Store, table: str) -> None:
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
    lacks = {table: GONE for table in tables if table not in comments}
    lacks |= {
        table: "it was gone and is made again" for table, comment in comments.items() if comment == LOST
    }
    for table, parts, last in clickhouse.query(
        "SELECT table, count(), toString(max(modification_time), 'UTC') FROM system.detached_parts"
        " WHERE database = {database:String} AND startsWith(coalesce(reason, ''), 'broken') GROUP BY table",
        {"database": clickhouse.database},
    ).rows:
        if comments.get(table, "").removeprefix(_REBUILT) <= last:
            lacks.setdefault(table, f"{parts} of its parts are damaged and set aside")
    return lacks


def remedies(lacks: Mapping[str, str]) -> list[str]:
    """What `lacking` has found, a sentence for each table, for people."""
    return [
        f"{table} lacks rows, since {why}: `tailrace rebuild {table}`" for table, why in sorted(lacks.items())
    ]


def _comments(clickhouse: ClickHouse) -> dict[str, str]:
    return dict(
        clickhouse.query(
            "SELECT name, comment FROM system.tables WHERE database = {database:String}",
            {"database": clickhouse.database},
        ).rows
    )
