"""The REST API under /v1, described by /v1/openapi.json. It shares the portal's parts and nothing of its pages."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from flows.parts import Parts
from portal.api import batches, consent, problems, schedules, uploads, webhooks
from portal.api.room import Lists, Room
from portal.web.access_log import NO_TELEMETRY
from portal.web.portal import Portal
from store.objects.object_store import open_store

_DESCRIPTION = (
    "Remove the backgrounds of whole photo catalogs. Nothing is kept over 24 hours, and nothing is used to improve a "
    "model unless the account's owner turned on AI Training Data on the account page; no key can turn it on."
)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """With the form of all faults once, by name: from one beside each fault, no client can be generated."""
        described = super().openapi()
        described["components"]["schemas"]["Problem"] = problems.Problem.model_json_schema()
        return described


def create_api(portal: Portal) -> FastAPI:
    """The API on the portal's parts."""
    api = _Api(
        title="bgbatch",
        version="1",
        description=_DESCRIPTION,
        telemetry=NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # as of the pages: a program would send its key along
    )
    settings = portal.settings
    api.state.portal = portal
    api.state.lists = Lists()
    api.state.room = Room(settings.uploads_at_once, settings.max_bytes)
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
