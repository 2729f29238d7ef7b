"""Runs a service that says how much memory it holds after a full garbage collection.

    python -m benchmarks.collected MODULE FILE

At SIGUSR1 it collects and adds a line to the file: the time in seconds, and its resident bytes.
"""

from __future__ import annotations

import gc
import importlib
import signal
import sys
import time
from pathlib import Path

import psutil


def main(module: str, file: str) -> None:
    process = psutil.Process()

    def measure(*_: object) -> None:
        gc.collect()
        with Path(file).open("a") as lines:
            lines.write(f"{time.time()} {process.memory_info().rss}\n")

    signal.signal(signal.SIGUSR1, measure)
    importlib.import_module(module).main()


if __name__ == "__main__":
    main(*sys.argv[1:])
