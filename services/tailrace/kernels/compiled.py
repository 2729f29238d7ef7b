"""Kernels that are compiled already, for processes that may not write where they are kept.

Numba reads what it has compiled only from a folder that it can also write to. So a process whose folder is to be its
own is given a copy there. It holds to Numba's layout of files: where that changes, each service compiles for itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tailrace.access.private_files import write_private
from tailrace.shortages import shortage

_FOLDER = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIXES = (".nbc", ".nbi", ".sums")  # code before the index that names it, their sums last


def keep_compiled_in(folder: Path) -> None:
    """Makes Numba, not imported yet, keep in this folder what it compiles; what it has for the user is copied there."""
    for sources in {file.parent for file in _kernels()}:
        for place in _places(sources, os.environ):
            if any(place.glob("*.nbi")):
                _copy(place, folder / _subfolder(sources))
                break
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ[_FOLDER] = str(folder)


def uncompiled() -> list[str]:
    """The modules of kernels that are not compiled for this user as they are; importing one does it, in seconds."""
    return [
        ".".join(("tailrace", *file.relative_to(_PACKAGE).with_suffix("").parts))
        for file in _kernels()
        if not any(_is_compiled(file, place) for place in _places(file.parent, os.environ))
    ]


def _kernels() -> list[Path]:
    return sorted(_PACKAGE.glob("**/*_kernels.py"))


def _is_compiled(file: Path, place: Path) -> bool:
    changed = file.stat().st_mtime
    return any(index.stat().st_mtime >= changed for index in place.glob(f"{file.stem}.*.nbi"))


def _places(sources: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """Where Numba keeps what it has compiled of a folder of sources, the first that it can write to."""
    if env.get(_FOLDER):
        yield Path(env[_FOLDER], _subfolder(sources))
    yield sources / "__pycache__"
    cache = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    yield cache / "numba" / _subfolder(sources)


def _subfolder(sources: Path) -> str:
    return f"{sources.name}_{hashlib.sha1(str(sources).encode(), usedforsecurity=False).hexdigest()}"


def _copy(place: Path, folder: Path) -> None:
    """Each file where it is newer than what is there."""
    for suffix in _SUFFIXES:
        for file in place.glob(f"*{suffix}"):
            copy, changed = folder / file.name, file.stat().st_mtime_ns
            if not copy.exists() or copy.stat().st_mtime_ns < changed:
                try:
                    write_private(copy, file.read_bytes(), changed_ns=changed)
                except OSError as error:
                    if shortage(error) is None:
                        raise
                    return  # without it the service compiles for itself, which takes longer
