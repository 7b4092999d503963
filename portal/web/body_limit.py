"""How large a request may be. FastAPI reads a whole body, and makes objects of its JSON, before it asks who sends it.

So a program is asked for its key, or its session, here, before its body may be large. What takes photos is left out: it
reads no byte before it knows who sends them, and counts for itself.
"""

from __future__ import annotations

import re

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portal.api.keys import NEEDED
from portal.api.problems import problem
from portal.web.portal import Portal
from schemas.errors import KeyNeeded
from store.records.api_keys import find_key
from store.records.sessions import find_session

FORM = 1_000_000
"""Bytes of a form or request. No file of a form is large enough to be spooled to a disk then."""

BATCH = 30_000_000
"""Bytes of a request that opens a batch: 100,000 photos with addresses of 300 letters."""

VALUES = 2_000_000
"""Of JSON in such a request: 20 for each photo. 30 MB of `{}` alone would be 800 MB of objects, made one by one."""

STRANGER = 10_000
"""Bytes of a program's request before it is asked who sends it."""

_FAR_OVER = 20
"""An answer before the body's end is lost on a sender who is still writing; one far over it gets none."""

_OPENING = re.compile(r"/v1/batches")
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
        path = scope["path"]
        most, strange = BATCH if _OPENING.fullmatch(path) else FORM, False
        far_over = _FAR_OVER * most
        body, size, message = bytearray(), 0, await receive()
        while message["type"] == "http.request" and size <= far_over:
            before, size = size, size + len(message.get("body", b""))
            if before <= STRANGER < size and path.startswith("/v1/"):
                strange = not await run_in_threadpool(self._is_known, HTTPConnection(scope))
                most = STRANGER if strange else most
            if size <= most:
                body += message.get("body", b"")
            else:
                body.clear()
            if not message.get("more_body", False):
                break
            message = await receive()
        if size > most or body.count(b",") > VALUES:
            amount = f"{most // 1_000_000} MB" if size > most else f"{VALUES:,} values of JSON"
            refusal = problem(401, KeyNeeded.code, NEEDED) if strange else self._refusal(path, amount)
            await refusal(scope, receive, send)
            return
        broke_off = message["type"] != "http.request"
        waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": broke_off}]
        body.clear()
        if broke_off:
            waiting.append(message)

        async def receiving() -> Message:
            return waiting.pop(0) if waiting else await receive()

        await self._app(scope, receiving, send)

    def _is_known(self, who: HTTPConnection) -> bool:
        """Whether a key or a session in use came along. What it may do is asked later."""
        key, cookie = who.headers.get("x-api-key"), who.cookies.get(self._portal.cookie_name, "")
        try:
            with self._portal.records.reading() as connection:
                if key is not None:
                    return find_key(connection, key) is not None
                return find_session(connection, cookie, self._portal.clock()) is not None
        except SQLAlchemyError:  # whoever is to answer will meet it, too, and says so
            return True

    def _refusal(self, path: str, amount: str) -> Response:
        sentence = f"That is more than {amount}, so it was not read and nothing was changed. Send less."
        if path.startswith("/v1/"):
            return problem(413, "request_too_large", sentence)
        return self._portal.page("problem.html", 413, session=None, sentence=sentence)
