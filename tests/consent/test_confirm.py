"""A withdrawal and an admission have an order, whichever thread is faster."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError

from consent import ledger
from consent.gate import confirm, is_live
from consent.policy import Decision, Reason
from schemas.ids import GrantId
from schemas.industries import Industry
from store.records import database
from store.records.database import Records
from store.records.tables import admissions, consent_events
from tests.consent.conftest import NOON, Owner, later, new_owner
from tests.consent.test_ledger import tampered

AUTO = Industry.AUTOMOTIVE


def test_a_live_grant_is_confirmed_and_a_withdrawn_one_is_not(owner: Owner) -> None:
    (grant,) = owner.press(AUTO)
    with owner.records.transaction() as connection:
        assert confirm(connection, grant.grant_id, "automotive", later(1), later(2)).admitted
        assert confirm(connection, grant.grant_id, "studio", later(1), later(2)).reason is Reason.OTHER_INDUSTRY
        assert confirm(connection, grant.grant_id, "automotive", later(-1), later(2)).reason is Reason.GRANTED_LATER
        assert confirm(connection, None, "automotive", later(1), later(2)).reason is Reason.NO_GRANT
        assert confirm(connection, "g" + "0" * 32, "automotive", later(1), later(2)).reason is Reason.UNKNOWN_GRANT
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
        assert confirm(connection, grant.grant_id, "automotive", later(1), later(2)).reason is Reason.WITHDRAWN


def test_rows_of_a_live_grant_alone_may_be_moved(owner: Owner) -> None:
    (live, ended) = owner.press(AUTO, Industry.STUDIO)
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), Industry.STUDIO, later(1))
        asked = [live.grant_id, ended.grant_id, GrantId("g" + "0" * 32)]
        assert [is_live(connection, each) for each in asked] == [True, False, False]
    with tampered(owner.records) as connection:
        connection.execute(update(consent_events).values(received_at=later(-60)))
        assert not is_live(connection, live.grant_id)


def test_a_batch_of_the_same_millisecond_as_its_grant_is_none_from_before(owner: Owner) -> None:
    """A batch's id keeps whole milliseconds of its receipt, so more of a grant's time cannot be compared."""
    (grant,) = owner.press(AUTO, at=NOON + timedelta(microseconds=999))
    with owner.records.transaction() as connection:
        assert confirm(connection, grant.grant_id, "automotive", NOON, later(1)).admitted


def test_a_damaged_ledger_confirms_nothing(owner: Owner) -> None:
    (grant,) = owner.press(AUTO)
    with tampered(owner.records) as connection:
        connection.execute(update(consent_events).values(received_at=later(-60)))
    with owner.records.transaction() as connection:
        decision = confirm(connection, grant.grant_id, "automotive", NOON, NOON)
    assert decision.reason is Reason.LEDGER_UNREADABLE


def test_a_transaction_that_reads_the_past_confirms_nothing(postgres: Records) -> None:
    owner = new_owner(postgres)
    (grant,) = owner.press(AUTO)
    engine = owner.records.engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        assert confirm(connection, grant.grant_id, "automotive", NOON, NOON).reason is Reason.LEDGER_UNREADABLE


def test_a_withdrawal_outwaits_an_admission_whose_process_stands_still(
    postgres: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_STILL_SECONDS", 1)
    owner = new_owner(postgres)
    (grant,) = owner.press(AUTO)

    def withdraw() -> None:
        with owner.records.transaction() as connection:
            ledger.withdraw(connection, owner.refusal(later(2)), AUTO, later(2))

    def stand_still() -> None:
        with owner.records.transaction() as connection:
            assert confirm(connection, grant.grant_id, "automotive", later(1), later(2)).admitted
            other.start()
            other.join(timeout=60)
            assert not other.is_alive(), "the withdrawal must not wait for ever"

    other = threading.Thread(target=withdraw)
    with pytest.raises(OperationalError, match="idle-in-transaction"):  # as while the records are away
        stand_still()
    with owner.records.reading() as connection:
        assert ledger.live_grants(connection) == []


def test_a_withdrawal_waits_for_an_admission_that_was_first(owner: Owner) -> None:
    (grant,) = owner.press(AUTO)
    order: list[str] = []

    def withdraw() -> None:
        with owner.records.transaction() as connection:
            ledger.withdraw(connection, owner.refusal(later(2)), AUTO, later(2))
        order.append("withdrawn")

    with owner.records.transaction() as connection:
        assert confirm(connection, grant.grant_id, "automotive", later(1), later(1)).admitted
        other = threading.Thread(target=withdraw)
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive(), "the withdrawal must wait"
        order.append("admitted")
    other.join(timeout=60)
    assert order == ["admitted", "withdrawn"]


def test_an_admission_waits_for_a_withdrawal_that_was_first(owner: Owner) -> None:
    (grant,) = owner.press(AUTO)
    decisions: list[Decision] = []

    def admit() -> None:
        with owner.records.transaction() as connection:
            decisions.append(confirm(connection, grant.grant_id, "automotive", later(1), later(3)))

    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(2)), AUTO, later(2))
        other = threading.Thread(target=admit)
        other.start()
        other.join(timeout=0.3)
        assert not decisions, "the admission must wait"
    other.join(timeout=60)
    assert [each.reason for each in decisions] == [Reason.WITHDRAWN]


def test_admissions_do_not_wait_for_each_other_on_postgresql(postgres: Records) -> None:
    owner = new_owner(postgres)
    (grant,) = owner.press(AUTO)
    with owner.records.transaction() as one, owner.records.transaction() as two:
        assert confirm(one, grant.grant_id, "automotive", NOON, NOON).admitted
        assert confirm(two, grant.grant_id, "automotive", NOON, NOON).admitted


def test_in_a_storm_no_admission_commits_after_the_withdrawal(owner: Owner, other: Owner) -> None:
    """Eight writers admit and withdraw at once; the database's own commit order is what counts, so it is written down:
    each admission notes how many withdrawals of its grant it could see, which must be none, for ever."""
    records = owner.records
    rounds = 12
    for turn in range(rounds):
        (grant,) = owner.press(AUTO, at=later(10 * turn))
        start = threading.Barrier(5)

        def admit(number: int, grant_id: GrantId = grant.grant_id, turn: int = turn, start=start) -> bool:
            start.wait()
            time.sleep(Random(turn * 10 + number).random() * 0.01)
            with records.transaction() as connection:
                at = later(10 * turn + 1)
                if not confirm(connection, grant_id, "automotive", at, at).admitted:
                    return False
                time.sleep(0.002)
                _record_admission(connection, grant_id, f"{turn}-{number}")
                withdrawn = select(consent_events).where(
                    consent_events.c.grant_id == grant_id, consent_events.c.act == "withdrawn"
                )
                assert connection.execute(withdrawn).first() is None, "withdrawn before the admission committed"
                return True

        def withdraw(turn: int = turn, start=start) -> list[int]:
            start.wait()
            time.sleep(Random(turn).random() * 0.01)
            with records.transaction() as connection:
                ledger.withdraw(connection, owner.refusal(later(10 * turn + 2)), AUTO, later(10 * turn + 2))
                return [len(_admitted(connection, turn))]

        with ThreadPoolExecutor(5) as pool:
            taken = pool.submit(withdraw)
            answers = list(pool.map(admit, range(4)))
        (seen_by_withdrawal,) = taken.result()
        with records.transaction() as connection:
            assert len(_admitted(connection, turn)) == sum(answers) == seen_by_withdrawal
    with records.transaction() as connection:
        assert ledger.verify(connection) == 2 * rounds


def test_many_accounts_at_once_keep_one_chain(records: Records, owner: Owner, other: Owner) -> None:
    def act(who: Owner) -> None:
        for turn in range(8):
            who.press(AUTO, Industry.STUDIO, at=later(turn))
            with records.transaction() as connection:
                ledger.withdraw_all(connection, who.refusal(later(turn)), later(turn))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(act, [owner, other]))
    with records.transaction() as connection:
        assert ledger.verify(connection) == 2 * 8 * 4


def _record_admission(connection, grant_id: GrantId, key: str) -> None:
    connection.execute(
        insert(admissions).values(
            key=key,
            grant_id=grant_id,
            batch_id="b",
            industry="automotive",
            rows=1,
            bytes=1,
            sha256="0" * 64,
            admitted_at=NOON,
        )
    )


def _admitted(connection, turn: int) -> list[str]:
    return list(connection.execute(select(admissions.c.key).where(admissions.c.key.startswith(f"{turn}-"))).scalars())
