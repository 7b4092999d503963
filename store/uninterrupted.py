"""Ctrl-C, and what is taken as it, at a moment when it does no harm."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OF_PREFECT = "prefect.utilities.engine"
_Handler = Callable[[int, FrameType | None], object]


def stop_without_window(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C, for SIGHUP. What is written to a window that is gone fails, and the stop would be lost over that."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):  # a terminal is none any more by then
            os.dup2(nowhere, stream)
    os.close(nowhere)
    signal.default_int_handler(number, frame)


def breaking_off(number: int) -> _Handler | None:
    """What raises in whatever is being done when this signal comes: Python's handler, ours, or Prefect's in a flow."""
    handler = signal.getsignal(number)
    if (
        handler in (signal.default_int_handler, stop_without_window)
        or getattr(handler, "__module__", "") == _OF_PREFECT
    ):
        return handler if callable(handler) else None
    return None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What would break off waits for the end of the block; a second one does not. Other handlers go on as they do.

    Between the taking of a lock and the block that lets go of it, `KeyboardInterrupt` would leave it taken: its
    traceback keeps the frames that hold it, and whoever cleans up before the program ends waits for that lock.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before: dict[int, _Handler] = {
        number: handler for number in _STOPS if is_main and (handler := breaking_off(number)) is not None
    }
    heard, is_over = 0, False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard or is_over:
            before[number](number, frame)
        heard = number

    try:
        for number in before:
            signal.signal(number, hear)
        yield
    finally:
        is_over = True  # from here on `hear` is what was there before, wherever a signal comes in between
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            before[heard](heard, None)
