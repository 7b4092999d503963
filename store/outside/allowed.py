"""Which places an account may name.

Only those that an operator has given it (`allow`), because our own keys open the buckets: else one customer could name
another's. Our own stores are no such place, nor what holds them, nor a link that leads there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from schemas.errors import NotAllowed, UserError
from schemas.ids import AccountId
from store.records.people import require_open
from store.records.tables import account_places
from store.settings import Settings

IN_PLACE = ("s3://", "file://")
_MOST_OF_PLACE = 500  # characters: the records hold no more


def normal_place(url: str) -> str:
    """A place's address without trailing slash. Raises `UserError` when it is none, or has `.` or `..` in it."""
    scheme, separator, rest = url.strip().partition("://")
    names = rest.removeprefix("/").rstrip("/").split("/")
    is_safe = rest.isprintable() and not {"", ".", ".."} & set(names)
    if f"{scheme}{separator}" not in IN_PLACE or not is_safe or (scheme == "file") != rest.startswith("/"):
        raise UserError("A place is s3://bucket/prefix or file:///folder, without `.` or `..`.")
    return f"{scheme}://{rest.rstrip('/')}"


def allow(connection: Connection, account_id: AccountId, url: str, now: datetime) -> None:
    """Let an account name this place and all below it. Raises `UserError`, `NotFound` for a closed account."""
    place = normal_place(url)
    if len(place) > _MOST_OF_PLACE:
        raise UserError(f"The address of a place has at most {_MOST_OF_PLACE} characters.")
    require_open(connection, account_id)
    if place not in places_of(connection, account_id):
        connection.execute(insert(account_places).values(account_id=account_id, url=place, created_at=now))


def disallow(connection: Connection, account_id: AccountId, url: str) -> bool:
    """Take a place back. Schedules that name it fail from then on, and no turn begins that would read there.

    False: it was not allowed.
    """
    own = (account_places.c.account_id == account_id) & (account_places.c.url == normal_place(url))
    return connection.execute(delete(account_places).where(own)).rowcount > 0


def places_of(connection: Connection, account_id: AccountId) -> list[str]:
    """The places that the account may name."""
    query = select(account_places.c.url).where(account_places.c.account_id == account_id)
    return sorted(connection.execute(query).scalars())


def check_place(connection: Connection, account_id: AccountId, url: str, settings: Settings) -> str:
    """The place, if the account may name it, also after links have been followed. Raises `NotAllowed`, `UserError`."""
    real_place(connection, account_id, url, settings)
    return normal_place(url)


def real_place(connection: Connection, account_id: AccountId, url: str, settings: Settings) -> str:
    """The same by the name that no link is part of: only by that one are photos read and cutouts written.

    Else who can make links in a place could turn a folder that was checked into one of another customer's, or of ours.
    """
    return real_places(connection, account_id, settings)(url)


def real_places(connection: Connection, account_id: AccountId, settings: Settings) -> Callable[[str], str]:
    """`real_place` for many of them: what the account may name is looked up once."""
    ours = [_real(own) for own in settings.own_places.values()]
    given = [_real(each) for each in places_of(connection, account_id)]

    def checked(url: str) -> str:
        real = _real(normal_place(url))
        is_ours = any(_holds(own, real) or _holds(real, own) for own in ours)
        if is_ours or not any(_holds(each, real) for each in given):
            raise NotAllowed(
                "The account may not use that place. Ask the operator to allow it: `bgbatch place allow ACCOUNT PLACE`."
            )
        return real

    return checked


def still_allowed(connection: Connection, account_id: AccountId) -> Callable[[str], bool]:
    """Whether a photo that was found in a `real_place` lies in one that the account may name still."""
    given = [_real(each) for each in places_of(connection, account_id)]
    return lambda source: any(_holds(each, source) for each in given)


def overlap(one: str, other: str) -> bool:
    """Whether two places are the same, or one lies in the other, after links have been followed."""
    return holds(one, other) or holds(other, one)


def holds(place: str, inner: str) -> bool:
    """Whether the second place is the first, or lies in it, after links have been followed."""
    return _holds(_real(place), _real(inner))


def _real(place: str) -> str:
    """One name for each place: a folder's as the file system knows it, however a setting or a customer wrote it."""
    if place.startswith("s3://"):
        return place.rstrip("/")
    return f"file://{os.path.realpath(place.removeprefix('file://'))}"


def _holds(place: str, inner: str) -> bool:
    return inner == place or inner.startswith(place + "/")
