"""Bad days, on purpose: a process that dies, a store that errs, is slow or lies, a clock that is wrong.

Each is armed for the n-th step from now. A step is a call to a store or the edge of a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Crash(BaseException):
    """The process died here: nothing may catch it."""


class Kind(Enum):
    """What goes wrong."""

    CRASH = "the process dies"
    CRASH_IN_UPLOAD = "the process dies and leaves an unfinished upload"
    ERROR = "the store answers 500 for a while"
    REFUSE = "a bulk delete fails for some keys"
    LIE = "a bulk delete says done and did nothing"
    LAG = "listings show the past"
    SLOW = "a call takes minutes"
    MEANWHILE = "something else happens between two calls"


LASTS = {Kind.ERROR: 4, Kind.REFUSE: 6, Kind.LIE: 4, Kind.LAG: 6, Kind.SLOW: 1}
"""For how many steps."""


class Trouble:
    """What is armed, and how many steps are left until it strikes."""

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self.open_transactions = 0
        self._countdown = 0
        self._left = 0
        self._action: Callable[[], None] = lambda: None

    @property
    def is_armed(self) -> bool:
        return self.kind is not None

    def arm(self, kind: Kind, after: int, action: Callable[[], None] = lambda: None) -> None:
        """`action`: what happens meanwhile, or how time passes in a slow call."""
        self.kind, self._countdown, self._left, self._action = kind, after, LASTS.get(kind, 1), action

    def clear(self) -> None:
        self.kind = None

    def step(self, _where: str) -> None:
        """One more call to a store."""
        if self.kind is None:
            return
        self._countdown -= 1
        if self._countdown > 0:
            return
        match self.kind:
            case Kind.CRASH | Kind.CRASH_IN_UPLOAD:
                self.clear()
                raise Crash
            case Kind.ERROR:
                self._use_up()
                raise OSError(5, "InternalError")
            case Kind.SLOW:
                self._use_up()
                self._action()
            case Kind.MEANWHILE if self.open_transactions == 0:
                self.clear()
                self._action()

    def leaves_upload(self) -> bool:
        """Whether the next step ends a process in the middle of an upload."""
        return self.kind is Kind.CRASH_IN_UPLOAD and self._countdown <= 1

    def refuses_one(self) -> bool:
        return self._strikes(Kind.REFUSE)

    def lies_about_one(self) -> bool:
        return self._strikes(Kind.LIE)

    def lags(self) -> bool:
        return self._strikes(Kind.LAG)

    def _strikes(self, kind: Kind) -> bool:
        if self.kind is not kind or self._countdown > 0:
            return False
        self._use_up()
        return True

    def _use_up(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.clear()
