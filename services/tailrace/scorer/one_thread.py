"""A batch is scored on one thread."""

from __future__ import annotations

import os

from threadpoolctl import threadpool_limits


def use_one_thread() -> None:
    """Has linear algebra and polars work on one thread, in this process from now on; polars where it has not begun.

    For a batch, handing work over and waiting for it takes longer than the work, on cores that the broker or other
    instances may want. And linear algebra adds up in another order on another number of threads.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    threadpool_limits(limits=1)
