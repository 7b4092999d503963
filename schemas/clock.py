"""Time is an argument: whoever needs it gets a `Clock`, so that a day can pass in a millisecond in a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present in UTC, with its time zone set. `system_clock` at the entry points."""


def system_clock() -> datetime:
    """The machine's clock. Only entry points (command line, portal, flows) name it."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class ShiftedClock:
    """The machine's clock moved by `by`; it can be sent to another process. The demo lets a day pass with it."""

    by: timedelta

    def __call__(self) -> datetime:
        """Return the shifted present, in UTC."""
        return system_clock() + self.by
