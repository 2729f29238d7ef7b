"""What goes on running in a home whose supervisor was killed together with its watchdog.

Such processes do their work as before, so that nothing is lost by them; but nobody brings back what dies. They are
known by what the home's state says: process id, and when the system says that the process began.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import psutil

from tailrace.access.home_servers import close_door
from tailrace.local.home import Home
from tailrace.services import SERVICES

GRACE_S = 10.0
"""For a service to finish its batch and leave."""
_SAME_S = 2.0  # the system's own clock may be set meanwhile, and with it when it says that a process began


def created(pid: int | None) -> float | None:
    """When the system says that a process began; None where it is gone already."""
    try:
        return float(psutil.Process(pid).create_time()) if pid else None
    except psutil.Error:
        return None


def is_running(entry: Mapping[str, Any]) -> bool:
    """Whether the process of an entry of the home's state is still the one that runs under its id."""
    try:
        process = psutil.Process(entry["pid"])
        is_same = entry["created"] is not None and abs(process.create_time() - entry["created"]) < _SAME_S
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, TypeError, ValueError):
        return False


def left_running(home: Home) -> list[dict[str, Any]]:
    """The entries of the home's state that still run though nothing keeps them; none where something does."""
    if home.holder() is not None:
        return []
    return [process for process in home.processes() if is_running(process)]


def stop_leftovers(home: Home) -> list[str]:
    """Ends what is left, in order, and what it leaves of itself in the home; says what it was. To be called by whoever
    has the home, or where nobody has it.
    """
    processes = home.processes()
    leftovers = {entry["name"]: psutil.Process(entry["pid"]) for entry in processes if is_running(entry)}
    home.addresses.unlink(missing_ok=True)
    stop_in_order({name: partial(_stop, process) for name, process in leftovers.items()})
    for entry in processes:
        close_door(home.root, entry["name"])
    home.state.unlink(missing_ok=True)
    return list(leftovers)


def stop_in_order(stops: Mapping[str, Callable[[], None]]) -> None:
    """Services first, all at once, then what they stand on."""
    for stage in (set(SERVICES), {"registry", "clickhouse"}, {"kafka"}):
        threads = [threading.Thread(target=stop) for name, stop in stops.items() if name in stage]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _stop(process: psutil.Process) -> None:
    """SIGTERM, and SIGKILL where it has not ended in time; a process id that has another owner by now is left alone."""
    with suppress(psutil.Error):
        process.terminate()
        try:
            process.wait(GRACE_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(GRACE_S)
