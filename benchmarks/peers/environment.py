"""An environment of a peer's own, outside this one: what it needs is at odds with what Tailrace needs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import say
from tailrace.local.java import cache_dir


def python_of(lock: Path) -> Path:
    """The Python of a virtual environment with exactly what a lock file says, sums checked.

    It is made once, in the user's cache, by ``uv venv`` and ``uv pip install --require-hashes``.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache_dir() / "benchmarks" / f"{lock.stem}-{key}"
    if not folder.exists():
        say(f"making {folder}: uv venv; uv pip install --require-hashes -r {lock.name}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix="draft-"))
        try:
            _uv("venv", "--quiet", "--clear", "--relocatable", "--python", sys.executable, str(draft))
            python = str(draft / "bin" / "python")
            _uv("pip", "install", "--quiet", "--require-hashes", "--python", python, "-r", str(lock))
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder / "bin" / "python"


def _uv(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *words], check=True)
