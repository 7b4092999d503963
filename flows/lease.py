"""Keeping a lease while the work under it goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

_log = logging.getLogger(__name__)


@contextmanager
def renewed(every: float, renew: Callable[[], bool]) -> Iterator[None]:
    """Call `renew` every so many seconds until the end of the block, or until it says that the lease is lost.

    Records that cannot be reached for a moment cost one renewal, not the lease.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(every):
            try:
                if not renew():
                    return
            except SQLAlchemyError as fault:
                _log.warning("a lease could not be renewed (%s); it is tried again", type(fault).__name__)

    keeper = threading.Thread(target=keep, daemon=True, name="lease")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
