"""Who calls: the account whose key came in the `x-api-key` header. A key stands for no person and can never grant."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader

from portal.web.portal import ThePortal
from schemas.errors import KeyNeeded
from store.records.api_keys import ApiKey, find_key

key_header = APIKeyHeader(
    name="x-api-key", auto_error=False, description="A key that an owner made on the account page."
)

NEEDED = "Send a key that is in use in the x-api-key header. An owner makes one on the account page."


def caller(portal: ThePortal, text: Annotated[str | None, Security(key_header)] = None) -> ApiKey:
    """The key that was sent. Raises `KeyNeeded`."""
    with portal.records.reading() as connection:
        key = find_key(connection, text) if text else None
    if key is None:
        raise KeyNeeded(NEEDED)
    return key


Caller = Annotated[ApiKey, Depends(caller)]
"""The account that calls is `caller.account_id`."""
