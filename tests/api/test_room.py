"""Room for photos on their way in: nobody holds it for ever, and no account holds all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.routing import Mount

from portal.api import room
from portal.api.receiving import read_body
from portal.api.room import Room
from portal.api.uploads import _part
from schemas.errors import FileTooLarge, LineTooLong
from schemas.ids import AccountId
from tests.api.conftest import Desk

ACME, BAZAAR = AccountId("a1"), AccountId("a2")
MOST = 1_000


def sending(*parts: bytes, is_whole: bool = True) -> Request:
    """A request whose body comes in these parts; one that is not whole says nothing more then."""
    left = list(parts)

    async def receive() -> dict[str, object]:
        if not left and not is_whole:
            await asyncio.Event().wait()
        body = left.pop(0) if left else b""
        return {"type": "http.request", "body": body, "more_body": bool(left) or not is_whole}

    return Request({"type": "http", "method": "PUT", "headers": []}, receive)


def holding(places: int, play: Callable[[Room, AsyncExitStack], Awaitable[None]]) -> None:
    async def run() -> None:
        async with AsyncExitStack() as held:
            await play(Room(places, MOST), held)

    asyncio.run(run())


async def put(places: Room, request: Request) -> None:
    async with places.for_one(request, ACME):
        await read_body(request, MOST)


def test_one_account_leaves_room_for_the_others() -> None:
    async def play(places: Room, held: AsyncExitStack) -> None:
        for _ in range(4):
            await held.enter_async_context(places.for_one(sending(), ACME))
        with pytest.raises(LineTooLong):
            await held.enter_async_context(places.for_one(sending(b"photo"), ACME))
        for _ in range(4):
            await held.enter_async_context(places.for_one(sending(), BAZAAR))
        await held.aclose()
        await held.enter_async_context(places.for_one(sending(), ACME))

    holding(16, play)


def test_all_accounts_together_have_the_places_that_there_are() -> None:
    async def play(places: Room, held: AsyncExitStack) -> None:
        await held.enter_async_context(places.for_one(sending(), ACME))
        with pytest.raises(LineTooLong):
            await held.enter_async_context(places.for_one(sending(b"photo"), BAZAAR))

    holding(1, play)


def test_long_lists_of_addresses_are_opened_a_few_at_once_and_of_one_account_fewer(desk: Desk) -> None:
    def opened(who: str, photos: int) -> httpx.Response:
        items = [{"url": f"https://photos.example/{number}.jpg"} for number in range(photos)]
        return desk.call("POST", "/batches", who, json={"items": items}, headers={"Idempotency-Key": "stock"})

    app = desk.client.app
    assert isinstance(app, FastAPI)
    (lists,) = [each.app.state.lists for each in app.routes if isinstance(each, Mount) and each.path == "/v1"]
    acme, bazaar = (desk.accounts[who][0] for who in ("Acme", "Bazaar"))
    with lists.for_one(acme), lists.for_one(acme):
        refused = opened("Acme", 1_001)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        assert opened("Bazaar", 1_001).status_code == 201
        assert desk.call("POST", "/batches", json={}).status_code == 201
        with lists.for_one(bazaar), lists.for_one(bazaar), pytest.raises(LineTooLong), lists.for_one(AccountId("a3")):
            pass
    assert opened("Acme", 1_001).status_code == 201, "with the same key"


def test_a_body_without_an_end_is_not_read_for_ever_outside_either() -> None:
    async def play(places: Room, held: AsyncExitStack) -> None:
        await held.enter_async_context(places.for_one(sending(), ACME))
        with pytest.raises(FileTooLarge):
            await held.enter_async_context(places.for_one(sending(*[b"p" * MOST] * 100), BAZAAR))

    holding(1, play)


def test_a_silent_connection_counts_as_broken_off_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SILENCE", 0.01)

    async def play(places: Room, held: AsyncExitStack) -> None:
        dead = sending(b"half", is_whole=False)
        with pytest.raises(ClientDisconnect):
            await put(places, dead)
        await held.enter_async_context(places.for_one(sending(), ACME))
        with pytest.raises(LineTooLong):  # outside, too, it is waited for only so long
            await held.enter_async_context(places.for_one(sending(b"half", is_whole=False), ACME))

    holding(1, play)


def test_of_a_resumable_upload_that_falls_silent_what_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SILENCE", 0.01)
    assert asyncio.run(_part(sending(b"ha", b"lf", is_whole=False), 1_000)) == b"half"
    assert asyncio.run(_part(sending(b"wh", b"ole"), 1_000)) == b"whole"
