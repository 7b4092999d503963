"""upkeep, and what it does again and again, by a command of its own: cleanup, reconcile, canary."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from consent.ledger import newest_withdrawal
from flows import engine
from flows.cleaning import purge
from flows.nights import timetable
from flows.parts import Parts, parts_to_clean, using
from portal.cli.children import until_stopped
from portal.cli.terminal import AsJson, exit_codes, read_settings, say, show_json, stores
from schemas.clock import system_clock
from schemas.counting import so_many
from schemas.errors import BgbatchError, EngineFault
from store.logs import kind_and_place, set_up
from store.purging.purge import PurgeReport
from store.records.expired import forget_expired
from store.settings import Settings

if TYPE_CHECKING:
    from lake.erase import Reconciled

_log = logging.getLogger("bgbatch")
_Done = TypeVar("_Done")

_EVERY = timedelta(minutes=10)
_LOOK_EVERY = 20.0  # seconds
_CANARY_EVERY = timedelta(hours=1)


def upkeep(
    compact_at: Annotated[
        str, typer.Option("--compact", help='When to merge small lake files: a cron line, UTC. "": never.')
    ] = "0 3 * * *",
) -> None:
    """Clean up and reconcile every 10 minutes and after each withdrawal; a canary every hour; merge at night."""
    with exit_codes():
        if compact_at:
            timetable.check(compact_at, "UTC")
        settings_to_clean()
        ending = until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.canary import send_canary

        parts: Parts | None = None
        canary_at = compacted_at = system_clock()
        with suppress(TerminationSignal):
            while not ending.is_set():
                now = system_clock()
                next_at = now + _EVERY
                # A clock that was ahead when the machine started, and was set right since, would have it wait as long.
                canary_at, compacted_at = min(canary_at, now + _CANARY_EVERY), min(compacted_at, now)
                withdrawn = _newest_withdrawal(parts)
                _try("cleanup", partial(_opened_anew, cleaned))
                _try("reconcile", partial(_opened_anew, reconciled))
                parts = parts or _try("start", _ready_for_more)
                if parts is not None:
                    with using(parts):
                        _try("forget", partial(_forget, parts))
                        if system_clock() >= canary_at and _try("canary", partial(send_canary, parts)) is not None:
                            canary_at = system_clock() + _CANARY_EVERY
                        compacted_at = _compact_if_due(compact_at, compacted_at, next_at, parts)
                    parts.records.engine.dispose()  # a server that hangs answers on no connection from before
                _rest(ending, next_at, parts, withdrawn)


def _rest(ending: threading.Event, until: datetime, parts: Parts | None, withdrawn: int) -> None:
    """Until the next round. It comes at once when something was taken back since: nobody shall read its files."""
    left = _EVERY  # a clock that is set back makes it no longer, nor does a server that hangs at each look
    while (seconds := min(until - system_clock(), left).total_seconds()) > 0:
        wait = min(seconds, _LOOK_EVERY)
        if ending.wait(wait) or _newest_withdrawal(parts) > withdrawn:
            return
        left -= timedelta(seconds=wait)


def _newest_withdrawal(parts: Parts | None) -> int:
    """Its number, or 0 while that cannot be asked."""
    if parts is None:
        return 0
    try:
        with parts.records.reading() as connection:
            return newest_withdrawal(connection)
    except SQLAlchemyError:
        return 0
    finally:
        parts.records.engine.dispose()


def _opened_anew(step: Callable[[Parts], _Done]) -> _Done:
    """With stores opened anew, and whatever is wrong with them: nothing may keep what is due, or was taken back."""
    parts = ready_to_clean()
    try:
        return step(parts)
    finally:
        parts.records.engine.dispose()


def _ready_for_more() -> Parts:
    """For what is no deletion. Raises what is wrong. It waits for nobody for long, or else no cleanup would follow."""
    parts = ready_to_clean()
    for trouble in parts.troubles:
        raise trouble
    return parts


def _forget(parts: Parts) -> int:
    with parts.records.transaction() as connection:
        return forget_expired(connection, parts.clock())


def _compact_if_due(cron: str, last: datetime, until: datetime, parts: Parts) -> datetime:
    """Merge in the time that is left until the next cleanup; since when all has been merged."""
    from flows.compact import compact

    now = parts.clock()
    if not cron or timetable.newest_due(cron, "UTC", last, now) is None:
        return last
    done = _try("compact", lambda: compact(until))
    is_left = done.left > 0 if done is not None else parts.clock() >= until  # a fault is said after all other merges
    return last if is_left else now


def _try(what: str, step: Callable[[], _Done]) -> _Done | None:
    """One step of upkeep; what goes wrong is said, and tried again in 10 minutes (a merge: the next night)."""
    try:
        return step()
    except BgbatchError as fault:
        _log.error("%s: %s: %s", what, fault.code, fault)
    except Exception as fault:  # noqa: BLE001  # the next step must run whatever ended this one
        _log.error("%s: %s", what, kind_and_place(fault))
    return None


def cleanup(as_json: AsJson = False) -> None:
    """Purge every batch whose time has come, and leave receipts. Run it every 10 minutes."""
    with exit_codes():
        report = cleaned(ready_to_clean())
        if as_json:
            receipts = [each.model_dump(mode="json") for each in report.receipts]
            show_json({"receipts": receipts, "strays": report.strays})
        else:
            batches = so_many(len(report.receipts), "batch")
            say(f"{batches} purged, {so_many(report.strays, 'stray object')} deleted.")


def cleaned(parts: Parts) -> PurgeReport:
    """What a cleanup did on these parts. Raises a `BgbatchError` for what is wrong, after purging all that can be."""

    def by_flow() -> PurgeReport:
        from flows.cleanup import cleanup as cleanup_flow

        return cleanup_flow()

    return _by_prefect(parts, by_flow, _cleaned_without_prefect)


def reconciled(parts: Parts) -> Reconciled:
    """What a reconcile erased on these parts. Raises as `cleaned` does, after erasing all that can be."""

    def by_flow() -> Reconciled:
        from flows.reconcile import reconcile as reconcile_flow

        return reconcile_flow()

    return _by_prefect(parts, by_flow, _reconciled_without_prefect)


def _by_prefect(
    parts: Parts, by_flow: Callable[[], _Done], without_prefect: Callable[[Parts, Exception], EngineFault]
) -> _Done:
    """What the flow did; whatever keeps Prefect from running must not keep what is due, or was taken back."""
    try:
        engine.start()
    except Exception as trouble:  # noqa: BLE001 - it is named in what is raised
        raise without_prefect(parts, trouble) from None
    try:
        with using(parts):
            return by_flow()
    except (BgbatchError, SQLAlchemyError):
        raise
    except Exception as trouble:  # noqa: BLE001 - the same
        raise without_prefect(parts, trouble) from None


def _cleaned_without_prefect(parts: Parts, trouble: Exception) -> EngineFault:
    report = purge(parts)
    return EngineFault(
        f"Prefect did not run the cleanup ({type(trouble).__name__}): {so_many(len(report.receipts), 'batch')} "
        f"purged without it, with {so_many(len(report.faults), 'fault')}. Look at its server, and at the space under "
        "BGBATCH_HOME."
    )


def _reconciled_without_prefect(parts: Parts, trouble: Exception) -> EngineFault:
    from flows.reconciling import reconcile as reconcile_lake

    report = reconcile_lake(parts)
    return EngineFault(
        f"Prefect did not run the reconcile ({type(trouble).__name__}): {so_many(report.objects, 'lake file')} erased "
        "without it. Look at its server, and at the space under BGBATCH_HOME."
    )


def ready_to_clean() -> Parts:
    """As `get_ready`, whatever is wrong: the parts name the troubles."""
    return parts_to_clean(settings_to_clean(), system_clock)


def settings_to_clean() -> Settings:
    """The settings in force, with logs and engine ready for a flow."""
    settings = read_settings()
    set_up(settings.log)
    with suppress(OSError):  # a home that cannot be written keeps Prefect from running, and not what is due
        engine.prepare(settings)
    return settings


def reconcile(as_json: AsJson = False) -> None:
    """Compare the lake with the ledger; erase whatever has no live grant behind it. Run it every 10 minutes."""
    with exit_codes():
        parts = ready_to_clean()  # an unfit bucket for photos must not keep in the lake what was taken back
        report = reconciled(parts)
        if as_json:
            show_json(report.model_dump(mode="json"))
        else:
            grants = so_many(len(report.receipts), "grant")
            say(f"{so_many(report.objects, 'lake file')} erased; {grants} wholly erased.")
            if report.lost:
                say(f"{so_many(report.lost, 'lake file')} gone without a withdrawal: readers go on without.")
        for trouble in parts.troubles:
            raise trouble


def canary() -> None:
    """Send a batch of our own, to see that nothing of it stays. Run it every hour; cleanups look for it."""
    with stores() as parts:
        from flows.canary import send_canary

        say(send_canary(parts))
