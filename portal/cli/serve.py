"""serve: all of bgbatch on one machine, or its portal alone.

It runs the portal and keeps a Prefect server and three children: `work` takes batches from the line; `upkeep` purges,
reconciles, sends canaries, and merges the lake's small files at night; `schedule run-due` starts nights and sends
webhooks. A child that dies is started again; Ctrl-C or SIGTERM ends all, and what was under way goes on later.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from flows.listening import listen
from portal.cli.children import BGBATCH, Children, State, keep_prefect, until_stopped
from portal.cli.terminal import stores, tell
from schemas.errors import UserError

if TYPE_CHECKING:
    from portal.web.health import Serving

_LAST_ANSWERS = 5  # seconds; an upload whose line stands still would hold the end up for ever
_CHILDREN = ("work", "upkeep", "schedule run-due --watch --in-line")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    portal_only: Annotated[bool, typer.Option("--portal-only", help="Leave work and upkeep to others.")] = False,
) -> None:
    """Serve the portal and the REST API, work through submitted batches, clean up every 10 minutes. Ctrl-C ends it."""
    with stores() as parts:
        listener = _listen(host, port)
        import uvicorn

        from portal.cli.connections import BACKLOG, TimedConnection, hold_many
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
            tell(f"Sign-in links lead to {told.geturl()}: set BGBATCH_PORTAL_URL to the address above.")
        try:
            # Not uvicorn's access log: a request line may hold a sign-in token, or a photo's name.
            # No lifespan, of which the app has none: it is a trace on stderr when somebody presses Ctrl-C twice.
            quiet: Any = {"access_log": False, "log_level": "warning", "log_config": None, "lifespan": "off"}
            gc.freeze()  # else each large list that comes in has all of the program looked through again and again
            hold_many()
            ours: Any = {"http": TimedConnection, "backlog": BACKLOG, "timeout_graceful_shutdown": _LAST_ANSWERS}
            config = uvicorn.Config(app, **ours, **quiet)
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
        return listen(host, port)
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
