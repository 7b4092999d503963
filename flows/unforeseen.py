"""What nobody foresaw, before Prefect hears of it: Prefect keeps and prints what exceptions say, which may be names.

The log gets the trace; Prefect, and whoever waits for the flow, the kind of the exception and its place in the code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect.exceptions import ExternalSignal
from sqlalchemy.exc import InterfaceError, OperationalError

from schemas.errors import BgbatchError
from store.logs import ToldAnyway, Unforeseen, kind_and_place, log_trace

P = ParamSpec("P")
R = TypeVar("R")


def without_its_text(step: Callable[P, R]) -> Callable[P, R]:
    """What a flow or task does, raising `Unforeseen` for what nobody foresaw. What has a meaning stays as it is.

    Not for the function of a flow itself: Prefect reads its annotations in the module where this one is.
    """

    @functools.wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except (BgbatchError, ToldAnyway, OperationalError, InterfaceError):
            raise
        except Exception as fault:  # noqa: BLE001 - all that is not named above
            if isinstance(fault, SystemError) and isinstance(stop := fault.__cause__, ExternalSignal):
                raise stop from None  # Prefect's for SIGTERM, which Ray's C code lets out in this wrapping
            if isinstance(fault, OSError) and fault.errno is not None:  # such as a full disk: all but which file it was
                raise OSError(fault.errno, fault.strerror) from None
            log_trace(fault)
            raise Unforeseen(kind_and_place(fault)) from None

    return run
