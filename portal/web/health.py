"""For operators and their machines: is it alive, is the promise being kept. No sign-in, nothing of any customer."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from portal.web.portal import ThePortal
from store import line
from store.health import metrics_text, read_health

router = APIRouter(include_in_schema=False)


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
    with portal.records.reading() as connection:
        health = read_health(portal.transient.objects, connection, now)
        load = line.load_of(connection, now)
    values = {
        "bgbatch_line_batches": ("Batches that are open, waiting or being worked on.", load.batches),
        "bgbatch_line_items": ("Photos of those batches that have no result yet.", load.items),
    }
    lines = [f"# HELP {n} {what}\n# TYPE {n} gauge\n{n} {value}\n" for n, (what, value) in values.items()]
    return PlainTextResponse(metrics_text(health, now) + "".join(lines), media_type="text/plain; version=0.0.4")
