"""What is said of an answer beside it."""

from __future__ import annotations

import json

from tailrace.local.clickhouse_answer import summary
from tailrace.local.clickhouse_output import EngineAnswer


def test_a_summary_has_its_numbers_as_texts_and_its_time_in_nanoseconds() -> None:
    answer = EngineAnswer(
        b"", rows=1, rows_read=2, bytes_read=3, rows_written=4, bytes_written=5, seconds=0.25
    )
    assert json.loads(summary(answer, 6)) == {
        "read_rows": "2",
        "read_bytes": "3",
        "written_rows": "4",
        "written_bytes": "5",
        "total_rows_to_read": "0",
        "result_rows": "1",
        "result_bytes": "6",
        "elapsed_ns": "250000000",
    }
