"""For operators and their machines: is it alive, is the promise being kept. No sign-in, nothing of any customer."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse

from portal.web.portal import ThePortal
from schemas.clock import system_clock
from schemas.errors import NotFound
from store.purging.health import gauges, metrics_text, read_health, why_stop, why_stop_by_clock
from store.records import line

router = APIRouter()


class Part(Protocol):
    """A program that `serve` keeps running. `since` is None while it is down."""

    name: str
    since: datetime | None
    restarts: int


@dataclass
class Serving:
    """What `serve` keeps beside the portal, for the status page. `prefect`: the address of Prefect's pages."""

    parts: Sequence[Part] = ()
    prefect: str = ""


@router.head("/healthz")  # as some monitors ask
@router.get("/healthz")
def alive(portal: ThePortal) -> PlainTextResponse:
    """200 while the records answer."""
    with portal.records.reading() as connection:
        line.load_of(connection, portal.clock())
    return PlainTextResponse("ok\n")


@router.get("/metrics")
def metrics(portal: ThePortal) -> PlainTextResponse:
    """Ages, backlog, last cleanup and the line, as Prometheus reads them."""
    now = portal.clock()
    health = read_health(portal.transient.objects, portal.records, now)
    with portal.records.reading() as connection:
        load = line.load_of(connection, now)
    values = {
        "bgbatch_line_batches": ("Batches that are open, waiting or being worked on.", load.batches),
        "bgbatch_line_items": ("Photos of those batches that have no result yet.", load.items),
    }
    return PlainTextResponse(metrics_text(health, now) + gauges(values), media_type="text/plain; version=0.0.4")


@router.get("/status")
def status(portal: ThePortal, request: Request) -> HTMLResponse:
    """For whoever sits at the machine: what runs, what waits, and whether the promise is kept. Elsewhere: 404."""
    if not _is_here(request):
        raise NotFound("There is no such page.")
    serving: Serving = request.app.state.serving
    now = portal.clock()
    health = read_health(portal.transient.objects, portal.records, now)
    with portal.records.reading() as connection:
        load, waiting = line.load_of(connection, now), line.in_line(connection, now)
    return portal.page(
        "status.html",
        now=now,
        serving=serving,
        health=health,
        load=load,
        waiting=len(waiting),
        longest=waiting[0].ready_at if waiting else None,
        stopped=why_stop(health, now, portal.settings.cleanup_expected)
        or why_stop_by_clock(portal.transient.objects, system_clock),
    )


def _is_here(request: Request) -> bool:
    """Whether the request was made on this machine. One that a proxy handed on was not."""
    if request.client is None or "forwarded" in request.headers or "x-forwarded-for" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
