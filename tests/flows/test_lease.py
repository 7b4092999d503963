"""A lease is kept while its work goes on, whatever the records do for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from flows.lease import renewed
from portal.cli.lease import holding
from store import line
from store.tables import submissions
from tests.flows.conftest import Place


def test_records_that_are_away_for_a_moment_do_not_cost_the_lease() -> None:
    asked: list[str] = []
    kept = threading.Event()

    def renew() -> bool:
        asked.append("renew")
        if len(asked) < 3:
            raise OperationalError("UPDATE", None, Exception("the server is starting up"))
        kept.set()
        return True

    with renewed(0.001, renew):
        assert kept.wait(10)


def test_a_lost_lease_is_asked_for_no_more() -> None:
    asked: list[str] = []
    lost = threading.Event()

    def renew() -> bool:
        asked.append("renew")
        lost.set()
        return False

    with renewed(0.001, renew) as told:
        assert lost.wait(10)
        assert told.wait(10), "and who works under it is told"
        assert not threading.Event().wait(0.05)
    assert asked == ["renew"]


def test_a_command_whose_lease_another_has_taken_begins_no_more_of_the_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = place.send({"1.jpg": b"x"})
    monkeypatch.setattr(line, "LEASE_LIFE", timedelta(seconds=0.04))
    with holding(place.parts, stamp.batch_id) as held:
        assert not held.stop(stamp.batch_id)
        with place.parts.records.transaction() as connection:
            connection.execute(update(submissions).values(lease_holder="another"))
        assert comes(lambda: held.stop(stamp.batch_id))


def comes(what: Callable[[], bool]) -> bool:
    return any(what() or threading.Event().wait(0.01) for _ in range(1000))
