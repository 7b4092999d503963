"""Servers that tests share are stopped when the tests end, and where no tests run, with the process."""

from __future__ import annotations

import atexit
from collections.abc import Callable

TIED = ("setpriv", "--pdeathsig", "KILL")
"""Before a server's command: it ends with this process also where nobody is left to stop it."""

_stops: list[Callable[[], object]] = []


def at_end(stop: Callable[[], object]) -> None:
    """Have a server stopped."""
    _stops.append(stop)
    atexit.register(end)


def end() -> None:
    """Stop all of them, the last that was started first."""
    while _stops:
        _stops.pop()()
