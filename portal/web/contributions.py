"""What was given under each grant and what became of it: images in the lake, who took them, and the erasure.

Read from the records: admissions say what entered the lake, receipts and begun erasures what left it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from schemas.batch import PROMISED_LIFE
from schemas.consent import Grant
from schemas.ids import GrantId
from schemas.receipt import Erased, Receipt
from store.records.tables import admissions, erasures, pulled_grants, pulls, receipts


@dataclass(frozen=True)
class FromBatch:
    """How many images of one batch entered the lake."""

    batch_id: str
    images: int
    admitted_at: datetime


@dataclass(frozen=True)
class TakenCopy:
    """A copy that somebody took for training: who, when, how many images; when they were erased from it."""

    recipient: str
    taken_at: datetime
    images: int
    cleared_at: datetime | None


@dataclass(frozen=True)
class Contribution:
    """One grant: what was given under it, and after its withdrawal how the erasure stands.

    `receipts`: of erasures that are done; a late writer can make a second one. `is_erasing`: the deleting has begun.
    """

    grant: Grant
    batches: tuple[FromBatch, ...]
    receipts: tuple[Receipt, ...]
    is_erasing: bool
    copies: tuple[TakenCopy, ...] = ()

    @property
    def images(self) -> int:
        """Images that entered the lake, over all batches."""
        return sum(each.images for each in self.batches)

    @property
    def erase_by(self) -> datetime | None:
        """The promised end of the erasure; None while the grant is live."""
        return None if self.grant.withdrawn_at is None else self.grant.withdrawn_at + PROMISED_LIFE

    @property
    def is_waiting(self) -> bool:
        """Whether there is something left to erase, or no receipt yet that says otherwise."""
        if self.grant.withdrawn_at is None or (self.receipts and not self.is_erasing):
            return False
        return self.is_erasing or bool(self.batches)


def contributions(connection: Connection, grants: Iterable[Grant]) -> dict[GrantId, Contribution]:
    """What was given under each of `grants`, in their order."""
    wanted = {grant.grant_id: grant for grant in grants}
    batches = _batches(connection, wanted)
    done = _receipts(connection, wanted)
    copies = _copies(connection, wanted)
    begun = set(
        connection.execute(
            select(erasures.c.subject).where(erasures.c.kind == Erased.GRANT, erasures.c.subject.in_(wanted))
        ).scalars()
    )
    return {
        grant_id: Contribution(
            grant=grant,
            batches=tuple(batches.get(grant_id, ())),
            receipts=tuple(done.get(grant_id, ())),
            is_erasing=grant_id in begun,
            copies=tuple(copies.get(grant_id, ())),
        )
        for grant_id, grant in wanted.items()
    }


def _batches(connection: Connection, wanted: Iterable[GrantId]) -> dict[str, list[FromBatch]]:
    query = (
        select(
            admissions.c.grant_id,
            admissions.c.batch_id,
            func.sum(admissions.c.rows).label("images"),
            func.min(admissions.c.admitted_at).label("admitted_at"),
        )
        .where(admissions.c.grant_id.in_(wanted))
        .group_by(admissions.c.grant_id, admissions.c.batch_id)
        .order_by(admissions.c.batch_id.desc())
    )
    found: dict[str, list[FromBatch]] = {}
    for row in connection.execute(query):
        found.setdefault(row.grant_id, []).append(FromBatch(row.batch_id, int(row.images), row.admitted_at))
    return found


def _copies(connection: Connection, wanted: Iterable[GrantId]) -> dict[str, list[TakenCopy]]:
    query = (
        select(pulled_grants, pulls.c.recipient, pulls.c.started_at)
        .join_from(pulled_grants, pulls, pulled_grants.c.pull_id == pulls.c.pull_id)
        .where(pulled_grants.c.grant_id.in_(wanted), pulled_grants.c.rows > 0)
        .order_by(pulls.c.started_at.desc())
    )
    found: dict[str, list[TakenCopy]] = {}
    for row in connection.execute(query):
        taken = TakenCopy(row.recipient, row.started_at, row.rows, row.erased_at)
        found.setdefault(row.grant_id, []).append(taken)
    return found


def _receipts(connection: Connection, wanted: Iterable[GrantId]) -> dict[str, list[Receipt]]:
    query = (
        select(receipts)
        .where(receipts.c.kind == Erased.GRANT, receipts.c.subject.in_(wanted))
        .order_by(receipts.c.sequence)
    )
    found: dict[str, list[Receipt]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["subject"], []).append(Receipt.model_validate(dict(row)))
    return found
