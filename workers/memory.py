"""Freed memory is kept for the next photo instead of being handed back to the kernel after each.

glibc maps every large block anew and unmaps it when it is freed, so each pass over a fresh block of some 50 MB pays
for thousands of page faults: on a CPU that was a third of the network's time. Settings of the allocator end that.
All threads take from one heap, so that what one frees serves the next.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Numbers of mallopt's parameters, from glibc's malloc.h."""

_KEPT = 1_000_000_000
"""Bytes that may lie free at the top of the heap before some are handed back."""


def keep_freed_memory() -> None:
    """Tell the allocator so. Where it is not glibc's nothing is changed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
