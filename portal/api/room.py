"""What comes in: how much of it is in memory at once, of all and of one account, and how long a photo may be silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from schemas.errors import FileTooLarge, LineTooLong
from schemas.ids import AccountId

SILENCE = 60.0
"""Seconds without a byte, after which a connection counts as broken off: phones that lose coverage never say so."""


class _Places:
    """So many at once, and of one account fewer: it keeps nobody else out."""

    def __init__(self, places: int, most_of_one: int) -> None:
        self._places = places
        self._most_of_one = most_of_one
        self._held: Counter[AccountId] = Counter()

    @contextmanager
    def one_for(self, account_id: AccountId) -> Iterator[bool]:
        """Hold one place, if there is one."""
        if self._held.total() >= self._places or self._held[account_id] >= self._most_of_one:
            yield False
            return
        self._held[account_id] += 1
        try:
            yield True
        finally:
            self._held[account_id] -= 1
            self._held += Counter()  # who holds none any more is forgotten


class Room:
    """How many photos, of `most` bytes each, may be in memory at once on their way to the store; then senders get 429.

    One account holds a quarter of the places at most (or four): its slow senders keep nobody else out.
    """

    def __init__(self, places: int, most: int) -> None:
        self._places = _Places(places, max(4, places // 4))
        self._most = most

    @asynccontextmanager
    async def for_one(self, request: Request, account_id: AccountId) -> AsyncIterator[None]:
        """Hold one place. Raises `LineTooLong`, once the photo has come and is thrown away, and as `pieces_of` does.

        An answer before the body's end would be lost: the connection is closed on a sender who is still writing.
        """
        with self._places.one_for(account_id) as is_there:
            if is_there:
                yield
                return
        with suppress(ClientDisconnect):
            async for _ in pieces_of(request, self._most):
                pass
        raise LineTooLong("Too many photos are coming in at this moment. Send this one again.", 1)


class Lists:
    """How many batches with a long list of addresses may be opened at once: 100,000 are 400 MB, for nine seconds."""

    def __init__(self) -> None:
        self._places = _Places(4, 2)

    @contextmanager
    def for_one(self, account_id: AccountId) -> Iterator[None]:
        """Hold one place. Raises `LineTooLong`."""
        with self._places.one_for(account_id) as is_there:
            if not is_there:
                raise LineTooLong("Other batches are being opened at this moment. Send this request again.", 5)
            yield


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
