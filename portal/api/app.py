"""The REST API under /v1, described by /v1/openapi.json. It shares the portal's parts and nothing of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect

from flows.parts import Parts
from portal.api import batches, consent, problems, schedules, uploads, webhooks
from portal.web.access_log import NO_TELEMETRY
from portal.web.portal import Portal
from schemas.errors import LineTooLong
from store.objects import open_store

_DESCRIPTION = (
    "Remove the backgrounds of whole photo catalogs. Nothing is kept over 24 hours, and nothing is used to improve a "
    "model unless the account's owner turned on AI Training Data on the account page; no key can turn it on."
)


class Room:
    """How many photos may be in memory at once on their way to the store. Beyond it, senders wait outside (429)."""

    def __init__(self, places: int) -> None:
        self._free = places

    @asynccontextmanager
    async def for_one(self, request: Request) -> AsyncIterator[None]:
        """Hold one place. Raises `LineTooLong`, once the photo has come and is thrown away.

        An answer before the body's end would be lost: the connection is closed on a sender who is still writing.
        """
        if self._free <= 0:
            with suppress(ClientDisconnect):
                async for _ in request.stream():
                    pass
            raise LineTooLong("Too many photos are coming in at this moment. Send this one again.", 1)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def create_api(portal: Portal) -> FastAPI:
    """The API on the portal's parts."""
    api = FastAPI(
        title="bgbatch", version="1", description=_DESCRIPTION, telemetry=NO_TELEMETRY, docs_url=None, redoc_url=None
    )
    settings = portal.settings
    api.state.portal = portal
    api.state.room = Room(settings.uploads_at_once)
    api.state.parts = Parts(
        settings=settings,
        clock=portal.clock,
        records=portal.records,
        transient=portal.transient,
        lake=open_store(settings.lake_root, settings),
    )
    problems.install(api)
    for router in (batches.router, uploads.router, consent.router, schedules.router, webhooks.router):
        api.include_router(router, responses=problems.RESPONSES)
    return api
