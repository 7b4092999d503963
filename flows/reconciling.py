"""What a reconcile does, without the engine: the lake as the ledger has it, after what a restored one had forgotten."""

from __future__ import annotations

from consent import ledger
from consent.suppression import note, open_suppressions, replay
from flows.parts import Parts
from lake.erase import Reconciled
from lake.erase import reconcile as reconcile_lake
from schemas.errors import BgbatchError, LedgerBroken, StoreFault


def reconcile(parts: Parts) -> Reconciled:
    """Compare the lake with the ledger, and erase whatever has no live grant behind it.

    Raises `StoreFault`, and `LedgerBroken` for suppressions that cannot be read, when all that can be is erased.
    """
    fault: BgbatchError | None = None
    try:
        _heed_suppressions(parts)
    except (StoreFault, LedgerBroken) as trouble:  # what the ledger knows to be withdrawn must not wait for that
        fault = trouble
    with parts.records.reading() as connection:  # anew: a grant that was given meanwhile is among the live ones
        live = ledger.live_grant_ids(connection)
        ended = ledger.ended_grants(connection)
    report = reconcile_lake(parts.lake, parts.records, live, ended, parts.clock)
    if fault is not None:
        raise fault
    return report


def _heed_suppressions(parts: Parts) -> None:
    suppressions = open_suppressions(parts.settings)
    replay(parts.records, suppressions, parts.clock())  # the records may have been restored under a running portal
    with parts.records.reading() as connection:  # the store may be slow, and others wait for their turn to write
        note(connection, suppressions)
