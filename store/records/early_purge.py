"""Gone sooner than the promise asks: after so many hours, or as soon as the customer has the cutouts.

The account's wish counts for batches that are opened later. A wish can only shorten a life.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from schemas.errors import NotFound, UserError
from schemas.ids import AccountId, BatchId
from schemas.record import Record
from store.records.batches import hasten
from store.records.tables import accounts, batches


class PurgeWish(Record):
    """What an account wants. `after_hours` None: what the settings say for all."""

    after_hours: float | None = None
    on_download: bool = False


def set_wish(connection: Connection, account_id: AccountId, wish: PurgeWish) -> None:
    """Record what the account wants. Raises `UserError` for hours that cannot be."""
    if wish.after_hours is not None and not 0.5 <= wish.after_hours <= 23.5:
        raise UserError("The hours until purge must be at least 0.5 and at most 23.5.")
    connection.execute(
        update(accounts)
        .where(accounts.c.account_id == account_id)
        .values(purge_after_hours=wish.after_hours, purge_on_download=wish.on_download)
    )


def find_wish(connection: Connection, account_id: AccountId) -> PurgeWish:
    """What the account wants. Raises `NotFound`."""
    columns = (accounts.c.purge_after_hours, accounts.c.purge_on_download)
    row = connection.execute(select(*columns).where(accounts.c.account_id == account_id)).first()
    if row is None:
        raise NotFound("There is no such account.")
    return PurgeWish(after_hours=row.purge_after_hours, on_download=row.purge_on_download)


def life_of(connection: Connection, account_id: AccountId, at_most: timedelta) -> timedelta:
    """How long a batch of this account lives from its receipt on: `at_most`, or less if the account wants so."""
    wish = find_wish(connection, account_id)
    return at_most if wish.after_hours is None else min(at_most, timedelta(hours=wish.after_hours))


def want_gone_on_download(connection: Connection, batch_id: BatchId) -> None:
    """The same wish for one batch alone."""
    connection.execute(update(batches).where(batches.c.batch_id == batch_id).values(purge_on_download=True))


def note_download(connection: Connection, batch_id: BatchId, now: datetime) -> bool:
    """The customer has all cutouts. Whether the batch goes with the next cleanup therefore."""
    wishes = (
        select(accounts.c.purge_on_download, batches.c.purge_on_download)
        .join_from(batches, accounts, batches.c.account_id == accounts.c.account_id)
        .where(batches.c.batch_id == batch_id)
    )
    row = connection.execute(wishes).first()
    if row is None or not any(row):
        return False
    hasten(connection, batch_id, now)
    return True
