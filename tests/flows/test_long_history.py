"""What is asked every few seconds or minutes is looked up by index: it does not read all that there ever was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, event

from flows.cleaning import purge
from flows.nights.steps import anything_to_do
from flows.reconciling import reconcile
from store.records import line, schedules, webhooks
from store.records.database import Records
from store.records.expired import forget_expired
from tests.flows.conftest import Place
from tests.schedules import nightly

READS_ALL = re.compile(r"SCAN (batches|submissions|receipts|nights|webhook_events|other)\b")
"""`other`: the ledger once more, for each grant in it."""


@contextmanager
def noting_plans(records: Records) -> Iterator[list[str]]:
    """How SQLite goes about each statement of the block."""
    plans: list[str] = []

    def note(connection: Connection, cursor: object, statement: str, values: Sequence[object], *more: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            plan = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.extend(step for *_, step in plan)

    event.listen(records.engine, "before_cursor_execute", note)
    yield plans
    event.remove(records.engine, "before_cursor_execute", note)


def test_what_runs_all_the_time_reads_no_whole_history(place: Place) -> None:
    parts, now = place.parts, place.parts.clock()
    with parts.records.transaction() as connection:
        schedules.add(connection, nightly(place.account_id, now))
    place.send({"1.jpg": b"x"})
    with noting_plans(parts.records) as plans:
        with parts.records.transaction() as connection:
            line.in_line(connection, now)
            webhooks.claim_due(connection, now, 64)
            forget_expired(connection, now)
        anything_to_do(parts)
        purge(parts)
        reconcile(parts)
    assert [plan for plan in plans if READS_ALL.match(plan)] == []
    for index in ("ix_nights_going", "ix_submissions_upload_key", "ix_consent_events_account_id_industry_sequence"):
        assert any(index in plan for plan in plans), index
