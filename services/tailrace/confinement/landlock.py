"""Landlock: a process gives up, for itself and all it starts, whatever files and TCP ports it does not name.

It needs no rights and cannot be undone. Linux has it since 5.13, rules for TCP since 6.7. Landlock knows ports, not
hosts, and no UDP. See https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from tailrace.errors import TailraceError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_NO_NEW_PRIVILEGES = 38

# Rights on files in the order of their bits, and how many of them each version of the interface knows.
_RIGHTS = (
    *("execute", "write_file", "read_file", "read_dir", "remove_dir", "remove_file", "make_char", "make_dir"),
    *("make_reg", "make_sock", "make_fifo", "make_block", "make_sym", "refer", "truncate", "ioctl_dev"),
)
_KNOWN_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BIT = {right: 1 << place for place, right in enumerate(_RIGHTS)}
_READ = _BIT["read_file"] | _BIT["read_dir"] | _BIT["execute"]
_ON_FILES = sum(_BIT[right] for right in ("execute", "write_file", "read_file", "truncate", "ioctl_dev"))
_BIND, _CONNECT = 1, 2
_SCOPED = 0b11  # abstract sockets and signals of other processes
NETWORK_SINCE, _SCOPES_SINCE = 4, 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


@dataclass(frozen=True)
class AccessLimits:
    """What a process goes on being able to touch.

    Attributes:
        writable: files and folders with all in them; what is not there is left out, as in ``readable``.
        readable: may be read and executed too.
        connect: TCP ports that it may connect to, on any host; None leaves the network as it is.
        bind: TCP ports that it may bind; 0 stands for one that the kernel chooses.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    connect: frozenset[int] | None = frozenset()
    bind: frozenset[int] = frozenset()


def version() -> int:
    """The version of the kernel's Landlock interface; 0 where it has none, or has it switched off."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))
    except (OSError, AttributeError):
        return 0


def confine(limits: AccessLimits) -> int:
    """From here on this process and its children touch nothing outside of the limits. Once is for good.

    Returns:
        The version of Landlock that holds it; 0 where the kernel has none, and nothing is confined.

    Raises:
        TailraceError: other threads run already (they would stay free), or the kernel refuses.
    """
    abi = version()
    if not abi:
        return 0
    if threads() != 1:
        raise TailraceError(f"{threads()} threads run already: a process is confined before it starts any")
    network = limits.connect is not None and abi >= NETWORK_SINCE
    ruleset = _create(abi, network)
    try:
        everything = _file_rights(abi)
        for paths, rights in ((limits.readable, _READ), (limits.writable, everything)):
            for path in paths:
                _allow_path(ruleset, path, rights & everything)
        if network:
            for ports, right in ((limits.connect or (), _CONNECT), (limits.bind, _BIND)):
                for port in ports:
                    rule = _PortRule(right, port)
                    _call(f"allow port {port}", _ADD_RULE, ruleset, _NET_PORT, ctypes.byref(rule), 0)
        _restrict(ruleset)
    finally:
        os.close(ruleset)
    return abi


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def _file_rights(abi: int) -> int:
    return (1 << _KNOWN_RIGHTS.get(abi, len(_RIGHTS))) - 1


def _create(abi: int, network: bool) -> int:
    ports, scopes = _BIND | _CONNECT if network else 0, _SCOPED if abi >= _SCOPES_SINCE else 0
    wanted = _Ruleset(_file_rights(abi), ports, scopes)
    # A kernel takes no more of the structure than it knows.
    size = 24 if abi >= _SCOPES_SINCE else 16 if abi >= NETWORK_SINCE else 8
    return _call("create its rules", _CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), 0)


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        rule = _PathRule(rights, descriptor)
        _call(f"allow {path}", _ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _restrict(ruleset: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise TailraceError(f"cannot be confined: {os.strerror(ctypes.get_errno())}")
    _call("confine this process", _RESTRICT_SELF, ruleset, 0)


def _call(what: str, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer = int(libc.syscall(*arguments))
    if answer < 0:
        raise TailraceError(f"Landlock did not {what}: {os.strerror(ctypes.get_errno())}")
    return answer
