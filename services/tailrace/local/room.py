"""What a home is short of: room on its file systems, descriptors in its processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from tailrace.shortages import DESCRIPTORS, DISK, remedy, shortage

NEEDED_BYTES = 32 * 1024 * 1024
"""What has to be free on each file system of a home: less than this, and it is called full."""
NEEDED_FILES = 100
_SPARE_DESCRIPTORS = 16
_FOLDERS = ("", "run", "cache", "state", "data/kafka", "data/clickhouse")


class Shortage(NamedTuple):
    """Something that is short.

    Attributes:
        kind: `DISK` or `DESCRIPTORS`.
        where: the file system's mount point, or the process.
        free, missing: bytes of a disk (or files, where it has no room for more of them), or descriptors.
    """

    kind: str
    where: str
    free: int
    missing: int
    text: str


def full_disks(home: Path) -> list[Shortage]:
    """The file systems of a home that have too little room for it to go on."""
    full = []
    for folder in _one_a_device(home / name for name in _FOLDERS):
        usage, mount = os.statvfs(folder), _mount(folder)
        free = usage.f_bavail * usage.f_frsize
        if free < NEEDED_BYTES:
            text = (
                f"the file system {mount} is full: {_mib(free)} of {_mib(usage.f_blocks * usage.f_frsize)} "
                f"are left and {_mib(NEEDED_BYTES)} are needed, so {_mib(NEEDED_BYTES - free)} are missing"
            )
            full.append(Shortage(DISK, mount, free, NEEDED_BYTES - free, text))
        elif usage.f_files and usage.f_favail < NEEDED_FILES:
            text = (
                f"the file system {mount} has room for {usage.f_favail} more files (inodes), and "
                f"{NEEDED_FILES} are needed"
            )
            full.append(Shortage(DISK, mount, usage.f_favail, NEEDED_FILES - usage.f_favail, text))
    return full


def shortages(home: Path, pids: Mapping[str, int]) -> list[Shortage]:
    """Everything that is short: full disks, a quota that is used up, processes without descriptors."""
    return (full_disks(home) or _refused(home / "run")) + [
        short for name, pid in pids.items() if (short := _descriptors(name, pid))
    ]


def advice(short: Iterable[Shortage]) -> str:
    """What is short, and what to do, for people."""
    short = list(short)
    remedies = dict.fromkeys(remedy(shortage.kind) for shortage in short)
    texts = "; ".join(shortage.text for shortage in short)
    return f"{texts}: {' and '.join(remedies)}, and everything comes back by itself"


def _refused(folder: Path) -> list[Shortage]:
    """A quota says nothing of itself to whoever asks the file system, so a page is written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        if shortage(error) is not None:
            text = f"nothing can be written to {folder} ({error.strerror})"
            return [Shortage(DISK, str(folder), 0, NEEDED_BYTES, text)]
    return []


def _descriptors(name: str, pid: int) -> Shortage | None:
    """None also where the system does not tell."""
    try:
        process = psutil.Process(pid)
        limit, used = process.rlimit(psutil.RLIMIT_NOFILE)[0], process.num_fds()
    except (psutil.Error, AttributeError, OSError):
        return None
    missing = used + _SPARE_DESCRIPTORS - limit
    if limit < 0 or missing <= 0:
        return None
    text = f"{name} (process {pid}) has {used} of {limit} descriptors open, so {missing} are missing"
    return Shortage(DESCRIPTORS, f"{name} ({pid})", limit - used, missing, text)


def _one_a_device(folders: Iterable[Path]) -> list[Path]:
    by_device: dict[int, Path] = {}
    for folder in folders:
        if folder.is_dir():
            by_device.setdefault(folder.stat().st_dev, folder)
    return list(by_device.values())


def _mount(folder: Path) -> str:
    path = folder.resolve()
    return str(next(parent for parent in (path, *path.parents) if os.path.ismount(parent)))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
