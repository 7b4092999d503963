"""Prefect's own settings, made before Prefect is imported: local, quiet, and under the same home as everything else.

Prefect keeps parameters, logs and exception texts; so only ids go in, and its database lies where the purge finds it.
Where no server is configured, one runs in a thread of this process until that ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flows.listening import listen
from flows.parts import Parts, using
from schemas.errors import EngineFault
from store.purging.places import ENGINE_LIFE, prefect_folder
from store.settings import Settings

if TYPE_CHECKING:
    from uvicorn import Server

_STARTS_WITHIN = 120.0  # seconds; 2 to 10 on a machine of two cores, by how busy it is
_A_MOMENT = 0.02
_ENDS_WITHIN = 5.0


def prepare(settings: Settings) -> None:
    """Set what is not set yet. Prefect reads its environment once, so call this before the first import of a flow."""
    defaults = {
        "PREFECT_HOME": str(prefect_folder(settings)),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",  # its pages would be copied to beside its code, which may be read-only
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the first is raised; Ray would print the rest with their text
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_TASKS_REFRESH_CACHE": "true",
        # By itself Prefect forgets events only, and keeps runs, logs and parameters for ever.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(int(ENGINE_LIFE.total_seconds())),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",  # four fifths of its database, and nobody asks for them
    }
    # Before the folder: where it cannot be made, Prefect would take its own place.
    for name, value in (defaults | _without_a_home(settings)).items():
        os.environ.setdefault(name, value)
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # the records below it name people and hold secrets
    prefect_folder(settings).mkdir(exist_ok=True)


def _without_a_home(settings: Settings) -> dict[str, str]:
    """What others would keep in the home of this process's user, who may have none, or one that is another's."""
    instead = {}
    home = Path(os.path.expanduser("~"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if not any(map(_can_be_written, (Path(__file__).parents[1] / "workers", cache))):
        instead["NUMBA_CACHE_DIR"] = str(settings.compiled_folder / "numba")  # else numba refuses to compile at all
    if not settings.ray_address and not _can_be_written(home / ".ray"):
        instead["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray fails: it keeps that of its own cluster there
    return instead


def _can_be_written(folder: Path) -> bool:
    """Whether it is there for us to write in, or can be made."""
    if not folder.is_absolute():  # it begins with `~` still
        return False
    there = next(each for each in (folder, *folder.parents) if os.access(each, os.F_OK))
    return there.is_dir() and os.access(there, os.W_OK)


@contextmanager
def running(parts: Parts) -> Iterator[None]:
    """A server is there, and flows work on these parts, until the end of the block. Raises `EngineFault`."""
    start()
    with using(parts):
        yield


def start() -> None:
    """Run Prefect's server in a thread where no other is configured. Raises `EngineFault`.

    The one that Prefect starts by itself is another process: it imports all of Prefect a second time, takes the Ctrl-C
    of a terminal for its own, and stays behind when this process is killed.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import create_app
    from uvicorn import Config, Server

    listening = listen("127.0.0.1")
    quiet = Config(  # uvicorn would write the whole trace of a start that failed
        create_app(ephemeral=True), log_config=None, log_level="critical", lifespan="on", timeout_graceful_shutdown=1
    )
    server = Server(quiet)
    thread = threading.Thread(target=server.run, args=([listening],), name="prefect server", daemon=True)
    with alone():
        thread.start()
        waited = 0.0
        while not server.started and thread.is_alive() and waited < _STARTS_WITHIN:
            thread.join(_A_MOMENT)
            waited += _A_MOMENT
    if not server.started:
        raise EngineFault(
            "Prefect's server did not start. Look whether `prefect` under BGBATCH_HOME can be written, has room, and "
            "was last used by no later version of Prefect."
        )
    # Not `atexit`: by then no thread can be begun, and what the server still waits for would never come.
    threading._register_atexit(_end, server, thread)  # type: ignore[attr-defined]
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    try:
        refresh_global_settings_context()  # in all threads, and in none of the programs that this one starts
    finally:
        del os.environ["PREFECT_API_URL"]


@contextmanager
def alone() -> Iterator[None]:
    """No other process starts one in this home meanwhile: of two that make its database at once, one would fail.

    Nobody is waited for without end: one that stands still, as after Ctrl-Z, would keep a cleanup from what is due.
    """
    with ExitStack() as until_then:
        with suppress(OSError):  # it may be elsewhere, and not there yet; a network share may know no such locks
            folder = os.open(os.path.expanduser(os.environ["PREFECT_HOME"]), os.O_RDONLY)
            until_then.callback(os.close, folder)
            for _ in range(int(_STARTS_WITHIN / _A_MOMENT)):
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_A_MOMENT)
        yield


def _end(server: Server, thread: threading.Thread) -> None:
    server.should_exit = True
    with suppress(KeyboardInterrupt):
        thread.join(_ENDS_WITHIN)
