"""How a command is stopped: Ctrl-C, SIGTERM (`kill`, `timeout`, a shutdown) and SIGHUP (a closed window) are one.

The first ends it in good order. What it waits for may be a library's C code, which no exception gets through: Ray, when
its start is broken off, waits for itself for ever. So a second one, a second or more after the first, ends it at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic
from types import FrameType

from store.uninterrupted import breaking_off, stop_without_window

INTERRUPTED = 130
_IS_ANOTHER_AFTER = 1.0  # seconds; who presses twice at once means one
_A_MOMENT = 0.1
_SHOW_CURSOR = "\x1b[?25h"
_heard = threading.Event()


def hear_stops() -> None:
    """Handle them from here on, but those that whoever started this has it ignore (`nohup`, `&` in a script)."""
    for number, handler in ((signal.SIGTERM, signal.default_int_handler), (signal.SIGHUP, stop_without_window)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handler)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # written to whatever the main thread is stuck in
    sys.unraisablehook = _have_it_come_again
    threading.Thread(target=_end_at_the_second, args=(heard,), name="stops", daemon=True).start()


def _have_it_come_again(dropped: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it throws something away: of a stop, the command would go on to its end."""
    is_ours = issubclass(dropped.exc_type, KeyboardInterrupt)
    number = signal.SIGINT if is_ours else getattr(dropped.exc_value, "signal", None)  # Prefect's has one
    if number is None:
        sys.__unraisablehook__(dropped)
    else:
        threading.Timer(_A_MOMENT, os.kill, (os.getpid(), number)).start()


def was_stopped() -> bool:
    """Whether a stop was heard. Some libraries make another exception of it, as pydantic does where it serializes."""
    return _heard.wait(1)  # second: on a busy machine the thread that hears it may be about to say so


def break_nothing_off() -> None:
    """The command is done: a stop would only break off how Ray and Prefect end, with a trace. A second one still ends.

    What they had no more time for would stay: Ray's processes for a minute.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if breaking_off(number) is not None:
            signal.signal(number, _comes_late)


def _comes_late(number: int, frame: FrameType | None) -> None:
    pass


def _end_at_the_second(heard: int) -> None:
    first: dict[object, float] = {}  # by who handles it: Prefect, when it is done, sends its own SIGTERM once more
    while number := os.read(heard, 1):
        is_late = signal.getsignal(number[0]) is _comes_late
        handler = signal.default_int_handler if is_late else breaking_off(number[0])
        if handler is stop_without_window:
            handler = signal.default_int_handler  # a second stop, whichever was the first
        if handler is None:
            continue  # whoever handles it now knows better, `serve` for one
        _heard.set()
        if monotonic() - first.setdefault(handler, monotonic()) >= _IS_ANOTHER_AFTER:
            with suppress(OSError, ValueError):  # of a window that is gone
                if sys.stderr.isatty():
                    sys.stderr.write(_SHOW_CURSOR)  # a progress bar hides it
                sys.stderr.write("Stopped at once. `bgbatch status` shows what is done.\n")
                sys.stderr.flush()
            os._exit(INTERRUPTED)
