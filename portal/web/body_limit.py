"""How large a request may be. Whoever sends it is not known yet: FastAPI reads a whole body before it asks who it is.

What takes photos is left out: it reads no byte before it knows who sends them, and counts for itself.
"""

from __future__ import annotations

import re

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portal.api.problems import problem
from portal.web.portal import Portal

FORM = 1_000_000
"""Bytes of a form or request. No file of a form is large enough to be spooled to a disk then."""

BATCH = 30_000_000
"""Bytes of a request that opens a batch: 100,000 photos with addresses of 300 letters."""

_FAR_OVER = 20
"""An answer before the body's end is lost on a sender who is still writing; one far over it gets none."""

_OPENING = re.compile(r"/v1/batches/?")
_PHOTOS = re.compile(r"/v1/batches/[^/]+/(items|uploads)(/.*)?", re.DOTALL)


class BodyLimit:
    """Wraps all that answers."""

    def __init__(self, app: ASGIApp, portal: Portal) -> None:
        self._app = app
        self._portal = portal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on once its body has come, or refuse it."""
        if scope["type"] != "http" or _PHOTOS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        most = BATCH if _OPENING.fullmatch(scope["path"]) else FORM
        body, size, message = bytearray(), 0, await receive()
        while message["type"] == "http.request" and size <= _FAR_OVER * most:
            size += len(message.get("body", b""))
            if size <= most:
                body += message.get("body", b"")
            else:
                body.clear()
            if not message.get("more_body", False):
                break
            message = await receive()
        if size > most:
            await self._refusal(scope["path"], most)(scope, receive, send)
            return
        broke_off = message["type"] != "http.request"
        waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": broke_off}]
        body.clear()
        if broke_off:
            waiting.append(message)

        async def receiving() -> Message:
            return waiting.pop(0) if waiting else await receive()

        await self._app(scope, receiving, send)

    def _refusal(self, path: str, most: int) -> Response:
        sentence = f"That is more than {most // 1_000_000} MB, so it was not read and nothing was changed. Send less."
        if path.startswith("/v1/"):
            return problem(413, "request_too_large", sentence)
        return self._portal.page("problem.html", 413, session=None, sentence=sentence)
