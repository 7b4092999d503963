"""Only a signed-in owner's deliberate act, on the text in force, makes a grant."""

from __future__ import annotations

import threading
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import update

from consent import ledger
from consent.button import Press, press
from consent.notice import CURRENT
from schemas.chain import GENESIS
from schemas.consent import Act, Method
from schemas.errors import BgbatchError, NotAllowed, NotFound, StaleNotice, UserError
from schemas.industries import Industry
from store.records.closing import erase_account
from store.records.people import Role, add_person
from store.records.sessions import SESSION_LIFE, close_session, find_session, open_session
from store.records.tables import accounts
from tests.consent.conftest import NOON, Owner, later

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


def test_each_industry_gets_a_grant_of_its_own(owner: Owner) -> None:
    grants = owner.press(AUTO, STUDIO, AUTO)
    assert [each.industry for each in grants] == [AUTO, STUDIO]
    assert len({each.grant_id for each in grants}) == 2
    with owner.records.transaction() as connection:
        assert ledger.live_grants(connection) == grants
        assert ledger.live_grant(connection, owner.account_id, AUTO) == grants[0]
        assert ledger.live_grant(connection, owner.account_id, Industry.PIPELINE) is None


def test_the_event_keeps_who_what_when_and_the_exact_text(owner: Owner) -> None:
    owner.press(AUTO, at=later(1))
    with owner.records.transaction() as connection:
        (event,) = ledger.read_events(connection)
    assert (event.act, event.actor, event.method) == (Act.GRANTED, owner.person_id, Method.BUTTON)
    assert (event.notice_version, event.notice_sha256) == (CURRENT.version, CURRENT.sha256)
    assert (event.received_at, event.page) == (later(1), "/account/ai-training-data")


def test_pressing_again_changes_nothing(owner: Owner) -> None:
    assert owner.press(AUTO)
    assert owner.press(AUTO, at=later(1)) == []
    with owner.records.transaction() as connection:
        assert len(ledger.read_events(connection)) == 1


def test_opting_in_again_makes_a_new_grant(owner: Owner) -> None:
    (first,) = owner.press(AUTO)
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    (second,) = owner.press(AUTO, at=later(2))
    assert second.grant_id != first.grant_id
    with owner.records.transaction() as connection:
        assert ledger.live_grants(connection) == [second]
        found = ledger.find_grant(connection, first.grant_id)
    assert found is not None
    assert found.withdrawn_at == later(1)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"notice_version": "2025-01-01"}, StaleNotice),
        ({"notice_sha256": "0" * 64}, StaleNotice),
        ({"form_token": "another"}, NotAllowed),
        ({"form_token": "ä"}, NotAllowed),
        ({"session_token": "nobody's"}, NotAllowed),
        ({"session_token": ""}, NotAllowed),
    ],
)
def test_any_doubt_about_the_act_grants_nothing(owner: Owner, changed: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        owner.press(AUTO, **changed)
    _nothing_stands(owner)


def test_ticking_nothing_grants_nothing(owner: Owner) -> None:
    with pytest.raises(UserError):
        owner.press()
    _nothing_stands(owner)


def test_an_expired_or_closed_session_grants_nothing(owner: Owner) -> None:
    with pytest.raises(NotAllowed):
        owner.press(AUTO, at=NOON + SESSION_LIFE)
    with owner.records.transaction() as connection:
        close_session(connection, owner.act.session_token)
    with pytest.raises(NotAllowed):
        owner.press(AUTO)
    _nothing_stands(owner)


def test_a_yes_that_comes_while_the_account_is_being_closed_grants_nothing(owner: Owner) -> None:
    told: list[BgbatchError] = []

    def say_yes() -> None:
        try:
            owner.press(AUTO, at=later(1))
        except BgbatchError as fault:
            told.append(fault)

    with owner.records.transaction() as connection:
        ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
        other = threading.Thread(target=say_yes)
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive(), "the yes must wait"
        erase_account(connection, owner.account_id, later(1))
    other.join(timeout=60)
    assert [type(each) for each in told] == [NotAllowed]
    _nothing_stands(owner)


def test_a_session_that_outlived_its_account_grants_nothing(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        connection.execute(update(accounts).values(closed_at=NOON))
    with pytest.raises(NotFound):
        owner.press(AUTO)
    _nothing_stands(owner)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_only_an_owner_grants(owner: Owner, role: Role) -> None:
    with owner.records.transaction() as connection:
        person = add_person(connection, owner.account_id, "m@example.com", role, NOON, Random(5).randbytes)
        token = open_session(connection, person, NOON, Random(6).randbytes)
        session = find_session(connection, token, NOON)
    assert session is not None
    with pytest.raises(NotAllowed):
        owner.press(AUTO, session_token=token, form_token=session.form_token)
    _nothing_stands(owner)


def test_a_yes_that_comes_once_more_from_an_old_page_takes_no_later_no_back(owner: Owner) -> None:
    owner.press(AUTO, newest_event=GENESIS)
    assert owner.press(AUTO, newest_event=GENESIS) == [], "pressed twice, it is on"
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    with pytest.raises(StaleNotice):
        owner.press(AUTO, at=later(2), newest_event=GENESIS)
    with owner.records.transaction() as connection:
        assert ledger.live_grants(connection) == []
    assert owner.press(AUTO, at=later(3)), "looked at again, it is a yes"


def test_what_others_decide_makes_no_page_old(owner: Owner, other: Owner) -> None:
    other.press(AUTO)
    assert owner.press(AUTO, newest_event=GENESIS)


def test_a_yes_to_a_new_text_replaces_a_grant_on_an_outdated_one(owner: Owner) -> None:
    (old,) = owner.press(AUTO)
    with owner.records.transaction() as connection:
        shown = {"industries": (AUTO,), "newest_event": ledger.newest_event(connection, owner.account_id)}
        act = Press(**{**owner.act.__dict__, **shown, "received_at": later(10)})
        (new,) = press(connection, act, later(10), Random(9).randbytes, reconsent_from=NOON + timedelta(minutes=5))
        assert ledger.live_grants(connection) == [new]
        assert new.grant_id != old.grant_id
        assert ledger.verify(connection) == 3


def _nothing_stands(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        assert ledger.read_events(connection) == []
