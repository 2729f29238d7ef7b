"""Runs worker processes, one for each run, and hears what they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.trainer.run import ENDS, FAILED
from tailrace.trainer.worker import LATER, MEMORY, ONE_THREAD

log = logging.getLogger(__name__)

_LINE_BYTES = 16 << 20
_KILLED_S = 5.0

WorkerLine = Mapping[str, Any]
"""A line of the worker's (see worker.py)."""


class WorkerLimits(NamedTuple):
    """What a worker may use."""

    memory_bytes: int
    seconds: float


class RunPostponed(Exception):
    """Something was away: the run may be done again."""


class Workers:
    """Starts worker processes. One may be started ahead: what it has to load takes longer than most trainings.

    Args:
        limits: of each job.
        home: the home whose key signs, and whose cache is used.
    """

    def __init__(self, limits: WorkerLimits, home: Path) -> None:
        self._limits = limits
        self._home = home
        self._spare: asyncio.subprocess.Process | None = None

    async def prepare(self) -> None:
        """Has a process ready for the next job."""
        if self._spare is None or self._spare.returncode is not None:
            self._spare = await self._launch()

    async def work(self, job: Mapping[str, Any], hear: Callable[[WorkerLine], Awaitable[None]]) -> WorkerLine:
        """Does a job in a process of its own; what it says goes to ``hear``, in order.

        Cancelled, it ends the process.

        Returns:
            its last line, with ``end``; ``failed`` where it ended without one or went over a limit.

        Raises:
            RunPostponed: something that it needs is away for the moment.
        """
        await self.prepare()
        assert self._spare is not None
        process, self._spare = self._spare, None
        try:
            async with asyncio.timeout(self._limits.seconds):
                end = await _listen(process, job, hear)
                code = await process.wait()
        except TimeoutError:
            reason = f"it took longer than {self._limits.seconds:.0f} s: raise TAILRACE_TRAIN_SECONDS"
            return {"end": FAILED, "reason": reason}
        finally:
            await _ended(process)
        if end is not None:
            return end
        if code == LATER:
            raise RunPostponed
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        reason = (
            f"the worker process ended without a result ({how}): see the trainer's log, or raise {MEMORY}"
        )
        return {"end": FAILED, "reason": reason}

    async def close(self) -> None:
        """Ends the process that waits for a job."""
        if self._spare is not None:
            await _ended(self._spare)
            self._spare = None

    async def _launch(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tailrace.trainer.worker",
            str(self._limits.memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, "TAILRACE_HOME": str(self._home)},
            limit=_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C in the terminal is for the service
        )


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait_for(process.wait(), _KILLED_S)


async def _listen(
    process: asyncio.subprocess.Process, job: Mapping[str, Any], hear: Callable[[WorkerLine], Awaitable[None]]
) -> WorkerLine | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died at once; its code says why
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
    end: WorkerLine | None = None
    async for text in process.stdout:
        line = json.loads(text)
        if line.get("end") in ENDS:
            end = line
        else:
            await hear(line)
    return end
