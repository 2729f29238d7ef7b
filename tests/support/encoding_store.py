"""ClickHouse's part in memory, with what the real client makes of values before it sends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.transform import NativeTransform
from tests.support.memory_store import MemoryStore, StoreClient

from tailrace.clickhouse.tables import COORDINATES, TableColumn


def typed_store(layouts: Mapping[str, Sequence[TableColumn]]) -> MemoryStore:
    """A store with these tables, whose columns have their types."""
    store = MemoryStore({table: [] for table in layouts})
    for table, columns in layouts.items():
        store.types[table] = COORDINATES | {column.name: column.type for column in columns}
    return store


class EncodingClient(StoreClient):
    """Raises what the real client raises where a value cannot be one of its column's type."""

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], types: Mapping[str, str], token: str
    ) -> None:
        encode(columns, types)
        super().insert(table, columns, types, token)


def encode(columns: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> None:
    names = list(columns)
    kinds = [get_from_name(types[name]) for name in names]
    context = InsertContext("", names, kinds, [columns[name] for name in names], column_oriented=True)
    for _ in NativeTransform.build_insert(context):
        pass
    if context.insert_exception is not None:
        raise context.insert_exception
