"""Which labels a replay sends, of the README's own flow: a small file without times, labels a day later."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.files.drafting.draft import DraftOptions, draft
from tailrace.files.rows import read_rows
from tailrace.replay.schedule import shorter_delay
from tailrace.replay.send import labels_after

NOW = 1_767_225_600_000
DAY, HOUR, MINUTE = 86_400_000, 3_600_000, 60_000


@pytest.mark.parametrize("rows", [300, 1_000, 30_000])
def test_nearly_all_labels_of_a_file_without_times_are_known_a_day_later(rows: int, tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("x,y\n" + "".join(f"{row % 50},{row % 3 % 2}\n" for row in range(rows)))
    drafted = draft(file, "m", "y", DraftOptions(), team="t", now_ms=NOW)
    read = read_rows(file, drafted.mapping, drafted.contract)
    labels, not_due = labels_after(read, drafted.contract, DAY, until_ms=NOW)
    assert len(labels.row) + not_due == rows
    assert len(labels.row) > 0.9 * rows


@pytest.mark.parametrize(
    ("lasts", "delay", "shorter"),
    [
        (5 * HOUR, DAY, 30 * MINUTE),
        (5 * HOUR, 10 * MINUTE, 5 * MINUTE),
        (5 * MINUTE, DAY, None),
        (400 * DAY, DAY, 12 * HOUR),
    ],
)
def test_a_shorter_delay_is_a_round_part_of_the_time(lasts: int, delay: int, shorter: int | None) -> None:
    assert shorter_delay(NOW - lasts, NOW, delay) == shorter
