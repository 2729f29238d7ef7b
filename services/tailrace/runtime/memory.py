"""Memory of a process that makes and frees as much with every batch."""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
_MIB = 1024 * 1024
_YOUNG = 100_000


def settle_memory() -> None:
    """To be called once what stays is there.

    The garbage collector need not walk through that again, nor through what each batch makes, which goes by its count
    of references. And what a batch frees stays with the process for the next one: glibc would give it back to the
    system, which then hands it out page by page, filled with zeros. Another C library does as it does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 256 * _MIB)
        mallopt(_TOP_PAD, 16 * _MIB)
        mallopt(_MMAP_THRESHOLD, 32 * _MIB)
