"""A place of the customer's: its photos stay where they are and are read there."""

from __future__ import annotations

from flows.parts import Parts
from portal.intake.tally import Tally
from schemas.batch import Item, safe_path
from schemas.errors import NothingToDo
from schemas.ids import AccountId
from schemas.left_out import LeftOut
from schemas.naming import has_photo_name
from store.outside.allowed import real_place
from store.outside.listing import list_place


def items_in_place(parts: Parts, account_id: AccountId, url: str) -> tuple[list[Item], Tally]:
    """An item for each photo in the place, and what was left out. Raises `NotAllowed`, `NothingToDo`, `StoreFault`."""
    with parts.records.reading() as connection:
        place = real_place(connection, account_id, url, parts.settings)
    items: list[Item] = []
    left_out = Tally()
    lying = {each.path: each for each in list_place(place, parts.settings)}  # a server may list one twice, on two pages
    for _, each in sorted(lying.items()):
        if not has_photo_name(each.path):
            left_out.leave_out(each.path, LeftOut.NOT_A_PHOTO)
            continue
        try:
            path = safe_path(each.path)
        except ValueError:
            left_out.leave_out(each.path, LeftOut.BAD_NAME)
            continue
        items.append(Item(number=len(items) + 1, path=path, size=each.size, source=f"{place}/{each.path}"))
    if not items:
        raise NothingToDo(f"There is no photo in that place.{left_out.instead()}")
    return items, left_out
