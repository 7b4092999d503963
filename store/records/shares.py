"""Each account's place in the fair share (`flows.fair_share` decides by it), its weight, and limits of its own."""

from __future__ import annotations

import math
from collections.abc import Collection

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from schemas.errors import UserError
from schemas.ids import AccountId
from schemas.record import Record
from store.records.tables import shares
from store.settings import Settings

_IN_ONE_QUERY = 500  # databases limit how many values a query may carry


class Share(Record):
    """An account's place in the fair share, and its own limits where it has some."""

    account_id: AccountId
    finish_tag: float = 0.0
    weight: float = 1.0
    most_batches: int | None = None
    most_items: int | None = None

    def limits(self, settings: Settings) -> tuple[int, int]:
        """Batches and photos that it may have under way: as for all where it has no limit of its own."""
        return self.most_batches or settings.account_batches, self.most_items or settings.account_items


def set_limits(connection: Connection, share: Share) -> None:
    """Note weight and limits. What the account has had is left as it is: a dispatcher may be counting. `UserError`."""
    if not 0 < share.weight < math.inf:
        raise UserError("A weight is a number above 0; 1 is as for all, 2 is twice as much.")
    if any(most is not None and not 0 < most < 2**31 for most in (share.most_batches, share.most_items)):
        raise UserError("A limit is a number above 0 and below two thousand million.")
    share_to_charge(connection, share.account_id)
    values = share.model_dump(include={"weight", "most_batches", "most_items"})
    connection.execute(update(shares).where(shares.c.account_id == share.account_id).values(values))


def read_shares(connection: Connection, accounts: Collection[AccountId]) -> dict[AccountId, Share]:
    """Those that there are of these accounts."""
    wanted, found = sorted(accounts), {}
    for start in range(0, len(wanted), _IN_ONE_QUERY):
        own = shares.c.account_id.in_(wanted[start : start + _IN_ONE_QUERY])
        for row in connection.execute(select(shares).where(own)).mappings():
            found[AccountId(row["account_id"])] = Share.model_validate(dict(row))
    return found


def find_share(connection: Connection, account_id: AccountId) -> Share:
    """The account's, as for all if it has none yet."""
    row = connection.execute(select(shares).where(shares.c.account_id == account_id)).mappings().first()
    return Share(account_id=account_id) if row is None else Share.model_validate(dict(row))


def share_to_charge(connection: Connection, account_id: AccountId) -> Share:
    """The account's, begun if it has none. Nobody else changes it until this transaction ends."""
    begin = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(begin(shares).values(account_id=account_id).on_conflict_do_nothing())
    own = select(shares).where(shares.c.account_id == account_id).with_for_update()
    return Share.model_validate(dict(connection.execute(own).mappings().one()))


def charge(connection: Connection, share: Share) -> None:
    """Note what the account has had; weight and limits are the operator's. In the transaction that read the share."""
    own = update(shares).where(shares.c.account_id == share.account_id)
    connection.execute(own.values(finish_tag=share.finish_tag))
