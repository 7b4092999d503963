"""Over random histories, the policy says what ten plain lines say: as pure functions, and with button and database.

`make histories` plays a million (HISTORIES=1000000); the suite plays some thousands.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from consent import ledger
from consent.button import press
from consent.gate import confirm
from consent.grants import grants_of
from consent.policy import Facts, decide
from schemas.consent import Act, ConsentEvent, Method
from schemas.errors import StaleNotice
from schemas.ids import AccountId, new_grant_id
from schemas.industries import Industry
from store.records.database import Records, open_records
from store.records.tables import admissions
from tests.consent.conftest import NOON, Owner, later, new_owner
from tests.consent.histories import PLACES, Place, Step, covered, play, steps
from tests.consent.postgres import current_database
from tests.records import at_home

HISTORIES = int(os.environ.get("HISTORIES", "3000"))
AUTO = Industry.AUTOMOTIVE

codes = st.binary(min_size=2, max_size=24)
SETTINGS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.generate, Phase.shrink),
    "database": None,
}


@dataclass
class Pure:
    """Events in memory, replayed by `grants_of` and judged by `decide`."""

    events: list[ConsentEvent] = field(default_factory=list)
    randomness: Random = field(default_factory=lambda: Random(1))

    def press(self, place: Place, now: datetime, again: datetime | None) -> None:
        account, industry = AccountId(place[0]), Industry(place[1])
        held = grants_of(self.events).live(account, industry)
        if held is not None and (again is None or held.granted_at >= again):
            return
        if held is not None:
            self.withdraw(place, now)
        self._append(place, now, Act.GRANTED, new_grant_id(self.randomness.randbytes))

    def withdraw(self, place: Place, now: datetime) -> None:
        held = grants_of(self.events).live(AccountId(place[0]), Industry(place[1]))
        if held is not None:
            self._append(place, now, Act.WITHDRAWN, held.grant_id)

    def decline(self, place: Place, now: datetime) -> None:
        self._append(place, now, Act.DECLINED, None)

    def grant_now(self, place: Place) -> str | None:
        held = grants_of(self.events).live(AccountId(place[0]), Industry(place[1]))
        return held.grant_id if held else None

    def may(self, place: Place, sent: datetime, grant: str | None, now: datetime, again: datetime | None) -> bool:
        facts = Facts(received_at=sent, industry=place[1], grant_id=grant)
        return decide(facts, grants_of(self.events).get(grant), now, again).admitted

    def _append(self, place: Place, now: datetime, act: Act, grant_id: str | None) -> None:
        self.events.append(
            ConsentEvent.model_construct(
                sequence=len(self.events) + 1,
                account_id=place[0],
                industry=Industry(place[1]),
                act=act,
                grant_id=grant_id,
                notice_version="1",
                received_at=now,
            )
        )


@dataclass
class Recorded:
    """The button, the ledger and the gate on a database; two fresh accounts for each history."""

    records: Records
    owners: dict[str, Owner]
    seeds: Iterator[int] = field(default_factory=count)

    def press(self, place: Place, now: datetime, again: datetime | None) -> None:
        owner = self.owners[place[0]]
        with self.records.transaction() as connection:
            newest = ledger.newest_event(connection, owner.account_id)
            act = replace(owner.act, industries=(Industry(place[1]),), received_at=now, newest_event=newest)
            press(connection, act, now, Random(f"{owner.account_id}{next(self.seeds)}").randbytes, again)

    def withdraw(self, place: Place, now: datetime) -> None:
        with self.records.transaction() as connection:
            ledger.withdraw(connection, self.owners[place[0]].refusal(now), Industry(place[1]), now)

    def decline(self, place: Place, now: datetime) -> None:
        with self.records.transaction() as connection:
            ledger.decline(connection, self.owners[place[0]].refusal(now), now)

    def grant_now(self, place: Place) -> str | None:
        with self.records.transaction() as connection:
            held = ledger.live_grant(connection, self.owners[place[0]].account_id, Industry(place[1]))
        return held.grant_id if held else None

    def may(self, place: Place, sent: datetime, grant: str | None, now: datetime, again: datetime | None) -> bool:
        with self.records.transaction() as connection:
            return confirm(connection, grant, place[1], sent, now, again).admitted


@settings(max_examples=HISTORIES, **SETTINGS)
@given(codes)
def test_the_policy_is_ten_lines(code: bytes) -> None:
    for said, right in play(steps(code), Pure()):
        assert said == right


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    home: Path = tmp_path_factory.mktemp("histories")
    records = open_records(at_home(home, records_url="" if request.param == "sqlite" else current_database()))
    yield records
    records.engine.dispose()


numbers = count()


@settings(max_examples=max(25, HISTORIES // 100), **SETTINGS)
@given(code=st.binary(min_size=2, max_size=10))
def test_button_ledger_and_gate_keep_the_policy_on_a_database(database: Records, code: bytes) -> None:
    owners = {name: new_owner(database, f"{name} {next(numbers)}") for name in ("acme", "bazaar")}
    for said, right in play(steps(code), Recorded(database, owners)):
        assert said == right


def test_the_histories_reach_a_yes_and_every_way_to_lose_it() -> None:
    """Else the tests above could be right about nothing."""
    at = PLACES[0]
    yes = [Step("press", at), Step("send", at)]
    assert covered(yes)
    assert [said for said, _ in play(yes, Pure())] == [True]
    for verb, lasting in (("withdraw", True), ("ask again", True), ("clock back", False), ("decline", None)):
        *_, (last, _) = play([*yes, Step(verb, at)], Pure())
        assert last == (lasting is None), verb
        *_, (afterwards, _) = play([*yes, Step(verb, at), Step("wait", at)], Pure())
        assert afterwards == (lasting is not True), verb
    *_, (renewed, _) = play([*yes, Step("withdraw", at), Step("press", at)], Pure())
    assert not renewed, "a later yes does not reach back"
    seen = [covered(steps(Random(seed).randbytes(24))) for seed in range(200)]
    assert sum(seen) > 20, "random bytes tell such histories, too"


delays = st.integers(0, 20)


@settings(max_examples=max(12, HISTORIES // 250), **SETTINGS)
@given(
    admits=st.lists(delays, min_size=2, max_size=5),
    withdraws=st.lists(delays, min_size=1, max_size=2),
    presses=st.lists(delays, max_size=2),
)
def test_at_once_on_postgresql_no_admission_follows_the_withdrawal(
    postgres: Records, admits: list[int], withdraws: list[int], presses: list[int]
) -> None:
    """All start at once, each after its own milliseconds. What the first withdrawal sees admitted is all there will be;
    and a press that comes in between makes another grant, under which nothing of this batch can be admitted."""
    owner = new_owner(postgres, f"storm {next(numbers)}")
    (grant,) = owner.press(AUTO)
    start = threading.Barrier(len(admits) + len(withdraws) + len(presses))

    def admit(place: int, delay: int) -> bool:
        start.wait()
        time.sleep(delay / 1000)
        with postgres.transaction() as connection:
            if not confirm(connection, grant.grant_id, "automotive", later(1), later(2)).admitted:
                return False
            time.sleep(0.002)
            connection.execute(insert(admissions).values(_admission(grant.grant_id, place)))
            return True

    def withdraw(delay: int) -> int | None:
        start.wait()
        time.sleep(delay / 1000)
        with postgres.transaction() as connection:
            ended = ledger.withdraw(connection, owner.refusal(later(3)), AUTO, later(3))
            return _admitted(connection, grant.grant_id) if ended and ended.grant_id == grant.grant_id else None

    def press_again(delay: int, number: int) -> None:
        start.wait()
        time.sleep(delay / 1000)
        with suppress(StaleNotice):  # when the withdrawal came between the look and the press
            owner.press(AUTO, at=later(4 + number))

    with ThreadPoolExecutor(start.parties) as pool:
        taken = [pool.submit(withdraw, each) for each in withdraws]
        given_again = [pool.submit(press_again, each, number) for number, each in enumerate(presses)]
        answers = list(pool.map(admit, range(len(admits)), admits))
    for each in given_again:
        each.result()
    (seen,) = [each for each in (future.result() for future in taken) if each is not None]
    with postgres.transaction() as connection:
        assert _admitted(connection, grant.grant_id) == seen == sum(answers)
        events = ledger.read_events(connection, owner.account_id)
        replayed = grants_of(events)
    assert replayed.by_id[grant.grant_id].withdrawn_at == later(3)
    assert {event.method for event in events} == {Method.BUTTON}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    records = open_records(at_home(tmp_path_factory.mktemp("storm"), records_url=current_database()))
    yield records
    records.engine.dispose()


def _admission(grant_id: str, place: int) -> dict[str, object]:
    return {
        "key": f"{grant_id}-{place}",
        "grant_id": grant_id,
        "batch_id": "b",
        "industry": "automotive",
        "rows": 1,
        "bytes": 1,
        "sha256": "0" * 64,
        "admitted_at": NOON,
    }


def _admitted(connection, grant_id: str) -> int:
    return len(connection.execute(select(admissions.c.key).where(admissions.c.grant_id == grant_id)).all())
