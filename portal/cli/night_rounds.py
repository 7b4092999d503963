"""Rounds: look which nights are due or unfinished, and send the webhooks that wait, again and again or once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from flows import engine
from flows.lease import new_holder
from flows.nights import steps as night_steps
from flows.nights.watch import NightWatch
from flows.nights.worker import Worker
from flows.parts import Parts
from portal import webhooks as telling
from schemas.errors import BgbatchError
from store.records import nights
from store.records.nights import Night

_log = logging.getLogger(__name__)

_LOOK_EVERY = 20.0  # seconds
_SEND_EVERY = 5.0  # seconds
_AT_ONCE = 4  # schedules


def look_until(ending: threading.Event, look: Callable[[], object], pause: float = _LOOK_EVERY) -> None:
    """Look again and again until `ending` is set; what ends a look, such as records that are down, is said."""
    while not ending.is_set():
        try:
            look()
        except BgbatchError as fault:
            _log.warning("a look at the nights ended with %s; the next one goes on", fault.code)
        except OperationalError as fault:
            _log.warning("the records could not be reached (%s); the next look goes on", type(fault).__name__)
        ending.wait(pause)


def keep_looking(parts: Parts, in_line: bool, ending: threading.Event) -> None:
    """Nights and webhooks by turns of their own: a night that takes hours keeps nobody's messages back."""
    send = threading.Thread(target=_send_until, args=(parts, ending), name="webhooks")
    send.start()
    try:
        with NightWatch(parts, worker_in_line, _AT_ONCE) as nightly:
            look_until(ending, nightly.look if in_line else lambda: look_after_all(parts, in_line=False))
    finally:
        ending.set()
        send.join()


def _send_until(parts: Parts, ending: threading.Event) -> None:
    def send() -> None:
        try:
            send_webhooks(parts)
        except (BgbatchError, OperationalError):
            raise
        except Exception as fault:  # noqa: BLE001 - nothing starts this thread again
            _log.error("a round of webhooks ended with %s; the next one goes on", type(fault).__name__)

    look_until(ending, send, _SEND_EVERY)


def worker_in_line() -> Worker:
    """One under a name of this process's own, which leaves the cutting to others."""
    return Worker(new_holder(), os.urandom, None)


def look_after_all(parts: Parts, *, in_line: bool) -> list[Night]:
    """Begin, go on with or skip what is due; those nights. `in_line`: the cutting is left to dispatchers."""
    if in_line:
        return night_steps.run_due(parts, worker_in_line(), at_once=_AT_ONCE)
    if not night_steps.anything_to_do(parts):  # Prefect and Ray take seconds to start
        return []
    if _are_enough_at_work(parts):
        return night_steps.skip_due(parts, worker_in_line())
    from flows.nights.due_nights import due_nights

    with engine.running(parts):
        return due_nights()


def _are_enough_at_work(parts: Parts) -> bool:
    """Each process that cuts has a Ray and a network of its own, and a cron job starts one each minute."""
    with parts.records.reading() as connection:
        return nights.count_held(connection, parts.clock()) >= _AT_ONCE


def send_webhooks(parts: Parts) -> None:
    """Send what waits and is due."""
    telling.send_due(parts.records, parts.clock, telling.default_fetcher())
