"""A lease is kept while its work goes on, whatever the records do for a moment."""

from __future__ import annotations

import threading

from sqlalchemy.exc import OperationalError

from flows.lease import renewed


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

    with renewed(0.001, renew):
        assert lost.wait(10)
        assert not threading.Event().wait(0.05)
    assert asked == ["renew"]
