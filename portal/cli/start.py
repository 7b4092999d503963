"""The door of the command line: nobody looks in, and Ctrl-C while all of it is imported ends it without a trace."""

from __future__ import annotations

import os
import signal
import sys

from store.no_core_dumps import close_to_others


def main() -> None:
    """Import the command line, then run it. Whoever started it deaf to Ctrl-C (`&` in a script) has it so."""
    close_to_others()
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_what_is_closed()
    from portal.cli.app import main as run
    from portal.cli.stopping import break_nothing_off, hear_stops

    hear_stops()
    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    finally:
        break_nothing_off()


def _open_what_is_closed() -> None:
    """Have a stream that was closed (`2>&-`) lead nowhere, here and in all that is started from here.

    Else the next file that is opened has its number, and what a library prints there stands in a cutout.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 - until the end of the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
