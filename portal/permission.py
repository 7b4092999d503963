"""Which of an account's permissions hold now: what its batches gave may train models under these, and no others."""

from __future__ import annotations

from consent import ledger
from schemas.ids import AccountId, GrantId
from store.records.database import Records


def live_grant_ids(records: Records, account_id: AccountId) -> frozenset[GrantId]:
    """The account's grants that are not withdrawn."""
    with records.reading() as connection:
        return ledger.live_grant_ids(connection, account_id)
