"""The lake as its readers see it, with the ledger asked for the grants that are live."""

from __future__ import annotations

from collections.abc import Callable

from consent.ledger import live_grant_ids
from flows.parts import Parts
from lake.reading import Lake
from schemas.ids import GrantId


def lake_of(parts: Parts, reopen: Callable[[], Lake] | None = None) -> Lake:
    """The lake of these parts. `reopen`: how another process opens it anew."""

    def live() -> frozenset[GrantId]:
        with parts.records.reading() as connection:
            return live_grant_ids(connection)

    return Lake(parts.lake, parts.records, live, reopen)
