"""What a home holds is its owner's alone, folder by folder and file by file; and a file is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def keep_private() -> None:
    """From now on nobody else can read what this process writes, nor what those write that it starts."""
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """The folder, and those above it that are missing, for their owner alone. One that is there stays as it is."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, data: bytes | str, *, changed_ns: int | None = None) -> None:
    """Replaces a file by one that its owner alone can read, whole or not at all.

    Args:
        changed_ns: when the file is to have been changed last, in nanoseconds since 1970; now, where it is None.
    """
    with _draft(path.parent, data) as draft:
        if changed_ns is not None:
            os.utime(draft, ns=(changed_ns, changed_ns))
        os.replace(draft, path)


def write_private_once(path: Path, data: bytes | str) -> None:
    """Writes a file that is not there yet: of two processes that come here at once, the first one's is kept."""
    with _draft(path.parent, data) as draft, suppress(FileExistsError):
        os.link(draft, path)


@contextmanager
def _draft(folder: Path, data: bytes | str) -> Iterator[Path]:
    """A file beside the one that it is to become; nothing is left of it afterwards, on a full disk neither."""
    make_private(folder)
    descriptor, name = tempfile.mkstemp(dir=folder)  # 0600 from the first byte on
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
