"""What is done where the engine cannot open its folder: what is damaged is set aside, and nothing is deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path

_NEEDED_BYTES = 64 << 20


def set_aside(folder: Path, why: str) -> str:
    """Moves descriptions of tables that are none out of the folder, or the whole folder where there is no such thing;
    the engine makes anew what it does not find, at its next start. Says what was done.

    The engine does not say why it cannot open a folder. So where the disk cannot be used, nothing is moved.
    """
    trouble = _trouble_of_the_disk(folder)
    if trouble:
        return f"ClickHouse cannot open {folder}, and the disk cannot be used ({trouble}): see to it. {why}"
    aside = folder.with_name(f"{folder.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    damaged = [file for file in _descriptions(folder) if not _is_whole(file)]
    if not damaged:
        folder.rename(aside)
        return _sentence(f"{folder} cannot be opened", aside, why)
    for file in damaged:
        kept = aside / file.relative_to(folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        file.rename(kept)
    names = ", ".join(sorted(file.stem for file in damaged))
    return _sentence(f"the description of {names} is damaged", aside, why)


def _sentence(what: str, aside: Path, why: str) -> str:
    return (
        f"{what}: it was moved to {aside}, and is made again, empty, when ClickHouse is started again. `tailrace "
        f"status` says what lacks rows, `tailrace rebuild TABLE` fills it in from the topics. {why}"
    )


def _descriptions(folder: Path) -> list[Path]:
    return [
        file for part in ("metadata", "store") for file in (folder / part).glob("**/*.sql") if file.is_file()
    ]


def _is_whole(file: Path) -> bool:
    text = file.read_bytes()
    return text.startswith(b"ATTACH ") and text.endswith(b"\n") and b"\0" not in text


def _trouble_of_the_disk(folder: Path) -> str:
    probe = folder.with_name("probe")
    try:
        stat = os.statvfs(folder.parent)
        if stat.f_bavail * stat.f_frsize < _NEEDED_BYTES:
            return "it is full"
        with probe.open("wb") as written:
            written.write(bytes(1 << 16))
            written.flush()
            os.fsync(written.fileno())
        probe.unlink()
        for file in _descriptions(folder):
            file.read_bytes()
    except OSError as error:
        return str(error)
    return ""
