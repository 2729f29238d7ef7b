from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.files.contents import content_digest
from tailrace.files.data_mapping import DataMapping
from tailrace.files.rows import read_rows
from tailrace.models.manifest import TrainedOn
from tailrace.replay.trained import count_trained

CONTRACT = load_contract(
    "model: m\nowner: {team: t}\nfeatures:\n  x: {type: number}\ntarget: {name: y, type: boolean}\n"
)
MAPPING = DataMapping.model_validate(
    {"model": "m", "target": "y = 1", "every": "1min", "start": "2020-01-01T00:00:00Z"}
)
MINUTE = 60_000
START = 1_577_836_800_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(100)))
    return path


def _rows(file: Path, where: str | None = None) -> pl.DataFrame:
    return read_rows(file, MAPPING, CONTRACT, where=where)


@pytest.mark.parametrize(
    ("name", "where", "first", "last", "replayed", "expected"),
    [
        ("data.csv", None, 0, 19, None, 20),
        ("data.csv", None, 10, 19, "x >= 15", 5),
        ("data.csv", "x >= 90", 0, 99, None, 10),
        ("data.csv", "x >= 90", 0, 99, "x < 90", 0),
        ("data.csv", "x >= 90", 0, 94, "x < 92", 2),
        ("other.csv", None, 0, 99, None, 0),
        ("data.csv", "colour = 'red'", 0, 99, None, 0),
    ],
)
def test_rows_trained_on_are_those_of_file_condition_and_time(
    file: Path, name: str, where: str | None, first: int, last: int, replayed: str | None, expected: int
) -> None:
    lineage = TrainedOn(
        file=name, where=where, first_ms=START + first * MINUTE, last_ms=START + last * MINUTE
    )
    assert count_trained(lineage, file, MAPPING, CONTRACT, _rows(file, replayed)) == expected


def test_a_file_is_known_by_its_content_whatever_it_is_called(file: Path, tmp_path: Path) -> None:
    last = START + 9 * MINUTE
    lineage = TrainedOn(
        file="other.csv", where=None, first_ms=START, last_ms=last, content=content_digest(file)
    )
    assert count_trained(lineage, file, MAPPING, CONTRACT, _rows(file)) == 10
    changed = tmp_path / "other.csv"
    changed.write_text(file.read_text() + "5,1\n")
    assert count_trained(lineage, changed, MAPPING, CONTRACT, _rows(changed)) == 0


def test_without_a_champion_nothing_was_trained_on(file: Path) -> None:
    assert count_trained(None, file, MAPPING, CONTRACT, _rows(file)) == 0
