"""Photos on their way in: how many are in memory at once, of all and of one account, and how long one may be silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from schemas.errors import FileTooLarge, LineTooLong
from schemas.ids import AccountId

SILENCE = 60.0
"""Seconds without a byte, after which a connection counts as broken off: phones that lose coverage never say so."""


class Room:
    """How many photos, of `most` bytes each, may be in memory at once on their way to the store; then senders get 429.

    One account holds a quarter of the places at most (or four): its slow senders keep nobody else out.
    """

    def __init__(self, places: int, most: int) -> None:
        self._places = places
        self._most = most
        self._most_of_one = max(4, places // 4)
        self._held: Counter[AccountId] = Counter()

    @asynccontextmanager
    async def for_one(self, request: Request, account_id: AccountId) -> AsyncIterator[None]:
        """Hold one place. Raises `LineTooLong`, once the photo has come and is thrown away, and as `pieces_of` does.

        An answer before the body's end would be lost: the connection is closed on a sender who is still writing.
        """
        if self._held.total() >= self._places or self._held[account_id] >= self._most_of_one:
            with suppress(ClientDisconnect):
                async for _ in pieces_of(request, self._most):
                    pass
            raise LineTooLong("Too many photos are coming in at this moment. Send this one again.", 1)
        self._held[account_id] += 1
        try:
            yield
        finally:
            self._held[account_id] -= 1
            self._held += Counter()  # who holds none any more is forgotten


async def pieces_of(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes, also over the limit for a photo. Raises `FileTooLarge` far over it, and as `_body_of`."""
    size = 0
    async for piece in _body_of(request):
        size += len(piece)
        if size > 20 * most:
            raise FileTooLarge("That is far over the limit for one photo. Send it smaller.")
        yield piece


async def _body_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `ClientDisconnect` when the connection breaks off, or is silent for a minute."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                piece = await anext(stream, None)
        except TimeoutError:
            raise ClientDisconnect from None
        if piece is None:
            return
        yield piece
