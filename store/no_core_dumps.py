"""A crashed worker must not leave its memory, with photos in it, on a disk."""

from __future__ import annotations

import resource


def forbid_core_dumps() -> None:
    """From now on no process of ours, nor any that it starts, writes a core dump. Cannot be undone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
