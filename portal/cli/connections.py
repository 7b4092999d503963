"""How many connections the portal holds, and how long it waits for a caller who has begun.

By themselves a process may hold 1,024 files open and uvicorn waits for ever: so many connections that begin a request
and say no more would shut everybody else out.
"""

from __future__ import annotations

import asyncio
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_MANY = 65_536
BACKLOG = 128
"""Connections that wait to be taken. Where no more can be, asyncio logs a trace for each of so many, every second."""


def hold_many() -> None:
    """Let this process have as many as the system allows it."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if most == resource.RLIM_INFINITY else min(_MANY, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class TimedConnection(H11Protocol):
    """Closed when the whole head of a request does not come in time, or its body stands still."""

    HEAD_WITHIN = 30.0
    """Seconds, since the connection was made or the answer before it had ended."""
    SILENCE = 90.0
    """Seconds without a byte of a body. The API itself gives up a photo after 60, with an answer."""
    LOOK_EVERY = 5.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._free_since = self._heard_at = self.loop.time()
        self._next_look = self.loop.call_later(self.LOOK_EVERY, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        self._heard_at = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """The next head may come."""
        self._free_since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        now = self.loop.time()
        if self.flow.read_paused:  # what has come waits for us
            self._heard_at = now
        wants_head = self.conn.their_state is h11.IDLE and now - self._free_since >= self.HEAD_WITHIN
        wants_body = self.conn.their_state is h11.SEND_BODY and now - self._heard_at >= self.SILENCE
        if wants_head or wants_body:
            self.transport.close()
        else:
            self._next_look = self.loop.call_later(self.LOOK_EVERY, self._look)
