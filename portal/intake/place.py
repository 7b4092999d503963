"""A place of the customer's: its photos stay where they are and are read there."""

from __future__ import annotations

from pathlib import PurePosixPath

from flows.parts import Parts
from schemas.batch import Item, safe_path
from schemas.errors import NothingToDo
from schemas.ids import AccountId
from schemas.naming import PHOTO_SUFFIXES
from store.outside import check_place
from store.places import list_place


def items_in_place(parts: Parts, account_id: AccountId, url: str) -> list[Item]:
    """An item for each photo in the place. Raises `NotAllowed`, `NothingToDo`, `StoreFault`."""
    with parts.records.reading() as connection:
        place = check_place(connection, account_id, url, parts.settings)
    items: list[Item] = []
    for each in sorted(list_place(place, parts.settings), key=lambda lying: lying.path):
        if PurePosixPath(each.path).suffix.lower() not in PHOTO_SUFFIXES:
            continue
        try:
            path = safe_path(each.path)
        except ValueError:
            continue
        items.append(Item(number=len(items) + 1, path=path, size=each.size, source=f"{place}/{each.path}"))
    if not items:
        raise NothingToDo("There is no photo in that place.")
    return items
