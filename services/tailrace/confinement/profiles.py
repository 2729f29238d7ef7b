"""What each process of a home may touch: one function a kind of process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tailrace.confinement import landlock
from tailrace.confinement.landlock import AccessLimits, confine
from tailrace.confinement.system import DEVICES, system_paths


def clickhouse_limits(home: Path) -> AccessLimits:
    """The local ClickHouse's: its own folder and nobody's port. What is temporary is made in its folder from here on.

    The digests of tokens stay readable, since the door reads them anew as they change; tokens are not.
    """
    folder, digests = home / "data" / "clickhouse", home / "access"
    scratch(folder / "tmp")
    # Rules are about what is there: digests that are made later are in a folder that must be there now.
    digests.mkdir(parents=True, exist_ok=True, mode=0o700)
    return AccessLimits((folder, *DEVICES), (*system_paths(), digests))


def scratch(folder: Path) -> None:
    """Makes temporary files of this process, and of those that it starts, in the folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def hold(limits: AccessLimits) -> str:
    """Confines this process, see `confine`; the line for its log, which is `summary` from then on."""
    global _summary
    _summary = describe(confine(limits), ports=limits.connect is not None)
    return _summary


def summary() -> str:
    """One line for the log of this process: whether, and by what, it is confined."""
    return _summary


def describe(abi: int, ports: bool = True) -> str:
    """By the version of Landlock, 0 for none, and by whether the limits name TCP ports."""
    if not abi:
        return "not confined: this kernel has no Landlock"
    if abi < landlock.NETWORK_SINCE:
        network = "files, not TCP ports (Linux 6.7 has rules for them)"
    elif ports:
        network = "files and TCP ports"
    else:
        network = "files, not TCP ports: Kafka, registry or ClickHouse is not this home's"
    return f"confined by Landlock {abi}: {network}"


_summary = "not confined: it was not started by `tailrace run`"
