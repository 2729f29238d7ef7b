"""Runs the worker process of one run, and hears what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from tailrace.trainer.decide import ENDS, FAILED
from tailrace.trainer.worker import LATER, ONE_THREAD

log = logging.getLogger(__name__)

_LINE_BYTES = 16 << 20
_KILLED_S = 5.0

Said = Mapping[str, Any]
"""A line of the worker's (see worker.py)."""


class Limits(NamedTuple):
    """What a worker may use."""

    memory_bytes: int
    seconds: float


class Later(Exception):
    """Something was away: the run may be done again."""


async def work(
    job: Mapping[str, Any], limits: Limits, home: str, hear: Callable[[Said], Awaitable[None]]
) -> Said:
    """Does a job in a process of its own; what it says goes to ``hear``, in order.

    Cancelled, it ends the process.

    Returns:
        its last line, with ``end``; ``failed`` where it ended without one or went over a limit.

    Raises:
        Later: something that it needs is away for the moment.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tailrace.trainer.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **ONE_THREAD, "TAILRACE_HOME": home},
        limit=_LINE_BYTES,
        start_new_session=True,  # a Ctrl-C in the terminal is for the service
    )
    try:
        async with asyncio.timeout(limits.seconds):
            end = await _listen(process, {**job, "memory_bytes": limits.memory_bytes}, hear)
            code = await process.wait()
    except TimeoutError:
        return {
            "end": FAILED,
            "reason": f"it took longer than {limits.seconds:.0f} s: raise TAILRACE_TRAIN_SECONDS",
        }
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait_for(process.wait(), _KILLED_S)
    if end is not None:
        return end
    if code == LATER:
        raise Later
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return {
        "end": FAILED,
        "reason": f"the worker process ended without a result ({how}); see the trainer's log",
    }


async def _listen(
    process: asyncio.subprocess.Process, job: Mapping[str, Any], hear: Callable[[Said], Awaitable[None]]
) -> Said | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died at once; its code says why
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
    end: Said | None = None
    async for line in process.stdout:
        said = json.loads(line)
        if said.get("end") in ENDS:
            end = said
        else:
            await hear(said)
    return end
