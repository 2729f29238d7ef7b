"""Each kind of file of FILE_KINDS through init and what train and replay read; docs/files.md is the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.file_kinds import FILE_KINDS, FileKind, page

from tailrace.errors import TailraceError, UsageError
from tailrace.files.data_mapping import load_mapping
from tailrace.files.drafting.draft import DraftOptions, draft, write
from tailrace.files.rows import read_rows

NOW = 1_767_225_600_000
READ = [kind for kind in FILE_KINDS if kind.refused is None]
REFUSED = [kind for kind in FILE_KINDS if kind.refused is not None]


def _name(kind: FileKind) -> str:
    return f"{kind.group}: {kind.name}"


@pytest.mark.parametrize("kind", READ, ids=_name)
def test_a_kind_that_is_read(kind: FileKind, tmp_path: Path) -> None:
    file = tmp_path / "data [1].csv"
    file.write_bytes(kind.data)
    drafted = draft(file, "m", "y", DraftOptions(**kind.options), team="t", now_ms=NOW)
    notes = "\n".join(drafted.notes)
    for text in kind.says:
        assert text in notes
    types = {name: feature.type for name, feature in drafted.contract.features.items()}
    assert kind.types.items() <= types.items()
    assert kind.task in (None, drafted.contract.task)

    _, data = write(drafted, tmp_path)
    rows = read_rows(file, load_mapping(data), drafted.contract).sort("request_id")
    numbers = {int(text.rpartition("-")[2]): row for row, text in enumerate(rows["request_id"].to_list())}
    for name, row, value in kind.values:
        assert rows[name][numbers[row]] == value, name


@pytest.mark.parametrize("kind", REFUSED, ids=_name)
def test_a_kind_that_is_refused(kind: FileKind, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(kind.data)
    with pytest.raises((TailraceError, UsageError)) as refused:
        draft(file, "m", "y", DraftOptions(**kind.options), team="t", now_ms=NOW)
    assert kind.refused is not None
    assert kind.refused in str(refused.value)


def test_the_page_is_made_of_the_table() -> None:
    made = (Path(__file__).parents[3] / "docs" / "files.md").read_text()
    assert made == page(), "run python -m tests.support.file_kinds > docs/files.md"
