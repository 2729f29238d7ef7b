"""Which report the view of the latest ones shows, by DuckDB, which has ClickHouse's LIMIT BY under another name."""

from __future__ import annotations

import re
from typing import Any

import duckdb
import pytest

from tailrace.clickhouse.views import ensure_views

IMMATURE, MATURE = False, True


class Store:
    """Keeps what it is told to do."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def columns(self, table: str) -> dict[str, str]:
        return {}

    def command(self, statement: str) -> None:
        self.statements.append(statement)


def latest(rows: list[tuple[bool, int, int]]) -> tuple[bool, int, int]:
    """Of reports (whether enough labels are in, end of the window, age in hours) about one version, the one shown."""
    store: Any = Store()
    _, statement = ensure_views(store, "m")
    asked = re.search(r"AS\nSELECT \* FROM \S+\nORDER BY (.+) LIMIT 1 BY (.+)$", statement)
    assert asked is not None
    order, by = asked.groups()
    connection = duckdb.connect(":memory:")
    connection.execute(
        "CREATE TABLE reports (mature BOOLEAN, window_end BIGINT, age_hours BIGINT, version BIGINT, role VARCHAR, "
        "segment VARCHAR, metric VARCHAR)"
    )
    connection.executemany("INSERT INTO reports VALUES (?, ?, ?, 1, 'champion', '', 'auc')", rows)
    sql = "SELECT mature, window_end, age_hours FROM reports QUALIFY row_number() OVER (PARTITION BY"
    [row] = connection.execute(f"{sql} {by} ORDER BY {order}) = 1").fetchall()
    connection.close()
    mature, window_end, age_hours = row
    return mature, window_end, age_hours


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([(MATURE, 1, 24), (MATURE, 2, 1)], (MATURE, 2, 1)),
        ([(MATURE, 2, 1), (MATURE, 2, 24), (MATURE, 1, 48)], (MATURE, 2, 24)),
        ([(MATURE, 1, 24), (IMMATURE, 2, 1)], (MATURE, 1, 24)),
        ([(IMMATURE, 1, 24), (IMMATURE, 2, 1)], (IMMATURE, 2, 1)),
    ],
)
def test_the_newest_window_counts_in_which_enough_labels_are_in(
    rows: list[tuple[bool, int, int]], shown: tuple[bool, int, int]
) -> None:
    assert latest(rows) == latest(rows[::-1]) == shown
