"""What a home is short of, and how much is missing."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.local import room
from tailrace.local.room import NEEDED_BYTES, advice, full_disks, shortages

BLOCK = 4096


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file system of one GiB, of which the test says what is left."""
    usage = SimpleNamespace(
        f_bavail=200_000, f_blocks=262_144, f_frsize=BLOCK, f_files=10_000, f_favail=5_000
    )
    monkeypatch.setattr(room.os, "statvfs", lambda _: usage)
    (tmp_path / "run").mkdir()
    return usage


def test_a_disk_with_room_is_not_short(tmp_path: Path, disk: Any) -> None:
    assert full_disks(tmp_path) == shortages(tmp_path, {}) == []


def test_a_full_disk_is_said_once_with_what_is_missing(tmp_path: Path, disk: Any) -> None:
    disk.f_bavail = 256
    [short] = full_disks(tmp_path)
    assert (short.kind, short.free, short.missing) == ("disk", 256 * BLOCK, NEEDED_BYTES - 256 * BLOCK)
    assert "1.0 MiB of 1,024.0 MiB are left and 32.0 MiB are needed, so 31.0 MiB are missing" in short.text
    assert "free some of the disk" in advice([short])


def test_a_disk_without_room_for_more_files_is_full(tmp_path: Path, disk: Any) -> None:
    disk.f_favail = 3
    [short] = full_disks(tmp_path)
    assert "3 more files" in short.text
    disk.f_files = disk.f_favail = 0  # as btrfs says that it has no such limit
    assert full_disks(tmp_path) == []


def test_a_quota_that_is_used_up_shows_when_something_is_written(
    tmp_path: Path, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    [short] = shortages(tmp_path, {})
    assert "quota" in short.text.lower()


def test_a_process_without_descriptors_is_named(tmp_path: Path, disk: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    assert shortages(tmp_path, {"joiner": os.getpid()}) == []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, before[1]))
    try:
        [short] = shortages(tmp_path, {"joiner": os.getpid()})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert short.kind == "descriptors"
    assert f"joiner (process {os.getpid()})" in short.text
    assert 0 < short.missing <= 16
    assert "ulimit" in advice([short])
