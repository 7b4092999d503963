"""A crashed worker must not leave its memory, with photos in it, on a disk. Who holds passwords is closed to others."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """From now on no process of ours, nor any that it starts, writes a core dump. Cannot be undone.

    One byte, not none: Linux heeds no limit of 0 where cores go to a program (apport, say), and makes none at all where
    it is 1 (`fs/coredump.c`; core(5), "Piping core dumps to a program"). No file holds a core of one byte.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most != 0:  # whoever started us may have set that, and it cannot be raised
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def close_to_others() -> None:
    """From now on no other process of our user reads our memory or our environment, where passwords are.

    Ray's workers are such: where they see our processes, one that a photo took over would read there what it was not
    given. What we start is open again, unless it closes itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
