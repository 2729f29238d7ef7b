"""What is moved out of the folder of a ClickHouse that cannot open it, and what stays."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tailrace.local.clickhouse_damage import set_aside

WHOLE = b"ATTACH TABLE _ UUID 'x'\n(\n    `a` Int8\n)\nENGINE = ReplacingMergeTree\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    for name in ("store/a/t.sql", "store/a/u.sql", "metadata/tailrace.sql", "store/b/data.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(WHOLE)
    return folder


def aside(folder: Path) -> list[str]:
    return sorted(
        str(file.relative_to(kept))
        for kept in folder.parent.glob("engine.damaged-*")
        for file in kept.glob("**/*")
        if file.is_file()
    )


@pytest.mark.parametrize("text", [b"", b"\0" * 90, WHOLE[:40], b"x" + WHOLE])
def test_a_damaged_description_alone_is_moved(folder: Path, text: bytes) -> None:
    (folder / "store/a/t.sql").write_bytes(text)
    assert "the description of t is damaged" in set_aside(folder, "why")
    assert aside(folder) == ["store/a/t.sql"]
    assert (folder / "store/a/u.sql").read_bytes() == WHOLE


def test_where_no_description_is_damaged_the_folder_is_moved(folder: Path) -> None:
    assert f"{folder} cannot be opened" in set_aside(folder, "why")
    assert len(aside(folder)) == 4
    assert not folder.exists()


def test_a_full_disk_moves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    assert "the disk cannot be used (it is full)" in set_aside(folder, "why")
    assert aside(folder) == []
    assert folder.is_dir()
