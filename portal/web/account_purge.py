"""How soon the account's batches go: an owner may ask for less than the setting for all, never for more.

POST /account/purge   fields: form_token, after_hours ("" for the setting for all), on_download ("yes" or absent)
                      -> 303 /account#gone, where it says what holds now
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse

from portal.web.portal import Owner, ThePortal
from schemas.errors import UserError
from store.records.early_purge import PurgeWish, set_wish

router = APIRouter()


@router.post("/account/purge")
def choose(
    portal: ThePortal,
    session: Owner,
    after_hours: Annotated[str, Form(max_length=10)] = "",
    on_download: Annotated[str, Form(max_length=10)] = "",
) -> RedirectResponse:
    """Record the choice. Hours count for batches that come later; "once downloaded" counts at once."""
    wish = PurgeWish(after_hours=_hours(after_hours), on_download=on_download == "yes")
    with portal.records.transaction() as connection:
        set_wish(connection, session.person.account_id, wish)
    return RedirectResponse("/account#gone", status_code=303)


def _hours(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text.replace(",", "."))  # a field of numbers would drop the comma: 1,5 hours became 15
    except ValueError:
        raise UserError("The hours must be a number, such as 6 or 0.5, or nothing.") from None
