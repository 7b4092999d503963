"""How a line of the log looks, for people (text) or for machines (JSON, one object a line), and what it is about.

A line holds ids, codes and numbers. No customer's name, address or file name: messages are written so, and of an
exception from elsewhere the kind and the places in the code are kept, but not its text, which may quote anything.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from sqlalchemy.exc import OperationalError

from schemas.errors import BgbatchError

_OURS = ("bgbatch", "consent", "flows", "lake", "portal", "schemas", "store", "workers")
_LOG = "bgbatch.trace"
"""The logger of traces alone: who sits at a terminal is told in a sentence, and needs no trace."""
_SAID_ALREADY = ("Task run failed with", "Encountered exception during execution", "Finished in state Failed")
_STOPPED = ("Crash detected", "Finished in state Crashed")
_SAYS_ALL = (BgbatchError, OperationalError)
"""By its kind and message; where it was in the code tells nobody more: the records are away for all."""
_ON_REQUEST = ("interrupt signal", "termination signal", "cancelled by the runtime", "system exit call")
_RAY_TOKEN = "ray._private.authentication.authentication_token_setup"
_ROOT = Path(__file__).parent.parent
_about: ContextVar[dict[str, str]] = ContextVar("about")


class ToldAnyway(Exception):
    """What whoever waits for a flow says in a line of its own, so that no trace of an engine need say it, too."""


class Unforeseen(ToldAnyway):
    """What nobody foresaw: the kind of an exception and its place in the code, and nothing of what it said.

    It is no `BgbatchError`: trying again may not help, and who gets one after the other makes room for a new process.
    """


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Lines written in this block are about these: `request_id`, `account_id`, `batch_id`, `schedule_id`."""
    token = _about.set(_about.get({}) | ids)
    try:
        yield
    finally:
        _about.reset(token)


def note(**ids: str) -> None:
    """The rest of the surrounding `about` block is about these, too, also in its other threads."""
    _about.get({}).update(ids)


def set_up(form: str, to: TextIO | None = None) -> None:
    """Write the log to stderr, or elsewhere: `text` holds warnings, `json` also what was done, and each request."""
    handler = logging.StreamHandler(to or sys.stderr)
    is_terminal = handler.stream.isatty()
    handler.setFormatter(Json() if form == "json" else Text(with_places=not is_terminal))
    handler.addFilter(lambda record: not (is_terminal and form != "json" and record.name == _LOG))
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each.formatter, Text | Json)] + [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO if form == "json" else logging.WARNING)
    for name in ("alembic", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):  # its own handler would write what exceptions say
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in ("prefect.flow_runs", "prefect.task_runs", _RAY_TOKEN):
        logging.getLogger(name).addFilter(_is_news)


def log_trace(fault: BaseException) -> None:
    """Write where it was that something went wrong which nobody foresaw; not to a terminal."""
    logging.getLogger(_LOG).error("%s", kind_and_place(fault), exc_info=fault)


def kind_and_place(fault: BaseException) -> str:
    """What kind it is, and where it was in our own code, for a sentence. Of one without its text, what it tells."""
    if isinstance(fault, Unforeseen):
        return str(fault)
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if _is_ours(Path(frame.filename))] or frames[-1:]
    return f"{type(fault).__name__}{f' at {Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours else ''}"


def _is_ours(file: Path) -> bool:
    return file.is_relative_to(_ROOT) and file.relative_to(_ROOT).parts[0] in _OURS


class Text(logging.Formatter):
    """A line for people. `with_places`: of exceptions, too."""

    def __init__(self, with_places: bool = True) -> None:
        super().__init__()
        self._with_places = with_places

    def format(self, record: logging.LogRecord) -> str:
        """Level, logger, message; of an exception that has no sentence of its own, its places and kind."""
        line = f"{record.levelname} {record.name}: {record.getMessage()}"
        fault = _fault_of(record)
        if fault is not None and not isinstance(fault, _SAYS_ALL):
            frames = _frames(fault) if self._with_places else ()
            line = "\n".join((line, *frames, type(fault).__name__))
        return line


class Json(logging.Formatter):
    """A line for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """One object. `extra={"facts": {…}}` of a call become fields of their own."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get({}),
            **getattr(record, "facts", {}),
        }
        if (fault := _fault_of(record)) is not None:
            line |= {"error": type(fault).__name__, "where": _frames(fault)}
        return json.dumps(line, default=str, ensure_ascii=False)


def _fault_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _frames(fault: BaseException) -> list[str]:
    return [each.strip() for each in traceback.format_tb(fault.__traceback__)]


def _is_news(record: logging.LogRecord) -> bool:
    """Not what somebody asked for, or what is so at each start, or what whoever waits for a flow says anyway.

    Prefect calls each flow that was stopped by a signal a crash; Ray warns that its token is on, as it should be.
    """
    message = record.getMessage()
    fault = _fault_of(record)
    if message.startswith(_SAID_ALREADY) and (fault is None or isinstance(fault, BgbatchError | ToldAnyway)):
        return "will start" in message  # another try
    if message.startswith("Token authentication is enabled"):
        return False
    return not (message.startswith(_STOPPED) and any(each in message for each in _ON_REQUEST))
