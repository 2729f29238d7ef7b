"""Opens packages in processes of their own, so that a hostile, broken or slow one never runs where requests are
answered.

A small process has loaded all that parsers need and waits. For each package it forks a child that takes its limits,
reads the package from the pipe, parses, runs and times it, says what it found and ends. So a verdict costs what
the package costs, and a package that crashes takes nothing with it. The limits are no sandbox: what is let in
here was signed by somebody trusted, and is data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from tailrace.access.private_files import make_private
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.models.package.fingerprint import runtime_versions
from tailrace.models.package.open import Verified
from tailrace.settings import Settings

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)
# A package that waits for nothing uses the CPU, if it gets one.
_WALL = 4.0
_START_S = 60.0
_NICE = 5
_RECEIVED = "received"
_HEADER = struct.Struct(">Q")


class ExaminationLimits(NamedTuple):
    """What the examination of a package may take.

    ``memory_bytes`` is on top of what an idle examiner has; ``seconds`` are the CPU's, so that what else the machine
    does refuses nothing; ``batch_rows`` are the rows of the largest batch that a scorer makes.
    """

    memory_bytes: int = 2 << 30
    seconds: float = 10.0
    batch_rows: int = 5_000

    @classmethod
    def of(cls, settings: Settings) -> ExaminationLimits:
        return cls(settings.package_memory_mb << 20, settings.package_seconds, settings.max_batch)


class Examiner:
    """Has packages examined; an instance is an ``Examine`` for ``open_package``. Threads may share one.

    Args:
        limits: of each package.
        passed: folder in which it is kept what has passed: a file per package, contract, runtime and limits. After
            a restart it need not be done again. None: nothing is kept.
        believed: such folders of others of this machine, whose word is taken for it.
    """

    def __init__(
        self, limits: ExaminationLimits | None = None, passed: Path | None = None, *believed: Path
    ) -> None:
        self._limits = limits or ExaminationLimits()
        self._passed, self._believed = passed, believed
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Examiner:
        """Starts the process ahead of the first package; does not wait for it."""
        with self._lock:
            self._started()
        return self

    def close(self) -> None:
        with self._lock:
            self._end()

    def __call__(self, package: Verified, contract: ModelContract) -> None:
        """Examines a package.

        Raises:
            PackageRefused: it fails a check: schema, reference, model, golden, latency, memory, time, or crash where
                the process died of it.
            Unavailable: the examiner itself was ended from outside.
        """
        file = self._passed_file(package.manifest, contract)
        if file is not None and any(
            (folder / file.name).exists() for folder in (file.parent, *self._believed)
        ):
            return
        with self._lock:
            refusal = self._examined(package, contract)
        if refusal is not None:
            raise refusal
        if file is not None:
            with contextlib.suppress(OSError):  # to know it costs less than to find it out; no more than that
                make_private(file.parent)
                file.touch(mode=0o600)

    def _passed_file(self, manifest: Manifest, contract: ModelContract) -> Path | None:
        if self._passed is None:
            return None
        facts = [manifest.digest, contract.digest, runtime_versions(), self._limits]
        return self._passed / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tailrace.models.package.examiner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,  # a Ctrl-C in the terminal is for the service
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not written yet is of no use any more
                pipe.close()  # type: ignore[union-attr]

    def _examined(self, package: Verified, contract: ModelContract) -> PackageRefused | None:
        try:
            process = self._started()
        except OSError as error:
            raise Unavailable(f"no process that examines packages can be started: {error}") from error
        # The child ends itself in time, by a signal that it cannot miss. This is for an examiner that was stopped.
        last = threading.Timer(_WALL * self._limits.seconds + _START_S, _kill, [process])
        last.daemon = True
        last.start()
        try:
            _send(process.stdin, package, contract, self._limits)
            verdict, status = _hear(process.stdout)
        except (OSError, ValueError) as broken:
            self._end()
            raise Unavailable(f"the process that examines packages was ended: {broken}") from broken
        finally:
            last.cancel()
        if verdict is None:
            return _died(status, self._limits)
        return PackageRefused(**verdict) if verdict else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its child, which holds the pipes open too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _send(
    pipe: IO[bytes] | None, package: Verified, contract: ModelContract, limits: ExaminationLimits
) -> None:
    assert pipe is not None
    pieces = {
        "manifest": package.manifest.to_bytes(),
        "contract": contract.resolved_json.encode(),
        **{f"part {name}": data for name, data in package.parts.items()},
    }
    header = json.dumps({"limits": limits, "sizes": {n: len(data) for n, data in pieces.items()}}).encode()
    pipe.write(b"!" + _HEADER.pack(len(header)) + header)
    for data in pieces.values():
        pipe.write(data)
    pipe.flush()


def _hear(pipe: IO[bytes] | None) -> tuple[dict[str, str] | None, int]:
    """What the child said of the package (None: nothing; empty: all is well), and its wait status."""
    assert pipe is not None
    lines: list[Any] = []
    while not (lines and isinstance(lines[-1], int)):
        line = pipe.readline()
        if not line:
            raise ValueError("it said nothing")
        lines.append(json.loads(line))
    if lines[0] != _RECEIVED:  # then the rest of the package is still in the pipe
        raise ValueError("its child ended before it had the package")
    return lines[1] if len(lines) == 3 else None, lines[-1]


def _died(status: int, limits: ExaminationLimits) -> PackageRefused:
    number = os.waitstatus_to_exitcode(status)
    if -number in (signal.SIGPROF, signal.SIGALRM):
        remedy = "publish a smaller model, or raise TAILRACE_PACKAGE_SECONDS"
        return PackageRefused("time", f"it took longer than {limits.seconds:g} s of CPU: {remedy}")
    how = signal.Signals(-number).name if number < 0 else f"exit code {number}"
    return PackageRefused("crash", f"the process that tried the package ended with {how}")


# The process ---


def main() -> None:
    """Forks a child for each package on stdin. Ends with it."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not to come between the lines that are read
    with contextlib.suppress(OSError):
        os.nice(_NICE)  # whatever serves comes first
    _load()
    while os.read(0, 1):
        child = os.fork()
        if child == 0:
            _examine(answers)
        _, status = os.waitpid(child, 0)
        _write(answers, status)


