"""A list of addresses: checked whole before anything starts. http(s) is fetched later, places are read in place."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote, urlsplit

from flows.parts import Parts
from schemas.batch import Item, safe_path
from schemas.errors import BadManifest, BgbatchError, UserError
from schemas.ids import AccountId
from schemas.options import CutoutOptions
from store.outside.allowed import real_places
from store.outside.fetch import is_plain
from store.outside.opened import FETCHED

_MOST_FAULTS = 20


class Address(Protocol):
    """A photo by its address. `path`: what to call it, if said."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def path(self) -> str | None:
        """What to call it."""

    @property
    def options(self) -> CutoutOptions | None:
        """Instead of the batch's."""


def items_of_addresses(parts: Parts, account_id: AccountId, wanted: Sequence[Address]) -> list[Item]:
    """Items that say where their photos are. Raises `BadManifest` with every fault (the first 20) by its place."""
    source_of = sources(parts, account_id)
    items: list[Item] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, each in enumerate(wanted, start=1):
        try:
            source = source_of(each.url)
            path = safe_path(each.path if each.path is not None else name_in(each.url))
            items.append(Item(number=number, path=path, size=0, source=source, options=each.options))
        except (BgbatchError, ValueError) as fault:
            faults.append(f"item {number}: {fault if isinstance(fault, BgbatchError) else 'its path cannot be used.'}")
            continue
        first = seen.setdefault(unicodedata.normalize("NFC", path), number)
        if first != number:
            faults.append(f"item {number}: it has the same path as item {first}. Give each photo a path of its own.")
    if faults:
        raise not_started(faults)
    return items


def not_started(faults: Sequence[str]) -> BadManifest:
    """What is wrong with a list of photos, each fault as a sentence; the first 20 of them."""
    more = f" And {len(faults) - _MOST_FAULTS} more." if len(faults) > _MOST_FAULTS else ""
    return BadManifest(f"Nothing was started. {' '.join(faults[:_MOST_FAULTS])}{more}")


def sources(parts: Parts, account_id: AccountId) -> Callable[[str], str]:
    """Gives the address itself, if it may be used by the account. That raises `NotAllowed`, `UserError`."""
    with parts.records.reading() as connection:
        in_place = real_places(connection, account_id, parts.settings)

    def source_of(url: str) -> str:
        if not url.startswith(FETCHED):
            return in_place(url)
        if not _names_a_host(url):
            raise UserError("An address names a host, and no user.")
        if not is_plain(url):  # would be refused when it is fetched
            raise UserError(
                "An address has no spaces and no letters beyond ASCII. Write those as %20, %C3%A4 and so on."
            )
        return url

    return source_of


def _names_a_host(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        return bool(parsed.hostname) and "@" not in parsed.netloc
    except ValueError:  # brackets without an address in them
        return False


def name_in(url: str) -> str:
    """What to call a photo that has an address alone: host, if there is one, and path: equal file names stay apart."""
    parsed = urlsplit(url)
    return f"{parsed.hostname or parsed.netloc}{unquote(parsed.path)}".strip("/")
