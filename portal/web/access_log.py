"""A line of the log for each request: what kind of page it was for, whose, and how it ended; and an id to ask about.

The path is written as its template, `/v1/batches/{batch_id}/items/{path}`: the real one may hold a photo's name or a
sign-in token. Nothing of the query, the headers or the body is written.
"""

from __future__ import annotations

import logging
import time

from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.ids import Randomness
from store.logs import about

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would send whole addresses and what exceptions say."""
_log = logging.getLogger(__name__)


class AccessLog:
    """Wraps the whole portal."""

    def __init__(self, app: ASGIApp, randomness: Randomness) -> None:
        self._app = app
        self._randomness = randomness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and say so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, status, began = self._randomness(8).hex(), 500, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        with about(request_id=request_id):
            try:
                await self._app(scope, receive, sending)
            finally:
                milliseconds = round((time.perf_counter() - began) * 1000, 1)
                facts = {"method": scope["method"], "route": _route(scope), "status": status, "ms": milliseconds}
                _log.info("request", extra={"facts": facts})


def _route(scope: Scope) -> str:
    template = getattr(scope.get("route"), "path", None)
    return "unknown" if template is None else f"{scope.get('root_path', '')}{template}"