def _write(pipe: int, answer: Any) -> None:
    os.write(pipe, json.dumps(answer).encode() + b"\n")


def _load() -> None:
    """What opening any package needs, so that no package waits for it."""
    import pandas  # noqa: F401

    import tailrace.models.formats.onnx.run
    import tailrace.models.formats.skops.run
    import tailrace.models.package.dry_run  # noqa: F401


def _examine(answers: int) -> NoReturn:
    """The child: never returns to the loop above."""
    code = 1
    try:
        package, contract, limits = _received()
        _write(answers, _RECEIVED)
        _take_limits(limits)
        _write(answers, _verdict(package, contract, limits))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _received() -> tuple[dict[str, bytes], ModelContract, ExaminationLimits]:
    (length,) = _HEADER.unpack(_exactly(_HEADER.size))
    header = json.loads(_exactly(length))
    pieces = {name: _exactly(size) for name, size in header["sizes"].items()}
    return pieces, ModelContract.from_resolved(pieces["contract"]), ExaminationLimits(*header["limits"])


def _exactly(size: int) -> bytes:
    pieces = []
    while size:
        data = os.read(0, min(size, 1 << 20))
        if not data:
            raise EOFError
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)


def _take_limits(limits: ExaminationLimits) -> None:
    # Nobody handles these signals, so they end the process, whatever it is at.
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    signal.setitimer(signal.ITIMER_REAL, _WALL * limits.seconds)
    own = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    with contextlib.suppress(OSError):  # where there is no /proc, the address space is not limited either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        own[resource.RLIMIT_AS] = pages * resource.getpagesize() + limits.memory_bytes
    for which, limit in own.items():
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (limit if hard == resource.RLIM_INFINITY else min(limit, hard),) * 2)


def _verdict(
    pieces: Mapping[str, bytes], contract: ModelContract, limits: ExaminationLimits
) -> dict[str, str]:
    """Empty, or the check that failed and why."""
    from tailrace.models.package.dry_run import dry_run
    from tailrace.models.package.open import loaded_and_tried

    parts = {name.removeprefix("part "): data for name, data in pieces.items() if name.startswith("part ")}
    try:
        package = Verified(Manifest.from_bytes(pieces["manifest"]), parts)
        dry_run(loaded_and_tried(package, contract), parts["golden"], contract, limits.batch_rows)
    except Exception as error:  # whatever a package makes a library raise
        if _out_of_memory(error):
            remedy = "publish a smaller model, or raise TAILRACE_PACKAGE_MEMORY_MB"
            used = f"it took more than {limits.memory_bytes >> 20:,} MiB of memory"
            return {"check": "memory", "reason": f"{used}: {remedy}"}
        if isinstance(error, PackageRefused):
            return {"check": error.check, "reason": error.reason}
        return {"check": "open", "reason": f"{type(error).__name__}: {error}"[:1000]}
    return {}


def _out_of_memory(error: BaseException | None) -> bool:
    """ONNX Runtime says so in words."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        text: Any = str(error)
        if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate memory" in text:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
