"""Times as `verify` reads them out of ClickHouse, against what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.clickhouse_server import LOGINS, start

from tailrace.clickhouse.client import ClickHouse
from tailrace.local.ports import HOST, free_port
from tailrace.streaming.records import PlainMessage, TopicPartition
from tailrace.verify.rows import NO_TIME, StoredRows
from tailrace.verify.stored_times import LoggedTimes

TOPIC = "m.outcomes"
YEAR_1900, YEAR_2299 = -2_208_988_800_000, 10_413_791_999_999


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    home: Path = tmp_path_factory.mktemp("times")
    port = free_port()
    process = start(home, port)
    try:
        database = ClickHouse(f"http://{HOST}:{port}", auth=LOGINS[port])
        time = "DateTime64(3, 'UTC')"
        database.create_database()
        database.command(
            "CREATE TABLE m_outcomes (_topic String, _partition UInt32, _offset UInt64, "
            f"known_at {time}, label_time Nullable({time})) ENGINE = ReplacingMergeTree ORDER BY _offset"
        )
        yield database
    finally:
        process.stop(10)


def test_each_time_is_compared_to_the_millisecond(clickhouse: ClickHouse) -> None:
    stored = {3: (YEAR_1900, None), 4: (1_001, -1), 6: (YEAR_2299, 1_001), 9: (5, 5)}
    columns = {
        "_topic": [TOPIC] * len(stored),
        "_partition": [2] * len(stored),
        "_offset": list(stored),
        "known_at": [known for known, _ in stored.values()],
        "label_time": [labelled for _, labelled in stored.values()],
    }
    clickhouse.insert("m_outcomes", columns, clickhouse.columns("m_outcomes"), "once")
    partition = TopicPartition(TOPIC, 2)
    assert sorted(StoredRows(clickhouse).times(partition, ("known_at", "label_time"), 3, 6).tolist()) == [
        [3, YEAR_1900, NO_TIME], [4, 1_001, -1], [6, YEAR_2299, 1_001],
    ]  # fmt: skip
    logged = LoggedTimes()
    for offset, (known, labelled) in (stored | {4: (1_002, -1), 6: (YEAR_2299, None)}).items():
        message = PlainMessage(TOPIC, 2, offset, b"", None, [], 0)
        logged.take(message, known_at=known, label_time=labelled)
    problems = list(logged.problems(StoredRows(clickhouse)))
    assert [(p.check, p.offset, p.detail) for p in problems] == [
        ("stored-otherwise", 4, "has another known_at in ClickHouse than in the log"),
        ("stored-otherwise", 6, "has another label_time in ClickHouse than in the log"),
    ]
