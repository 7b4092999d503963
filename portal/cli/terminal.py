"""What all commands share: what goes to which stream, how faults become exit codes, how progress looks.

Results go to stdout, all else to stderr, so that `--json` output can be piped. Exit codes: 0 all well, 1 our fault, or
not finished, 2 a mistake in the call or the setup, 3 some items failed, 4 all items failed, 5 called off, 130
interrupted.
"""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from io import TextIOWrapper
from itertools import pairwise
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from flows.engine import prepare
from flows.parts import Parts, open_parts
from portal.cli.stopping import INTERRUPTED, was_stopped
from schemas.batch import BatchState, Counts
from schemas.clock import system_clock
from schemas.errors import BgbatchError, UserError
from schemas.industries import Industry
from schemas.naming import shown
from store.logs import Unforeseen, kind_and_place, log_trace, set_up
from store.settings import Settings

OUR_FAULT, CALLERS_MISTAKE, SOME_FAILED, ALL_FAILED, CALLED_OFF = 1, 2, 3, 4, 5
_OF_STATE = {
    BatchState.COMPLETED: 0,
    BatchState.PARTIALLY_COMPLETED: SOME_FAILED,
    BatchState.FAILED: ALL_FAILED,
    BatchState.CANCELLED: CALLED_OFF,
}

_WIDEST = 1000
LONGEST_PATH = 1024
_MAY_BE_EMPTY = ("--compact",)
"""Options of which nothing is a value."""

_GO_ON = "What is done stays done: `bgbatch status` shows it, and `bgbatch run BATCH` does the rest."

_Plain = partial(Console, markup=False, emoji=False)
"""Prints what it is given as it is: a photo may be called `[red].jpg`."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
TheAccount = Annotated[str, typer.Argument(help="Account name or id.")]
ItsIndustry = Annotated[
    str | None, typer.Option(help=f"One of: {', '.join(Industry)}. Without it: nothing trains a model.")
]
TheReason = Annotated[str, typer.Option(help="Why. Kept in the ledger for ever: no names, no addresses.")]

out = _Plain()
_err = _Plain(stderr=True, highlight=False)


def say(line: str | Text, *, highlight: bool = True) -> None:
    """A line on stdout, as long as it is: no word is broken, for an id or a path is there to be copied."""
    out.print(line, highlight=highlight, soft_wrap=True)


def tell(line: str | Text) -> None:
    """The same on stderr: all that is no result."""
    _err.print(line, soft_wrap=True)


def read_settings() -> Settings:
    """The settings in force. Raises `UserError` that names the variable at fault, or the stores that do not fit."""
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            "".join(f"BGBATCH_{str(name).upper()}: " for name in each["loc"][:1])
            + each["msg"].removeprefix("Value error, ")
            for each in error.errors()
        )
        raise UserError(f"A setting cannot be used. {faults}.") from None
    except RuntimeError:  # platformdirs: no HOME, and the system does not know the user
        raise UserError("The user of this process has no home. Name a folder to use instead in BGBATCH_HOME.") from None


def get_ready() -> Parts:
    """Open the stores that the settings name, and ready the engine for a flow."""
    settings = read_settings()
    set_up(settings.log)
    prepare(settings)
    return open_parts(settings, system_clock)


@contextmanager
def stores(how_to_go_on: str = "") -> Iterator[Parts]:
    """The stores that the settings name, for what a command does with them: see `get_ready`, `exit_codes`."""
    with exit_codes(how_to_go_on):
        yield get_ready()


@contextmanager
def exit_codes(how_to_go_on: str = "") -> Iterator[None]:
    """Turn a fault into one line on stderr and an exit code; the trace of a defect is for the log alone.

    `how_to_go_on`: what to say when something ended it that was no mistake of the caller's: a fault, a defect, Ctrl-C.
    """
    try:
        yield
    except BgbatchError as fault:
        _say_fault(fault.code, *([str(fault)] if fault.fault == "user" else [str(fault), how_to_go_on]))
        raise typer.Exit(OUR_FAULT if fault.fault == "ours" else CALLERS_MISTAKE) from None
    except BrokenPipeError:  # whoever read what is printed has read enough
        raise
    except OSError as fault:
        say_file_fault(fault, how_to_go_on)
        raise typer.Exit(CALLERS_MISTAKE) from None
    except SQLAlchemyError as fault:
        why = f"the records cannot be used ({type(fault).__name__})."
        what_then = "Check BGBATCH_RECORDS_URL; where it is empty, whether BGBATCH_HOME may be written and has room."
        _say_fault("records_fault", why, what_then, how_to_go_on)
        raise typer.Exit(OUR_FAULT) from None
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != signal.SIGTERM:  # Ray handles that one so once it runs
            raise
        tell(f"Stopped. {how_to_go_on or _GO_ON}")
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except UnicodeEncodeError:
        _say_fault(UserError.code, "A name or an argument is in no UTF-8. Write it in UTF-8, or rename the file.")
        raise typer.Exit(CALLERS_MISTAKE) from None
    except Exception as fault:  # noqa: BLE001 - whatever it is, a person is told in a sentence
        if was_stopped():
            tell(f"Stopped. {how_to_go_on or _GO_ON}")
            raise typer.Exit(INTERRUPTED) from None
        if not isinstance(fault, Unforeseen):  # its trace is in the log by now
            log_trace(fault)
        why = f"Something went wrong that nobody foresaw ({kind_and_place(fault)})."
        trace = "If it stays so, end the command with `2>FILE`: FILE then holds a trace."
        _say_fault(BgbatchError.code, why, how_to_go_on or _GO_ON, trace)
        raise typer.Exit(OUR_FAULT) from None


def say_file_fault(fault: OSError, how_to_go_on: str = "") -> None:
    """One line on stderr: what a file or a disk would not do."""
    _say_fault("file_fault", _told(fault), how_to_go_on or "Then run the command again.")


def _say_fault(code: str, *sentences: str) -> None:
    tell(Text.assemble((code, "bold red"), f": {' '.join(filter(None, sentences))}"))


def _told(fault: OSError) -> str:
    """What a file or a disk would not do, to which file where that is known, and what to do."""
    what = fault.strerror or str(fault) or type(fault).__name__
    named = fault.filename2 or fault.filename  # the name that a file was to get, and not what it was called till then
    where = f": {shown(str(named), LONGEST_PATH)}" if named else ""
    advice = {
        errno.ENOSPC: "Make room, or choose a place on another disk",
        errno.EDQUOT: "Make room, or choose a place on another disk",
        errno.EACCES: "Change its permissions, or choose another place",
        errno.EROFS: "Choose another place",
    }.get(fault.errno or 0, "Check the place")
    return f"{what}{where}. {advice}."


def exit_for(state: BatchState) -> None:
    """End with the exit code of a batch that is in `state` now: 0 only when all of it is done."""
    code = _OF_STATE.get(state, OUR_FAULT)
    if code:
        raise typer.Exit(code)


class Bar:
    """A progress bar that is shown."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)

    def show(self, done: int, of: int) -> None:
        """So many are done of so many."""
        self._progress.update(self._task, completed=done, total=of)

    def watch(self, counts: Counts) -> None:
        """How far a batch is: see `Parts.watch`."""
        self.show(counts.done + counts.failed, counts.items)

    def rename(self, what: str) -> None:
        """What is going on by now."""
        self._progress.update(self._task, description=what)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar on stderr until the end of the block. `total` None: it is not known yet."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=_err) as progress:
        yield Bar(progress, progress.add_task(what, total=total))


