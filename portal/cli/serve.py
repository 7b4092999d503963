"""serve, work, upkeep: all of bgbatch on one machine, or its parts by themselves.

`serve` runs the portal and keeps a Prefect server and three children: `work` takes batches from the line; `upkeep`
purges, reconciles, sends canaries, and merges the lake's small files at night; `schedule run-due` starts nights and
sends webhooks. A child that dies is started again; Ctrl-C or SIGTERM ends all, and what was under way goes on later.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from flows import engine, timetable
from flows.parts import Parts, using
from portal.cli.children import BGBATCH, Children, State, keep_prefect, until_stopped
from portal.cli.terminal import exit_codes, get_ready, tell
from portal.cli.upkeep import cleaned, ready_to_clean, settings_to_clean
from schemas.batch import Counts
from schemas.clock import system_clock
from schemas.errors import BgbatchError, UserError
from schemas.ids import BatchId
from store.expired import forget_expired
from store.logs import kind_and_place
from store.purge import PurgeReport

if TYPE_CHECKING:
    from portal.web.health import Serving

_log = logging.getLogger("bgbatch")
_Done = TypeVar("_Done")

_EVERY = timedelta(minutes=10)
_CANARY_EVERY = timedelta(hours=1)
_LAST_ANSWERS = 5  # seconds; an upload whose line stands still would hold the end up for ever
_CHILDREN = ("work", "upkeep", "schedule run-due --watch --in-line")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    portal_only: Annotated[bool, typer.Option("--portal-only", help="Leave work and upkeep to others.")] = False,
) -> None:
    """Serve the portal and the REST API, work through submitted batches, clean up every 10 minutes. Ctrl-C ends it."""
    with exit_codes():
        parts = get_ready()
        listener = _listen(host, port)
        import uvicorn

        from portal.web.app import create_app
        from portal.web.health import Serving

        ending = until_stopped()  # uvicorn takes the signals over while it serves, and hands them on afterwards
        all_have_ended = threading.Event()
        states: list[State] = []
        server, children = Children(all_have_ended, parts.clock, states), Children(ending, parts.clock, states)
        app = create_app(parts.settings, parts.records, parts.transient, parts.clock, os.urandom)
        app.state.serving = Serving(states)
        starting = (server, children, app.state.serving, ending)
        starter = threading.Thread(target=_start_all, args=starting, name="starter")
        if not portal_only:
            starter.start()
        tell(f"The portal is at http://{host}:{port}. Ctrl-C ends it.")
        told = urlsplit(parts.settings.portal_url)
        if told.hostname == host and told.port not in (None, port):
            lead = f"Sign-in links lead to {told.geturl()}: set BGBATCH_PORTAL_URL to the address above."
            tell(lead)
        try:
            # Not uvicorn's access log: a request line may hold a sign-in token, or a photo's name.
            quiet: Any = {"access_log": False, "log_level": "warning", "log_config": None}
            config = uvicorn.Config(app, timeout_graceful_shutdown=_LAST_ANSWERS, **quiet)
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            ending.set()
            if not portal_only:
                starter.join()
            children.join()
            all_have_ended.set()  # a flow that is brought to its end still tells Prefect's server so
            server.join()


def _listen(host: str, port: int) -> socket.socket:
    """Before anything else is started. Raises `UserError`: somebody listens there already, or nobody may."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as fault:
        why = str(fault.strerror).partition(" (")[0]  # Python adds the address, which is said already
        raise UserError(
            f"The portal cannot listen on {host}, port {port}: {why}. Choose another --port or --host."
        ) from None


def _start_all(server: Children, children: Children, serving: Serving, ending: threading.Event) -> None:
    """Prefect first: a child that finds none would start one of its own. One that the operator runs is used."""
    address = os.environ.get("PREFECT_API_URL", "").removesuffix("/api") or keep_prefect(server, ending)
    serving.prefect = address
    for child in _CHILDREN:
        if not ending.is_set():
            children.keep(child, (*BGBATCH, *child.split()), {"PREFECT_API_URL": f"{address}/api"})


def work() -> None:
    """Take submitted batches from the line, by fair share among accounts, and process them. Runs until stopped."""
    with exit_codes():
        parts = get_ready()
        ending = until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.dispatch import Dispatcher
        from flows.process_batch import process_batch

        def process(watched: Parts, batch_id: BatchId) -> Counts:
            engine.start()  # with the first batch; of no use to one who waits for it
            with using(watched):
                return process_batch(batch_id)

        holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        with suppress(TerminationSignal):  # SIGTERM in the middle of a flow; the lease is given back by then
            Dispatcher(parts, holder, process, ending).run()


def upkeep(
    compact_at: Annotated[
        str, typer.Option("--compact", help='When to merge small lake files: a cron line, UTC. "": never.')
    ] = "0 3 * * *",
) -> None:
    """Clean up and reconcile every 10 minutes, send a canary every hour, merge at night. Runs until it is stopped."""
    with exit_codes():
        if compact_at:
            timetable.check(compact_at, "UTC")
        settings_to_clean()
        ending = until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.canary import send_canary
        from flows.reconcile import reconcile

        parts: Parts | None = None
        canary_at = compacted_at = system_clock()
        with suppress(TerminationSignal):
            while not ending.is_set():
                next_at = system_clock() + _EVERY
                _try("cleanup", _clean)
                parts = parts or _try("start", get_ready)
                if parts is not None:
                    with using(parts):
                        _try("reconcile", reconcile)
                        _try("forget", partial(_forget, parts))
                        if system_clock() >= canary_at and _try("canary", partial(send_canary, parts)) is not None:
                            canary_at = system_clock() + _CANARY_EVERY
                        compacted_at = _compact_if_due(compact_at, compacted_at, next_at, parts)
                ending.wait(max(0.0, (next_at - system_clock()).total_seconds()))


def _clean() -> PurgeReport:
    """With stores opened anew, and whatever is wrong with them: nothing may keep what is due."""
    parts = ready_to_clean()
    try:
        return cleaned(parts)
    finally:
        parts.records.engine.dispose()


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
