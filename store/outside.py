"""Places that are not ours: a customer's bucket or folder that is read in place, an address that is fetched.

An account may name only places that an operator has given it (`allow`), because our own keys open the buckets: else one
customer could name another's. Our own stores are no such place, nor what holds them, nor a link that leads there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, delete, insert, select

from schemas.errors import FetchFailed, FileTooLarge, NotAllowed, NotFound, StoreFault, UserError
from schemas.ids import AccountId
from store.fetch import Fetcher, FetchLimits
from store.folder import Folder, partial_name, write_whole
from store.no_links import open_file, open_folder
from store.objects import ObjectStore, no_such_object, open_store
from store.people import require_open
from store.settings import Settings
from store.tables import account_places

ReadOutside = Callable[[str], bytes]
"""The bytes at an address. Raises an `ItemError`, or `NotFound`."""

IN_PLACE = ("s3://", "file://")
FETCHED = ("http://", "https://")
_REFUSED = "The photo's own place refused to give it. Check that it may be read."
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
    if place not in allowed(connection, account_id):
        connection.execute(insert(account_places).values(account_id=account_id, url=place, created_at=now))


def disallow(connection: Connection, account_id: AccountId, url: str) -> bool:
    """Take a place back. Schedules that name it fail from then on. False: it was not allowed."""
    own = (account_places.c.account_id == account_id) & (account_places.c.url == normal_place(url))
    return connection.execute(delete(account_places).where(own)).rowcount > 0


def allowed(connection: Connection, account_id: AccountId) -> list[str]:
    """The places that the account may name."""
    query = select(account_places.c.url).where(account_places.c.account_id == account_id)
    return sorted(connection.execute(query).scalars())


def check_place(connection: Connection, account_id: AccountId, url: str, settings: Settings) -> str:
    """The place, if the account may name it, also after links have been followed. Raises `NotAllowed`, `UserError`."""
    return _checker(connection, account_id, settings)(url)[0]


def real_place(connection: Connection, account_id: AccountId, url: str, settings: Settings) -> str:
    """The same by the name that no link is part of: only by that one are photos read and cutouts written.

    Else who can make links in a place could turn a folder that was checked into one of another customer's, or of ours.
    """
    return real_places(connection, account_id, settings)(url)


def real_places(connection: Connection, account_id: AccountId, settings: Settings) -> Callable[[str], str]:
    """`real_place` for many of them: what the account may name is looked up once."""
    checked = _checker(connection, account_id, settings)
    return lambda url: checked(url)[1]


def _checker(connection: Connection, account_id: AccountId, settings: Settings) -> Callable[[str], tuple[str, str]]:
    ours = [_real(own) for own in settings.own_places.values()]
    given = [_real(each) for each in allowed(connection, account_id)]

    def checked(url: str) -> tuple[str, str]:
        place = normal_place(url)
        real = _real(place)
        is_ours = any(_holds(own, real) or _holds(real, own) for own in ours)
        if is_ours or not any(_holds(each, real) for each in given):
            raise NotAllowed(
                "The account may not use that place. Ask the operator to allow it: `bgbatch place allow ACCOUNT PLACE`."
            )
        return place, real

    return checked


def overlap(one: str, other: str) -> bool:
    """Whether two places are the same, or one lies in the other, after links have been followed."""
    return holds(one, other) or holds(other, one)


def holds(place: str, inner: str) -> bool:
    """Whether the second place is the first, or lies in it, after links have been followed."""
    return _holds(_real(place), _real(inner))


def open_to_deliver(place: str, settings: Settings) -> ObjectStore:
    """The store at a `real_place`. Nothing is written there through a link: that is a `StoreFault`."""
    if place.startswith("s3://"):
        return open_store(place, settings)
    return ObjectStore(WithoutLinks(place.removeprefix("file://")))


class WithoutLinks(Folder):
    """A folder that nothing is written into but by a path in which nothing is a link."""

    def put(self, key: str, data: bytes) -> None:
        """As in any folder, each one on the way opened inside the one before."""
        folder, _, name = key.rpartition("/")
        for _ in range(2):  # its owner may take the folder away in between
            with suppress(FileNotFoundError), ExitStack() as opened:
                root = open_folder(opened, self.root, made_with=0o700)
                here = open_folder(opened, folder, root, made_with=0o777)
                write_whole(partial_name(name), name, data, here)
                return
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def open_outside(settings: Settings) -> ReadOutside:
    """Read objects of places and fetch addresses, within the settings' limits."""
    most = settings.max_bytes
    fetcher = Fetcher(FetchLimits(bytes=most))

    @lru_cache(maxsize=16)
    def store(root: str) -> ObjectStore:
        return open_store(root, settings)

    def read(url: str) -> bytes:
        if url.startswith(FETCHED):
            return fetcher.get(url)
        if url.startswith("file://"):
            return _read_file(url.removeprefix("file://"), most)
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            # Whoever named a single object said no size, and may put another there at any time.
            if store(f"s3://{bucket}").size(key) > most:
                raise _too_large(most)
            return store(f"s3://{bucket}").read(key)
        except NotFound:
            raise
        except StoreFault:
            raise FetchFailed(_REFUSED) from None

    return read


def _read_file(path: str, most: int) -> bytes:
    """A file, found without following any link. Raises `NotFound` for a link, a pipe and what is not there."""
    folder, _, name = path.rpartition("/")
    try:
        with ExitStack() as opened:
            file = open_file(opened, name, open_folder(opened, folder))
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise no_such_object()
            with open(file, "rb", closefd=False) as reader:
                data = reader.read(most + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise no_such_object() from None
        raise FetchFailed(_REFUSED) from None
    if len(data) > most:
        raise _too_large(most)
    return data


def _too_large(most: int) -> FileTooLarge:
    return FileTooLarge(f"The file has more than {most / 1e6:g} MB. Send a smaller one.")


def _real(place: str) -> str:
    """One name for each place: a folder's as the file system knows it, however a setting or a customer wrote it."""
    if place.startswith("s3://"):
        return place.rstrip("/")
    return f"file://{os.path.realpath(place.removeprefix('file://'))}"


def _holds(place: str, inner: str) -> bool:
    return inner == place or inner.startswith(place + "/")