def show_json(value: object) -> None:
    """Print a value as JSON on stdout; times as the REST API writes them."""
    print(json.dumps(value, indent=2, default=_in_json))  # noqa: T201


def show_json_list(values: Iterable[object]) -> None:
    """Print a list as JSON on stdout, each value as it comes: there may be more of them than memory holds."""
    before = "["
    for value in values:
        print(before, json.dumps(value, indent=2, default=_in_json), sep="\n", end="")  # noqa: T201
        before = ","
    print("[]" if before == "[" else "\n]")  # noqa: T201


def _in_json(value: object) -> object:
    return to_jsonable_python(value) if isinstance(value, datetime) else str(value)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], if_none: str = "") -> None:
    """Print rows as a table on stdout; in a window too narrow for it, each value on a line of its own.

    No word is broken: an id or a path is there to be copied. `if_none`: where there is no row, how the first comes.
    """
    if not rows:
        say("There is none.")
        if if_none:
            tell(if_none)
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    # Nobody's window: a line of the table is one line of the pipe or file.
    most = out.width if out.is_terminal else _WIDEST
    widths = _widths([*zip(columns, *cells, strict=True)], most - 3 * len(columns) - 1)
    if widths is None:
        for row in cells:
            show_fields(dict(zip(columns, row, strict=True)))
            out.print()
        return
    table = Table(*(Column(name, width=width, overflow="fold") for name, width in zip(columns, widths, strict=True)))
    for row in cells:
        table.add_row(*row)
    _Plain(width=most).print(table)


def _widths(cells: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column is in so much room, no word broken; None when that is too little."""
    widths = [max(cell_len(word) for cell in column for word in (*cell.split(), "")) for column in cells]
    needs = [max(cell_len(line) for cell in column for line in (*cell.splitlines(), "")) for column in cells]
    left = room - sum(widths)
    for rest, at in enumerate(sorted(range(len(cells)), key=lambda at: needs[at] - widths[at]), start=1):
        more = min(needs[at] - widths[at], max(left, 0) // (len(cells) - rest + 1))
        widths[at] += more
        left -= more
    return widths if left >= 0 else None


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line, on stdout."""
    width = max(map(len, fields))
    for name, value in fields.items():
        say(f"{name:<{width}}  {value}", highlight=False)


def require_no_gap(words: Sequence[str]) -> None:
    """End where a word of the command is empty: a script's variable that is not set would mean this folder, or all."""
    for before, word in pairwise(words):
        if not word and before not in _MAY_BE_EMPTY:
            after = f" after {before}" if before.startswith("--") else ""
            _say_fault(UserError.code, f"There is nothing{after} where something is to stand. Is a variable not set?")
            raise SystemExit(CALLERS_MISTAKE)


def quiet_libraries() -> None:
    """Keep other programs' chatter out of the user's terminal; warnings still show. What a stream lacks is escaped."""
    set_up("text")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
