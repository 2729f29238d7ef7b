"""What root gives up so that Landlock keeps the memory and the environment of other processes from it too.

A process that is confined may look into none that is not; but who has one of these capabilities is not asked.
See https://man7.org/linux/man-pages/man7/capabilities.7.html.
"""

from __future__ import annotations

import ctypes

_SYS_PTRACE, _SYS_ADMIN, _PERFMON = 19, 21, 38
_VERSION = 0x20080522
_DROP_FROM_BOUNDS = 24


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def give_up_looking_into_others() -> None:
    """For good: neither this process nor what it starts has the capabilities again. Who has none gives up nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    if libc.capget(ctypes.byref(header), sets):
        return
    for capability in (_SYS_PTRACE, _SYS_ADMIN, _PERFMON):
        libc.prctl(_DROP_FROM_BOUNDS, capability, 0, 0, 0)  # or what root starts would have it again
        word, bit = sets[capability // 32], 1 << capability % 32
        word.effective &= ~bit
        word.permitted &= ~bit
        word.inheritable &= ~bit
    libc.capset(ctypes.byref(header), sets)
