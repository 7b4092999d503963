"""Closing an account: every grant ends, nobody can come in, names and addresses go, every batch is purged now.

The first three are one transaction. Then the batches are purged at once, and whatever a fault or a late writer leaves
goes with the next cleanup. The lake's files are shut to readers at once and go with the next reconcile.
"""

from __future__ import annotations

from dataclasses import dataclass

from consent.ledger import Refusal, withdraw_all
from consent.suppression import note_soon, open_suppressions
from schemas.clock import Clock
from schemas.consent import Grant
from schemas.receipt import Receipt
from store.objects.object_store import ObjectStore
from store.purging.purge import Purge
from store.records.closing import erase_account
from store.records.database import Records
from store.settings import Settings


@dataclass(frozen=True)
class Closed:
    """What closing did. `waiting`: batches that could not be purged yet; the next cleanup tries again."""

    grants: tuple[Grant, ...]
    receipts: tuple[Receipt, ...]
    waiting: int


def close_account(settings: Settings, records: Records, transient: ObjectStore, clock: Clock, by: Refusal) -> Closed:
    """Close `by.account_id`. Raises `NotFound`, `UserError`; a fault of a store shows in `waiting`."""
    with records.transaction() as connection:
        grants = withdraw_all(connection, by, clock())
        due = set(erase_account(connection, by.account_id, clock()))
    note_soon(records, open_suppressions(settings))
    report = Purge(transient, records, settings.purge_after, clock).run()
    records.forget_deleted()  # else their names stand in the database's log until the next cleanup
    receipts = tuple(each for each in report.receipts if each.subject in due)
    return Closed(tuple(grants), receipts, waiting=len(due) - len({each.subject for each in receipts}))
