"""What a home holds is its owner's alone, folder by folder and file by file."""

from __future__ import annotations

import os
from pathlib import Path


def keep_private() -> None:
    """From now on nobody else can read what this process writes, nor what those write that it starts."""
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """The folder, and those above it that are missing, for their owner alone. One that is there stays as it is."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
