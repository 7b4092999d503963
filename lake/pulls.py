"""The record of copies: who took what. Written before a copy's first image, so that a withdrawal finds every copy.

It is written after the copy's plan, so that it speaks of no copy that nobody could go on with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from lake.copies.manifest import Manifest, Plan
from schemas.errors import NotFound
from schemas.ids import GrantId
from schemas.industries import Industry
from schemas.record import Moment, Record
from store.records.tables import pulled_grants, pulls


class Pull(Record):
    """A copy. `grants`: rows that it took of each grant; `cleared`: those that were erased from it."""

    pull_id: str
    industry: Industry
    recipient: str
    place: str
    kind: str
    lake_state: str
    started_at: Moment
    finished_at: Moment | None
    grants: dict[GrantId, int]
    cleared: dict[GrantId, Moment]

    @property
    def rows(self) -> int:
        """How many it holds still."""
        return sum(self.must_go(()).values())

    def must_go(self, live: Collection[GrantId]) -> dict[GrantId, int]:
        """Rows of grants that have ended and were not erased from this copy yet."""
        return {each: rows for each, rows in self.grants.items() if each not in live and each not in self.cleared}


def record_pull(connection: Connection, said: Plan | Manifest, place: str) -> None:
    """Note a copy that is about to be made, or is there."""
    rows = _rows_of(said)
    connection.execute(
        insert(pulls).values(
            pull_id=said.pull_id,
            industry=said.wanted.industry,
            recipient=said.recipient,
            place=place,
            kind=said.kind,
            query=said.wanted.model_dump(mode="json"),
            lake_state=said.lake_state,
            started_at=said.started_at,
            finished_at=said.finished_at if isinstance(said, Manifest) else None,
        )
    )
    if rows:
        took = [{"pull_id": said.pull_id, "grant_id": grant_id, "rows": count} for grant_id, count in rows.items()]
        connection.execute(insert(pulled_grants), took)


def remember_pull(connection: Connection, said: Plan | Manifest, place: str, live: Collection[GrantId]) -> None:
    """Note a copy that the records forgot, as restored ones do. One without a live grant of ours is not of here."""
    known = select(pulls.c.pull_id).where(pulls.c.pull_id == said.pull_id)
    if not _rows_of(said).keys().isdisjoint(live) and connection.execute(known).first() is None:
        record_pull(connection, said, place)


def _rows_of(said: Plan | Manifest) -> dict[GrantId, int]:
    if isinstance(said, Manifest):
        return said.rows_by_grant
    rows: dict[GrantId, int] = {}
    for part in said.parts:
        rows[part.grant_id] = rows.get(part.grant_id, 0) + part.rows
    return rows


def resume_pull(connection: Connection, plan: Plan, place: str, live: Collection[GrantId]) -> None:
    """Note that an interrupted copy is gone on with, maybe in a place that it was moved to.

    It is on record, and holds what is live: also if the records were restored, or somebody said that it was gone.
    """
    own = pulls.c.pull_id == plan.pull_id
    if connection.execute(update(pulls).where(own).values(place=place)).rowcount == 0:
        record_pull(connection, plan, place)
    of_live = pulled_grants.c.grant_id.in_({part.grant_id for part in plan.parts} & set(live))
    held = of_live & (pulled_grants.c.pull_id == plan.pull_id)
    connection.execute(update(pulled_grants).where(held).values(erased_at=None))


def finish_pull(connection: Connection, pull_id: str, rows: Mapping[GrantId, int], now: datetime) -> None:
    """Note what the copy holds. Grants that ended while it was made are not in it."""
    connection.execute(update(pulls).where(pulls.c.pull_id == pull_id).values(finished_at=now))
    for grant_id, count in rows.items():
        connection.execute(
            update(pulled_grants)
            .where(pulled_grants.c.pull_id == pull_id, pulled_grants.c.grant_id == grant_id)
            .values(rows=count)
        )
    mark_cleared(connection, pull_id, now, kept=rows)


def mark_cleared(connection: Connection, pull_id: str, now: datetime, kept: Collection[GrantId] = ()) -> None:
    """Note that a copy holds nothing more of any grant but `kept`."""
    held = (pulled_grants.c.pull_id == pull_id) & pulled_grants.c.erased_at.is_(None)
    connection.execute(update(pulled_grants).where(held, pulled_grants.c.grant_id.not_in(kept)).values(erased_at=now))


def mark_gone(connection: Connection, pull_id: str, now: datetime) -> None:
    """Note that a copy was deleted as a whole, as whoever had it says. Raises `NotFound`."""
    if connection.execute(select(pulls.c.pull_id).where(pulls.c.pull_id == pull_id)).first() is None:
        raise NotFound("There is no such pull. `bgbatch lake pulls` shows all of them.")
    mark_cleared(connection, pull_id, now)


def list_pulls(connection: Connection) -> list[Pull]:
    """All copies that were ever taken, the newest first."""
    of_pull: dict[str, list[tuple[GrantId, int, datetime | None]]] = {}
    for each in connection.execute(select(pulled_grants).order_by(pulled_grants.c.grant_id)):
        of_pull.setdefault(each.pull_id, []).append((GrantId(each.grant_id), each.rows, each.erased_at))
    query = select(pulls).order_by(pulls.c.started_at.desc(), pulls.c.pull_id)
    found = []
    for row in connection.execute(query).mappings():
        grants = of_pull.get(row["pull_id"], [])
        fields = {name: row[name] for name in Pull.model_fields if name in row}
        found.append(
            Pull(
                **fields,
                grants={grant_id: rows for grant_id, rows, _ in grants},
                cleared={grant_id: at for grant_id, _, at in grants if at is not None},
            )
        )
    return found
