"""The ledger only grows, and shows what was done to it by other means."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DatabaseError

from consent import ledger
from consent.append import event_hash
from consent.ledger import Refusal
from schemas.consent import Act, ConsentState, Method
from schemas.errors import LedgerBroken, UserError
from schemas.industries import Industry
from store.records.database import Records
from store.records.tables import consent_events
from tests.consent.conftest import NOON, Owner, later, new_owner

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


@pytest.fixture
def history(owner: Owner, other: Owner) -> Records:
    """Six events of two accounts."""
    owner.press(AUTO)
    other.press(AUTO, STUDIO, at=later(1))
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(2)), AUTO, later(2))
        ledger.withdraw(connection, other.refusal(later(3)), STUDIO, later(3))
    owner.press(AUTO, at=later(4))
    return owner.records


@pytest.mark.parametrize("method", list(Method))
def test_anyone_may_withdraw_once_and_for_all(owner: Owner, method: Method) -> None:
    (grant, kept) = owner.press(AUTO, STUDIO)
    actor = owner.person_id if method is Method.BUTTON else None
    by = Refusal(owner.account_id, method, later(5), actor=actor, reason="asked for by phone")
    with owner.records.transaction() as connection:
        ended = ledger.withdraw(connection, by, AUTO, later(5))
        assert ended == grant.model_copy(update={"withdrawn_at": later(5)})
        assert ledger.withdraw(connection, by, AUTO, later(6)) is None
        assert ledger.live_grants(connection) == [kept]
        assert ledger.verify(connection) == 3


def test_withdrawing_what_was_never_given_writes_nothing(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        assert ledger.withdraw_all(connection, owner.refusal(), NOON) == []
        assert ledger.verify(connection) == 0


def test_who_withdraws_for_another_gives_a_reason(owner: Owner) -> None:
    owner.press(AUTO)
    by = Refusal(owner.account_id, Method.OPERATOR, NOON)
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(UserError), owner.records.transaction() as connection:
            ledger.withdraw(connection, replace(by, reason=reason), AUTO, NOON)


def test_an_account_withdraws_only_its_own(owner: Owner, other: Owner) -> None:
    owner.press(AUTO)
    with owner.records.transaction() as connection:
        assert ledger.withdraw_all(connection, other.refusal(), NOON) == []
        assert len(ledger.live_grants(connection)) == 1


def test_a_no_ends_never_asked_and_nothing_else(owner: Owner) -> None:
    owner.press(AUTO)
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(), AUTO, NOON)
        declined = ledger.decline(connection, owner.refusal(), NOON)
        assert declined == [each for each in Industry if each is not AUTO]
        assert ledger.decline(connection, owner.refusal(), NOON) == []
        grants = ledger.read_grants(connection, owner.account_id)
    assert grants.state(owner.account_id, AUTO) is ConsentState.WITHDRAWN
    assert grants.state(owner.account_id, STUDIO) is ConsentState.DECLINED
    assert all(each.withdrawn_at for each in grants.by_id.values())


def test_a_no_that_is_said_twice_at_once_is_written_once(owner: Owner) -> None:
    again: list[Industry] = []

    def decline() -> None:
        with owner.records.transaction() as connection:
            again.extend(ledger.decline(connection, owner.refusal(later(1)), later(1)))

    with owner.records.transaction() as connection:
        assert ledger.decline(connection, owner.refusal(), NOON) == list(Industry)
        other = threading.Thread(target=decline)
        other.start()
        other.join(timeout=0.3)
    other.join(timeout=60)
    assert again == []


def test_an_untouched_ledger_verifies(history: Records) -> None:
    with history.transaction() as connection:
        assert ledger.verify(connection) == 6


@pytest.mark.parametrize("change", [update(consent_events).values(reason="x"), delete(consent_events)])
def test_the_database_refuses_to_change_or_delete(history: Records, change: object) -> None:
    with pytest.raises(DatabaseError, match="append-only"), history.transaction() as connection:
        connection.execute(change)
    with history.transaction() as connection:
        assert ledger.verify(connection) == 6


def test_postgresql_refuses_to_truncate(postgres: Records) -> None:
    new_owner(postgres).press(Industry.AUTOMOTIVE)
    for table in ("consent_events", "receipts"):
        with pytest.raises(DatabaseError, match="append-only"), postgres.transaction() as connection:
            connection.execute(text(f"TRUNCATE {table}"))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("industry", "pipeline"),
        ("act", "declined"),
        ("actor", "p" + "0" * 32),
        ("received_at", later(-60)),
        ("notice_sha256", "f" * 64),
        ("reason", "as agreed"),
        ("account_previous_hash", "e" * 64),
    ],
)
def test_a_changed_event_is_named(history: Records, column: str, value: object) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == 3).values({column: value}))
    _breaks(history, "Event 3 .*was changed")


def test_a_missing_event_is_named(history: Records) -> None:
    with tampered(history) as connection:
        connection.execute(delete(consent_events).where(consent_events.c.sequence == 3))
    _breaks(history, "Event 3 .*is missing")


def test_re_ordered_events_are_named(history: Records) -> None:
    with tampered(history) as connection:
        for old, new in ((3, 99), (4, 3), (99, 4)):
            connection.execute(update(consent_events).where(consent_events.c.sequence == old).values(sequence=new))
    _breaks(history, "Event 3 .*is out of order: event 4 stands in its place")


def test_an_event_that_cannot_be_read_is_named(history: Records) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == 2).values(act="maybe"))
    _breaks(history, "Event 2 .*is no event")


def test_a_forged_grant_at_the_end_is_named(history: Records, owner: Owner) -> None:
    """Inserting is allowed by the database; the hash is what a forger must get right, and its place in both chains."""
    with history.transaction() as connection:
        last = ledger.read_events(connection)[-1]
        forged = {
            **last.model_dump(),
            "sequence": 7,
            "grant_id": "g" + "1" * 32,
            "industry": "studio",
            "previous_hash": last.hash,
            "account_previous_hash": last.hash,
        }
        connection.execute(insert(consent_events).values(forged))
    _breaks(history, "Event 7 .*was changed")
    with history.transaction() as connection, pytest.raises(LedgerBroken):
        ledger.live_grant(connection, owner.account_id, STUDIO)


@pytest.mark.parametrize(
    ("link", "words"),
    [("previous_hash", "the event before it"), ("account_previous_hash", "the same account's event before it")],
)
def test_an_event_that_fits_itself_but_not_its_place_is_named(history: Records, link: str, words: str) -> None:
    """Who knows how the hash is made can give any event a right one."""
    with history.transaction() as connection:
        last = ledger.read_events(connection)[-1]
        fits = {"sequence": 7, "previous_hash": last.hash, "account_previous_hash": last.hash}
        forged = last.model_copy(update={**fits, link: "f" * 64})
        connection.execute(insert(consent_events).values(forged.model_dump() | {"hash": event_hash(forged)}))
    _breaks(history, f"Event 7 .*does not follow {words}")


def test_a_damaged_account_has_no_live_grant_but_can_still_withdraw(history: Records, owner: Owner) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == 1).values(reason="x"))
    with history.transaction() as connection:
        with pytest.raises(LedgerBroken):
            ledger.live_grant(connection, owner.account_id, AUTO)
        assert ledger.withdraw(connection, owner.refusal(later(9)), AUTO, later(9)) is not None
        assert [each.act for each in ledger.read_events(connection, owner.account_id)][-1] is Act.WITHDRAWN


@pytest.mark.parametrize(
    ("column", "value"),
    [("method", "x"), ("act", "x"), ("act", "granted"), ("grant_id", "g" + "1" * 32), ("industry", "x")],
)
def test_a_damaged_withdrawal_makes_no_grant_live_again(history: Records, column: str, value: str) -> None:
    with tampered(history) as connection:
        before = ledger.live_grants(connection)
        connection.execute(update(consent_events).where(consent_events.c.sequence == 5).values({column: value}))
    with history.transaction() as connection:
        assert ledger.live_grants(connection) == before


@pytest.mark.parametrize("sequence", [1, 4, 6])
def test_what_is_no_event_any_more_stops_no_withdrawal_and_no_erasure(
    history: Records, owner: Owner, sequence: int
) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == sequence).values(method="x"))
        live, ended = ledger.live_grants(connection), ledger.ended_grants(connection)
    assert (len(live), len(ended)) == (2, 2)
    with history.transaction() as connection:
        with pytest.raises(LedgerBroken):
            ledger.read_events(connection, owner.account_id)
        taken_back = ledger.withdraw(connection, owner.refusal(later(9)), AUTO, later(9))
        assert taken_back in ledger.ended_grants(connection)
        assert len(ledger.live_grants(connection)) == 1


def test_a_withdrawal_that_names_no_grant_any_more_stops_no_other(history: Records, owner: Owner) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == 4).values(grant_id=None))
    with history.transaction() as connection:
        assert ledger.withdraw(connection, owner.refusal(later(9)), AUTO, later(9)) is not None


def test_a_grant_that_is_none_any_more_is_nobody_s_permission(history: Records) -> None:
    with tampered(history) as connection:
        connection.execute(update(consent_events).where(consent_events.c.sequence == 6).values(industry="x"))
    with history.transaction() as connection:
        assert [grant.granted_at for grant in ledger.live_grants(connection)] == [later(1)]


class tampered:
    """A transaction of somebody who owns the database and has taken its rules away; they are put back after."""

    def __init__(self, records: Records) -> None:
        self._entered = records.transaction()
        self._rules: list[str] = []

    def __enter__(self):
        self._connection = self._entered.__enter__()
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(text("ALTER TABLE consent_events DISABLE TRIGGER ALL"))
        else:
            found = self._connection.execute(
                text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'consent_events'")
            ).all()
            assert len(found) == 2
            self._rules = [sql for _, sql in found]
            for name, _ in found:
                self._connection.execute(text(f"DROP TRIGGER {name}"))
        return self._connection

    def __exit__(self, *failure: object) -> None:
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(text("ALTER TABLE consent_events ENABLE TRIGGER ALL"))
        for rule in self._rules:
            self._connection.execute(text(rule))
        self._entered.__exit__(*failure)


def _breaks(records: Records, words: str) -> None:
    with records.transaction() as connection, pytest.raises(LedgerBroken, match=words):
        ledger.verify(connection)
