"""The door of the command line: nobody looks in, and Ctrl-C while all of it is imported ends it without a trace."""

from __future__ import annotations

import signal

from store.no_core_dumps import close_to_others


def main() -> None:
    """Import the command line, then run it. Whoever started it deaf to Ctrl-C (`&` in a script) has it so."""
    close_to_others()
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from portal.cli.app import main as run

    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
