"""serve, work, upkeep: all of bgbatch on one machine, or its parts by themselves.

`serve` runs the portal and keeps three children: `work` takes batches from the line; `upkeep` purges, reconciles, sends
canaries, and merges the lake's small files at night; `schedule run-due` starts nights and sends webhooks. A child that
dies is started again; Ctrl-C or SIGTERM ends all, and what was under way goes on later.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

import typer

from flows.parts import Parts
from portal.cli.terminal import err, exit_codes, get_ready
from schemas.errors import BgbatchError
from schemas.ids import BatchId

_log = logging.getLogger("bgbatch")
_Done = TypeVar("_Done")

_EVERY = timedelta(minutes=10)
_CANARY_EVERY = timedelta(hours=1)
_CHILDREN = ("work", "upkeep", "schedule run-due --watch --in-line")
_RESTART_AFTER = 5.0


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    portal_only: Annotated[bool, typer.Option("--portal-only", help="Leave work and upkeep to others.")] = False,
) -> None:
    """Serve the portal and the REST API, work through submitted batches, clean up every 10 minutes. Ctrl-C ends it."""
    with exit_codes():
        parts = get_ready()
        import uvicorn

        from portal.web.app import create_app

        ending = threading.Event()
        keepers = [] if portal_only else [_keep_alive(child, ending) for child in _CHILDREN]
        app = create_app(parts.settings, parts.records, parts.transient, parts.clock, os.urandom)
        err.print(f"The portal is at http://{host}:{port}. Ctrl-C ends it.")
        try:
            # Not uvicorn's access log: a request line may hold a sign-in token, or a photo's name.
            uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning", log_config=None)
        finally:
            ending.set()
            for keeper in keepers:
                keeper.join()


def work() -> None:
    """Take submitted batches from the line, by fair share among accounts, and process them. Runs until stopped."""
    with exit_codes():
        parts = get_ready()
        ending = _until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.dispatch import Dispatcher
        from flows.parts import using
        from flows.process_batch import process_batch
        from schemas.batch import Counts

        def process(watched: Parts, batch_id: BatchId) -> Counts:
            with using(watched):
                return process_batch(batch_id)

        holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        with suppress(TerminationSignal):  # SIGTERM in the middle of a flow; the lease is given back by then
            Dispatcher(parts, holder, process, ending).run()


def upkeep(
    compact_at: Annotated[
        str, typer.Option("--compact", help='When to merge small lake files: a cron line, UTC. "": others do it.')
    ] = "0 3 * * *",
) -> None:
    """Clean up and reconcile every 10 minutes, send a canary every hour, merge at night. Runs until it is stopped."""
    with exit_codes():
        from flows.timetable import check

        if compact_at:
            check(compact_at, "UTC")
        parts = get_ready()
        ending = _until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.canary import send_canary
        from flows.cleanup import cleanup
        from flows.parts import using
        from flows.reconcile import reconcile

        canary_at = compacted_at = parts.clock()
        with using(parts), suppress(TerminationSignal):
            while not ending.is_set():
                next_at = parts.clock() + _EVERY
                _try("cleanup", cleanup)
                _try("reconcile", reconcile)
                if parts.clock() >= canary_at:
                    _try("canary", lambda: send_canary(parts))
                    canary_at = parts.clock() + _CANARY_EVERY
                compacted_at = _compact_if_due(compact_at, compacted_at, next_at, parts)
                ending.wait(max(0.0, (next_at - parts.clock()).total_seconds()))


def _compact_if_due(cron: str, last: datetime, until: datetime, parts: Parts) -> datetime:
    """Merge in the time that is left until the next cleanup; since when all has been merged."""
    from flows.compact import compact
    from flows.timetable import newest_due

    now = parts.clock()
    if not cron or newest_due(cron, "UTC", last, now) is None:
        return last
    done = _try("compact", lambda: compact(until))
    return last if done is not None and done.left else now


def _try(what: str, step: Callable[[], _Done]) -> _Done | None:
    """One step of upkeep; what goes wrong is said, and tried again in 10 minutes (a merge: the next night)."""
    try:
        return step()
    except BgbatchError as fault:
        _log.error("%s: %s: %s", what, fault.code, fault)
    except Exception as fault:  # noqa: BLE001  # the next step must run whatever ended this one
        _log.error("%s: %s", what, type(fault).__name__)
    return None


def _until_stopped() -> threading.Event:
    """Set by SIGTERM or Ctrl-C: what is under way is brought to a good end."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    return ending


def _keep_alive(child: str, ending: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=_run_child, args=(child, ending), name=child)
    thread.start()
    return thread


def _run_child(child: str, ending: threading.Event) -> None:
    """Run `bgbatch CHILD`, again whenever it ends by itself, until `ending`; then let it end, or kill it."""
    command = [sys.executable, "-c", "from portal.cli.app import main; main()", *child.split()]
    while not ending.is_set():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not ending.wait(0.5):
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # Prefect breaks a flow off on SIGTERM; this lets it end its step
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        elif not ending.is_set():
            _log.error("%s ended with code %s and is started again", child, process.returncode)
            time.sleep(_RESTART_AFTER)
