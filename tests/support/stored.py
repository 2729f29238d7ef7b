"""What ClickHouse holds of each topic, over all of its tables."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.clickhouse.client import ClickHouse

Reference = tuple[str, int, int]


class Stored(NamedTuple):
    """``rows`` of a topic in all tables, and how many different records they stand for."""

    rows: int
    records: int


def references(clickhouse: ClickHouse, topic: str) -> list[Reference]:
    """The record references of every row of a topic."""
    places: list[Reference] = []
    for table in _tables(clickhouse):
        sql = f"SELECT _topic, _partition, _offset FROM {table} WHERE _topic = {{topic:String}}"
        places += clickhouse.query(sql, {"topic": topic}).rows
    return places


def count_by_topic(clickhouse: ClickHouse) -> dict[str, Stored]:
    """Rows and records of every topic, without waiting for any merge."""
    union = " UNION ALL ".join(f"SELECT _topic, _partition, _offset FROM {t}" for t in _tables(clickhouse))
    if not union:
        return {}
    sql = f"SELECT _topic, count(), uniqExact(_partition, _offset) FROM ({union}) GROUP BY _topic"
    return {topic: Stored(rows, records) for topic, rows, records in clickhouse.query(sql).rows}


def _tables(clickhouse: ClickHouse) -> list[str]:
    sql = "SELECT table FROM system.columns WHERE database = {database:String} AND name = '_topic'"
    return [f"`{table}`" for (table,) in clickhouse.query(sql, {"database": clickhouse.database}).rows]
