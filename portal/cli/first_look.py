"""A look at a new schedule's source: nights of one that was mistyped find nothing, and say so to nobody."""

from __future__ import annotations

from flows.parts import Parts
from schemas.errors import StoreFault
from schemas.naming import has_photo_name
from store.outside.allowed import real_place
from store.outside.listing import list_place
from store.records.schedules import Schedule


def what_is_amiss(parts: Parts, schedule: Schedule) -> str | None:
    """Why its nights would find nothing, as things are; None once a first photo is found."""
    with parts.records.reading() as connection:
        source = real_place(connection, schedule.account_id, schedule.source, parts.settings)
    try:
        if any(has_photo_name(each.path) for each in list_place(source, parts.settings)):
            return None
    except StoreFault as fault:
        return f"The schedule is added, and its source cannot be read as yet. {fault}"
    return "The schedule is added, and there is no photo in its source as yet."
