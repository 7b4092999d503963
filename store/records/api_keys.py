"""Keys for programs. A key is shown once, when it is made; only its hash is kept. Revoked, it is worth nothing at once.

A key stands for an account, not for a person. It may submit, read and withdraw; nothing that it can reach can grant.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from schemas.errors import AlreadyExists, NotFound, UserError
from schemas.ids import AccountId, PersonId, Randomness
from schemas.record import Moment, Record
from store.records.people import require_open
from store.records.tables import api_keys

PREFIX = "bgb_"
"""How a key begins, so that scanners for leaked secrets can know it."""

_LONGEST_NAME = 200
MOST_KEYS = 50
"""Keys that an account may have in use."""


class ApiKey(Record):
    """What is known of a key. The key itself is nowhere."""

    key_id: str
    account_id: AccountId
    name: str
    created_by: PersonId
    created_at: Moment
    revoked_at: Moment | None


def create_key(
    connection: Connection,
    account_id: AccountId,
    created_by: PersonId,
    name: str,
    now: datetime,
    randomness: Randomness,
) -> tuple[ApiKey, str]:
    """A new key and its text, to be shown once.

    Raises `UserError`, `AlreadyExists` for the name of a key in use: whoever asks again, as by loading the answer
    again, leaves no key behind that nobody has seen. `NotFound` for a closed account.
    """
    require_open(connection, account_id, alone=True)
    name = name.strip()
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise UserError(f"Give the key a name of 1 to {_LONGEST_NAME} printable characters: what will use it.")
    in_use = [each.name for each in list_keys(connection, account_id) if each.revoked_at is None]
    if name in in_use:
        raise AlreadyExists(
            "There is a key of that name already, so none was made. If you do not have its text, revoke it and make "
            "another."
        )
    if len(in_use) >= MOST_KEYS:
        raise UserError(f"The account has {MOST_KEYS} keys in use. Revoke one that is not needed any more.")
    text = PREFIX + randomness(32).hex()
    key = ApiKey(
        key_id="k" + randomness(16).hex(),
        account_id=account_id,
        name=name,
        created_by=created_by,
        created_at=now,
        revoked_at=None,
    )
    connection.execute(insert(api_keys).values(**key.model_dump(), key_sha256=_hash(text)))
    return key, text


def list_keys(connection: Connection, account_id: AccountId) -> list[ApiKey]:
    """All keys of an account, the newest first, revoked ones too."""
    query = (
        select(api_keys)
        .where(api_keys.c.account_id == account_id)
        .order_by(api_keys.c.created_at.desc(), api_keys.c.key_id)
    )
    return [_key(row) for row in connection.execute(query).mappings()]


def find_key(connection: Connection, text: str) -> ApiKey | None:
    """The key in use whose text this is, or none."""
    query = select(api_keys).where(api_keys.c.key_sha256 == _hash(text), api_keys.c.revoked_at.is_(None))
    row = connection.execute(query).mappings().first()
    return None if row is None else _key(row)


def revoke_key(connection: Connection, account_id: AccountId, key_id: str, now: datetime) -> None:
    """Make one of the account's own keys worthless, for good. Raises `NotFound`."""
    own = (api_keys.c.account_id == account_id) & (api_keys.c.key_id == key_id)
    if connection.execute(select(api_keys.c.key_id).where(own)).first() is None:
        raise NotFound("There is no key of that id in your account.")
    connection.execute(update(api_keys).where(own, api_keys.c.revoked_at.is_(None)).values(revoked_at=now))


def _key(row: RowMapping) -> ApiKey:
    return ApiKey.model_validate({name: row[name] for name in ApiKey.model_fields})


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
