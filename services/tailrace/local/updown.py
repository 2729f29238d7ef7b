"""Starting and ending everything, in the foreground or behind the terminal's back.

In the background it is a process of its own, ``python -m tailrace.local.updown HOME PROJECT``, which reports
what it reaches on stdout, line by line, then ``ready``, and from then on writes nowhere but to its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from tailrace.access.private_files import keep_private
from tailrace.errors import TailraceError
from tailrace.local.home import Home
from tailrace.local.leftovers import left_running, stop_leftovers
from tailrace.local.supervisor import Say, Supervisor

_READY = "ready"
_FAILED = "failed: "
_LONGEST_STOP = 60.0


def run(home: Home, project: Path, say: Say, ready: Callable[[], None]) -> None:
    """Runs everything in this process until SIGTERM or SIGINT; ``ready`` is called when requests can be sent.

    Raises:
        TailraceError: something does not come up, or the home is in use or cannot be written.
    """
    keep_private()
    home.prepare()
    with closing(home.lock()):
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.default_int_handler)
        supervisor = Supervisor(home, project, say)
        try:
            supervisor.start()
            ready()
            while True:
                signal.pause()
        except KeyboardInterrupt:
            say("stopping")
        finally:
            # A second signal is impatience, not a reason to leave things running.
            for sig in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sig, signal.SIG_IGN)
            supervisor.stop()


def detach(home: Home, project: Path, say: Say) -> None:
    """Runs everything in a background process that outlives the terminal; returns when requests can be sent.

    Raises:
        TailraceError: as `run`.
    """
    keep_private()
    home.prepare()
    home.lock().close()  # said here, before anything is started
    with home.log("up").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(home.root), str(project.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert child.stdout is not None
    failure = ""
    try:
        for line in child.stdout:
            text = line.rstrip("\n")
            if text == _READY:
                return
            if text.startswith(_FAILED):
                failure = text.removeprefix(_FAILED)
            elif failure:
                failure += f"\n{text}"
            else:
                say(text)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    child.wait()
    raise TailraceError(failure or f"Tailrace ended while starting; its log: {home.log('up')}")


def down(home: Home, say: Say) -> bool:
    """Ends what runs in this home; returns when all of it has ended. False where nothing ran."""
    holder = home.holder()
    if holder is None:
        return _down_unkept(home, say)
    say(f"stopping what runs in {home} (process {holder})")
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + _LONGEST_STOP
    while home.holder() is not None:
        if time.monotonic() > deadline:
            # Its watchdog then ends the rest.
            os.kill(holder, signal.SIGKILL)
            deadline += _LONGEST_STOP
        time.sleep(0.05)
    return True


def _down_unkept(home: Home, say: Say) -> bool:
    """Ends what goes on without its supervisor, which was killed."""
    if not left_running(home):
        return False
    say(f"stopping what was left running in {home} by an earlier `tailrace up`, which was killed")
    with closing(home.lock()):  # nobody else starts or stops anything meanwhile
        stop_leftovers(home)
    return True


def purge(home: Home) -> None:
    """Removes a home in which nothing runs, with all of its data and keys."""
    if home.root.exists():
        if not home.run.is_dir():
            raise TailraceError(f"{home} is no home of Tailrace (it has no folder run): remove it yourself")
        shutil.rmtree(home.root)


def _in_background(home: Home, project: Path) -> None:
    report = partial(print, flush=True)

    def ready() -> None:
        report(_READY)
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())

    os.chdir(project)
    try:
        run(home, project, report, ready)
    except TailraceError as error:
        report(f"{_FAILED}{error}")
        sys.exit(1)


if __name__ == "__main__":
    _in_background(Home(Path(sys.argv[1])), Path(sys.argv[2]))
