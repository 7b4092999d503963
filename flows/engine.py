"""Prefect's own settings, made before Prefect is imported: local, quiet, and under the same home as everything else.

Prefect keeps parameters, logs and exception texts; so only ids go in, and its database lies where the purge finds it.
"""

from __future__ import annotations

import os
import signal

from store.registry import ENGINE_LIFE
from store.settings import Settings


def prepare(settings: Settings) -> None:
    """Set what is not set yet. Prefect reads its environment once, so call this before the first import of a flow."""
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the first is raised; Ray would print the rest with their text
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        # The temporary server needs 7 to 20 s on a busy machine of two cores; Prefect's own limit is 20 s.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_TASKS_REFRESH_CACHE": "true",
        # By itself Prefect forgets events only, and keeps runs, logs and parameters for ever.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(int(ENGINE_LIFE.total_seconds())),
    }
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def start() -> None:
    """Start Prefect's temporary server where no other is configured, deaf to Ctrl-C.

    A terminal sends Ctrl-C to the server as well, and a flow that is stopped has to tell the server that it was.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits it, whatever it handles
    try:
        SubprocessASGIServer().start()  # one for all of this process: the flow finds it running
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
