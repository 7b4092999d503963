"""The lease of a place where a copy is being made just now: nobody else begins one there, inside it or around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from store.records.database import hold_lock
from store.records.tables import copies_under_way

LEASE_LIFE = timedelta(seconds=60)
"""Who makes a copy says so well within this; after it, the place is anybody's."""


def hold_place(
    connection: Connection,
    place: str,
    holder: str,
    now: datetime,
    is_gone: Callable[[str], bool] = lambda holder: False,
) -> str | None:
    """Begin to make a copy there. None: nobody else does, nor inside it or around it; else who does.

    `place`: a name for it that no other place has, be it on another machine. `is_gone`: whether a holder is known to
    be dead, so that nobody waits for its lease to end.
    """
    hold_lock(connection, "copies under way")
    for known in connection.execute(select(copies_under_way)).all():
        if known.place_sha256 != _key(place) and not _lie_in_each_other(place, known.place):
            continue
        if known.lease_until > now and not is_gone(known.lease_holder):
            return str(known.lease_holder)
        connection.execute(delete(copies_under_way).where(copies_under_way.c.place_sha256 == known.place_sha256))
    row = {"place_sha256": _key(place), "place": place, "lease_holder": holder, "lease_until": now + LEASE_LIFE}
    connection.execute(insert(copies_under_way).values(row))
    return None


def keep_place(connection: Connection, place: str, holder: str, now: datetime) -> bool:
    """Say that the copy is still being made. False when another makes one there by now: whoever hears that stops."""
    own = (copies_under_way.c.place_sha256 == _key(place)) & (copies_under_way.c.lease_holder == holder)
    kept = connection.execute(update(copies_under_way).where(own).values(lease_until=now + LEASE_LIFE))
    return kept.rowcount == 1


def leave_place(connection: Connection, place: str, holder: str) -> None:
    """The copy is made, or will not be."""
    own = (copies_under_way.c.place_sha256 == _key(place)) & (copies_under_way.c.lease_holder == holder)
    connection.execute(delete(copies_under_way).where(own))


def _lie_in_each_other(one: str, other: str | None) -> bool:
    """Whether one of two places is inside the other. None: it is not known where that one is."""
    inside, outside = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/" if other else "?"
    return inside.startswith(outside) or outside.startswith(inside)


def _key(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()
