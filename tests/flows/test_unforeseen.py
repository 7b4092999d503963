"""What nobody foresaw reaches Prefect, and people, without what it said."""

from __future__ import annotations

import errno
import io
import logging

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from flows.lease import LeaseLost
from flows.unforeseen import without_its_text
from schemas.errors import StoreFault
from store import logs
from store.logs import Unforeseen

SECRET = "grandmothers-portrait.jpg"


def told(fault: Exception) -> Exception:
    """What becomes of it."""

    @without_its_text
    def step() -> None:
        raise fault

    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is by then
        step()
    return raised.value


@pytest.mark.parametrize(
    "fault", [ValueError(SECRET), IntegrityError("INSERT", None, Exception(SECRET)), OSError(SECRET)]
)
def test_its_kind_and_place_are_told_and_its_trace_is_in_the_log(fault: Exception) -> None:
    written = io.StringIO()
    logs.set_up("text", written)
    became = told(fault)
    logs.set_up("text")
    assert isinstance(became, Unforeseen)
    assert str(became).startswith(f"{type(fault).__name__} at unforeseen.py:")
    assert "in step" in written.getvalue()
    assert SECRET not in written.getvalue()


def test_what_has_a_meaning_stays_as_it_is() -> None:
    away = OperationalError("", None, Exception("away"))
    for fault in (StoreFault("Full."), LeaseLost(), away, Unforeseen("KeyError at x.py:1")):
        assert told(fault) is fault
    full = told(OSError(errno.ENOSPC, "No space left on device", SECRET))
    assert (isinstance(full, OSError), str(full)) == (True, "[Errno 28] No space left on device")


def test_prefects_lines_of_a_failure_that_is_told_anyway_are_left_out() -> None:
    written = io.StringIO()
    logs.set_up("text", written)
    logger = logging.getLogger("prefect.task_runs")
    for fault in (Unforeseen("KeyError at x.py:1"), StoreFault("Full."), LeaseLost()):
        try:
            raise fault
        except Exception:
            logger.exception("Task run failed with exception: %r - Retries are exhausted", fault)
            logger.warning("Task run failed with exception: %r - Retry 1/2 will start 10 second(s) from now", fault)
    logger.error("Finished in state Failed('Task run encountered an exception')")
    logs.set_up("text")
    assert [line.rpartition(" - ")[2] for line in written.getvalue().splitlines()] == [
        "Retry 1/2 will start 10 second(s) from now"
    ] * 3
