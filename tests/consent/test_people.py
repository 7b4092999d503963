"""Accounts and how people come in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import delete, event, select

from schemas.errors import AlreadyExists, NotAllowed, NotFound, UserError
from store.records import people, sessions, tables
from store.records.database import Records
from store.records.people import Role
from store.records.tables import accounts, sign_in_links
from tests.consent.conftest import NOON, Owner, later

RANDOM = Random(7).randbytes


def test_an_account_is_found_by_name_and_by_id(records: Records) -> None:
    with records.transaction() as connection:
        account_id, person_id = people.create_account(connection, " Acme Motors ", "a@b.example", NOON, RANDOM)
        for key in ("Acme Motors", account_id):
            assert people.find_account(connection, key).account_id == account_id
        owner = people.owner_of(connection, account_id)
        assert (owner.person_id, owner.role) == (person_id, Role.OWNER)
        with pytest.raises(NotFound):
            people.find_account(connection, "Bazaar")


def test_a_taken_name_leaves_the_transaction_usable(records: Records) -> None:
    with records.transaction() as connection:
        people.create_account(connection, "Acme", "a@b.example", NOON, RANDOM)
        with pytest.raises(AlreadyExists):
            people.create_account(connection, "Acme", "c@d.example", NOON, RANDOM)
        people.create_account(connection, "Bazaar", "a@b.example", NOON, RANDOM)
    with records.transaction() as connection:
        assert [each.name for each in people.list_accounts(connection)] == ["Acme", "Bazaar"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "two\nlines", "a" + "0" * 32])
def test_names_that_cannot_be(records: Records, name: str) -> None:
    with records.transaction() as connection, pytest.raises(UserError):
        people.create_account(connection, name, "a@b.example", NOON, RANDOM)


@pytest.mark.parametrize(
    "email",
    [
        *("", "nobody", "a b@c.example", "@", "x" * 311 + "@c.example", "a\0@c.example", "a\u202eb@c.example"),
        *("a,b@c.example", "a;b@c.example", "<a@c.example>", '"a"@c.example', "a@[127.0.0.1]", "a(b)@c.example"),
    ],
)
def test_addresses_that_cannot_be(records: Records, email: str) -> None:
    with pytest.raises(UserError), records.transaction() as connection:
        people.create_account(connection, "Acme", email, NOON, RANDOM)
    with records.transaction() as connection:
        assert connection.execute(select(accounts)).all() == []


def test_a_name_and_an_address_may_be_as_long_as_the_columns_hold(records: Records) -> None:
    name, email = "x" * 200, "x" * 310 + "@c.example"
    with records.transaction() as connection:
        account_id, _ = people.create_account(connection, name, email, NOON, RANDOM)
        assert (people.find_account(connection, name).name, people.owner_of(connection, account_id).email) == (
            name,
            email,
        )


def test_one_of_eight_racers_uses_a_link_up(owner: Owner) -> None:
    records = owner.records
    with records.transaction() as connection:
        token = sessions.create_sign_in_link(connection, owner.person_id, NOON, RANDOM)

    def race(number: int) -> bool:
        try:
            with records.transaction() as connection:
                sessions.redeem_sign_in_link(connection, token, NOON, Random(number).randbytes)
        except NotAllowed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1


def test_what_expired_is_worth_nothing_and_is_deleted(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        token = sessions.create_sign_in_link(connection, owner.person_id, NOON, RANDOM)
        end = later(60)
        assert sessions.person_of_link(connection, token, end - timedelta(microseconds=1))
        assert not sessions.person_of_link(connection, token, end)
        with pytest.raises(NotAllowed):
            sessions.redeem_sign_in_link(connection, token, end, RANDOM)
        assert sessions.find_session(connection, owner.act.session_token, later(60 * 12 - 1)) is not None
        assert sessions.find_session(connection, owner.act.session_token, later(60 * 12)) is None
        assert sessions.delete_expired(connection, later(60 * 12)) == 2
        assert (
            connection.execute(select(sign_in_links)).all() == connection.execute(select(tables.sessions)).all() == []
        )


def test_tokens_are_kept_as_hashes_only(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        link = sessions.create_sign_in_link(connection, owner.person_id, NOON, RANDOM)
        kept = str(connection.execute(select(sign_in_links)).all()) + str(
            connection.execute(select(tables.sessions)).all()
        )
    assert link not in kept
    assert owner.act.session_token not in kept


def add_ann(records: Records, owner: Owner, role: Role) -> tuple[str, str]:
    """A second person; returns the tokens of a session and of a link."""
    with records.transaction() as connection:
        ann = people.add_person(connection, owner.account_id, "ann@example.com", role, NOON, RANDOM)
        people.set_identity(connection, ann, "https://provider.example", "ann-1")
        return sessions.open_session(connection, ann, NOON, RANDOM), sessions.create_sign_in_link(
            connection, ann, NOON, RANDOM
        )


def test_who_is_taken_out_comes_in_no_more_and_leaves_only_a_random_id(records: Records, owner: Owner) -> None:
    session, link = add_ann(records, owner, Role.OWNER)
    with records.transaction() as connection:
        gone = people.remove_person(connection, owner.account_id, "Ann@example.com")
        for table in (tables.sessions, sign_in_links):
            assert connection.execute(select(table).where(table.c.person_id == gone.person_id)).all() == []
    with records.transaction() as connection:
        assert sessions.find_session(connection, session, NOON) is None
        assert not sessions.person_of_link(connection, link, NOON)
        assert people.person_of_identity(connection, "https://provider.example", "ann-1") is None
        assert people.people_with_address(connection, "ann@example.com") == []
        assert [each.person_id for each in people.people_of(connection, owner.account_id)] == [owner.person_id]
        row = connection.execute(select(tables.people).where(tables.people.c.person_id == gone.person_id)).one()
        assert row.email == gone.person_id
        late = sessions.open_session(connection, gone.person_id, NOON, RANDOM)
        assert sessions.find_session(connection, late, NOON) is None, "signed in at the same moment"
        sent = sessions.create_sign_in_link(connection, gone.person_id, NOON, RANDOM)
        assert sessions.person_of_link(connection, sent, NOON) is None
        assert sessions.find_session(connection, owner.act.session_token, NOON), "the others stay signed in"
        again = people.add_person(connection, owner.account_id, "ann@example.com", Role.MEMBER, NOON, RANDOM)
        assert again != gone.person_id


def test_a_changed_role_counts_at_once_and_ends_what_was_signed_in(records: Records, owner: Owner) -> None:
    session, link = add_ann(records, owner, Role.OWNER)
    with records.transaction() as connection:
        assert people.set_role(connection, owner.account_id, "ann@example.com", Role.AUDITOR).role is Role.OWNER
    with records.transaction() as connection:
        assert people.person_of(connection, owner.account_id, "ann@example.com").role is Role.AUDITOR
        assert people.person_of(connection, owner.account_id, "owner@example.com").role is Role.OWNER
        assert sessions.find_session(connection, session, NOON) is None
        assert not sessions.person_of_link(connection, link, NOON)


def test_one_address_is_one_person_of_an_account_however_it_is_written(records: Records, owner: Owner) -> None:
    """Else one who was taken out would still be in, under the same address."""
    add_ann(records, owner, Role.OWNER)
    with records.transaction() as connection:
        with pytest.raises(AlreadyExists):
            people.add_person(connection, owner.account_id, "Ann@Example.com", Role.OWNER, NOON, RANDOM)
        people.add_person(connection, owner.account_id, "Bob@Example.com", Role.OWNER, NOON, RANDOM)
        assert people.person_of(connection, owner.account_id, "bob@example.com").email == "Bob@Example.com"
        people.remove_person(connection, owner.account_id, "ANN@example.com")
        assert people.people_with_address(connection, "ann@example.com") == []


def test_an_address_that_only_looks_alike_names_nobody(records: Records, owner: Owner) -> None:
    with records.transaction() as connection:
        people.add_person(connection, owner.account_id, "ann@strasse.example", Role.MEMBER, NOON, RANDOM)
        assert people.person_of(connection, owner.account_id, "Ann@Strasse.example").role is Role.MEMBER
        with pytest.raises(NotFound):
            people.person_of(connection, owner.account_id, "ann@straße.example")


def test_another_id_or_the_same_at_another_provider_is_somebody_else(records: Records, owner: Owner) -> None:
    add_ann(records, owner, Role.OWNER)
    with records.transaction() as connection:
        assert people.person_of_identity(connection, "https://provider.example", "ann-1") is not None
        assert people.person_of_identity(connection, "https://other.example", "ann-1") is None
        assert people.person_of_identity(connection, "https://provider.example", "ann-2") is None


def test_the_only_owner_can_be_neither_demoted_nor_taken_out(records: Records, owner: Owner) -> None:
    add_ann(records, owner, Role.MEMBER)
    with records.transaction() as connection:
        with pytest.raises(NotAllowed):
            people.remove_person(connection, owner.account_id, "owner@example.com")
        with pytest.raises(NotAllowed):
            people.set_role(connection, owner.account_id, "owner@example.com", Role.MEMBER)
        with pytest.raises(NotFound):
            people.remove_person(connection, owner.account_id, "nobody@example.com")
        people.set_role(connection, owner.account_id, "owner@example.com", Role.OWNER)
        people.set_role(connection, owner.account_id, "ann@example.com", Role.OWNER)
        people.set_role(connection, owner.account_id, "owner@example.com", Role.MEMBER)
        assert people.owner_of(connection, owner.account_id).email == "ann@example.com"
        people.remove_person(connection, owner.account_id, "owner@example.com")
        with pytest.raises(NotAllowed):
            people.remove_person(connection, owner.account_id, "ann@example.com")


def test_of_two_owners_who_take_each_other_out_at_once_one_stays(records: Records, owner: Owner) -> None:
    add_ann(records, owner, Role.OWNER)

    def take_out(email: str) -> None:
        with records.transaction() as connection:
            people.remove_person(connection, owner.account_id, email)

    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            people.remove_person(connection, owner.account_id, "owner@example.com")
            other = pool.submit(take_out, "ann@example.com")
            assert wait([other], timeout=0.5).not_done, "it waits for the first"
        with pytest.raises(NotAllowed):
            other.result(30)


@pytest.mark.parametrize("stays", [False, True])
def test_an_owner_who_is_owner_no_more_adds_nobody_meanwhile(records: Records, owner: Owner, stays: bool) -> None:
    add_ann(records, owner, Role.OWNER)
    with records.reading() as connection:
        ann = people.person_of(connection, owner.account_id, "ann@example.com")

    def add() -> None:
        with records.transaction() as connection:
            people.require_owner(connection, ann)
            people.add_person(connection, owner.account_id, "eve@example.com", Role.OWNER, NOON, RANDOM, ann.person_id)

    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            if stays:
                people.set_role(connection, owner.account_id, "ann@example.com", Role.MEMBER)
            else:
                people.remove_person(connection, owner.account_id, "ann@example.com")
            other = pool.submit(add)
            assert wait([other], timeout=0.5).not_done, "it waits for the first"
        with pytest.raises(NotAllowed):
            other.result(30)
    with records.transaction() as connection:
        emails = {each.email for each in people.people_of(connection, owner.account_id)}
        assert emails == {"owner@example.com"} | ({"ann@example.com"} if stays else set())


def test_who_is_taken_out_in_the_middle_of_signing_in_is_out_and_nobody_waits_for_ever(
    records: Records, owner: Owner
) -> None:
    _, link = add_ann(records, owner, Role.MEMBER)

    def take_out() -> None:
        with records.transaction() as connection:
            people.remove_person(connection, owner.account_id, "ann@example.com")

    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            ann = sessions.person_of_link(connection, link, NOON)
            assert ann is not None
            connection.execute(delete(sign_in_links).where(sign_in_links.c.person_id == ann.person_id))  # used up
            other = pool.submit(take_out)
            assert wait([other], timeout=0.5).not_done, "it waits for the first"
            session = sessions.open_session(connection, ann.person_id, NOON, RANDOM)
        other.result(30)
    with records.transaction() as connection:
        assert sessions.find_session(connection, session, NOON) is None
        of_ann = tables.sessions.c.person_id == ann.person_id
        assert connection.execute(select(tables.sessions).where(of_ann)).all() == []


def test_who_comes_in_by_a_provider_and_is_taken_out_at_once_does_not_wait_in_a_circle(
    records: Records, owner: Owner
) -> None:
    """What had expired of theirs is deleted by both."""
    _, link = add_ann(records, owner, Role.MEMBER)
    with records.transaction() as connection:
        sessions.redeem_sign_in_link(connection, link, NOON, RANDOM)
    end, takers = later(60 * 12), []

    def take_out() -> None:
        with records.transaction() as connection:
            people.remove_person(connection, owner.account_id, "ann@example.com")

    with ThreadPoolExecutor(1) as pool:

        def stand_still(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if not takers and "sign_in_links" not in statement:
                takers.append(pool.submit(take_out))
                wait(takers, timeout=0.5)

        with records.transaction() as connection:
            ann = people.person_of_identity(connection, "https://provider.example", "ann-1")
            assert ann is not None
            event.listen(connection, "after_cursor_execute", stand_still)
            session = sessions.open_session(connection, ann.person_id, end, RANDOM)
        takers[0].result(30)
    with records.transaction() as connection:
        assert sessions.find_session(connection, session, end) is None


def test_of_two_accounts_that_somebody_chooses_at_once_they_are_known_in_one(
    records: Records, owner: Owner, other: Owner
) -> None:
    who = ("https://provider.example", "ann-1")
    with records.transaction() as connection:
        links = [
            sessions.create_sign_in_link(
                connection,
                people.add_person(connection, account, "ann@example.com", Role.MEMBER, NOON, RANDOM),
                NOON,
                RANDOM,
                who,
            )
            for account in (owner.account_id, other.account_id)
        ]

    def choose_the_other() -> None:
        with records.transaction() as connection:
            sessions.redeem_sign_in_link(connection, links[1], NOON, RANDOM)

    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            sessions.redeem_sign_in_link(connection, links[0], NOON, RANDOM)
            late = pool.submit(choose_the_other)
            assert wait([late], timeout=0.5).not_done, "it waits for the first"
        with pytest.raises(NotAllowed, match="to another account"):
            late.result(30)
    with records.reading() as connection:
        known = people.person_of_identity(connection, *who)
        assert known is not None
        assert known.account_id == owner.account_id


def test_somebody_is_found_by_id_in_their_own_account_until_they_are_taken_out(
    records: Records, owner: Owner, other: Owner
) -> None:
    add_ann(records, owner, Role.MEMBER)
    with records.transaction() as connection:
        ann = people.person_of(connection, owner.account_id, "ann@example.com")
        assert people.find_person(connection, owner.account_id, ann.person_id) == ann
        with pytest.raises(NotFound):
            people.find_person(connection, other.account_id, ann.person_id)
        people.remove_person(connection, owner.account_id, "ann@example.com")
        with pytest.raises(NotFound):
            people.find_person(connection, owner.account_id, ann.person_id)


def test_it_is_known_when_somebody_came_in_last_and_who_added_them_even_when_they_are_gone(
    records: Records, owner: Owner
) -> None:
    with records.transaction() as connection:
        ann = people.add_person(
            connection, owner.account_id, "ann@example.com", Role.MEMBER, NOON, RANDOM, owner.person_id
        )
        assert people.find_person(connection, owner.account_id, ann).signed_in_at is None
        link = sessions.create_sign_in_link(connection, ann, NOON, RANDOM)
        sessions.redeem_sign_in_link(connection, link, later(7), RANDOM)
        found = people.find_person(connection, owner.account_id, ann)
        assert (found.added_by, found.signed_in_at) == (owner.person_id, later(7))
        people.remove_person(connection, owner.account_id, "ann@example.com")
        row = connection.execute(select(tables.people).where(tables.people.c.person_id == ann)).one()
        assert (row.added_by, row.signed_in_at) == (owner.person_id, None)


def test_an_account_has_so_many_people_and_no_more(records: Records, owner: Owner) -> None:
    with records.transaction() as connection:
        for number in range(1, people.MOST_PEOPLE):
            people.add_person(connection, owner.account_id, f"{number}@x.example", Role.MEMBER, NOON, RANDOM)
        with pytest.raises(UserError, match="200 people"):
            people.add_person(connection, owner.account_id, "one-more@x.example", Role.MEMBER, NOON, RANDOM)
        people.remove_person(connection, owner.account_id, "1@x.example")
        people.add_person(connection, owner.account_id, "one-more@x.example", Role.MEMBER, NOON, RANDOM)


def test_who_signs_out_signs_out_nobody_else(records: Records, owner: Owner) -> None:
    session, _ = add_ann(records, owner, Role.MEMBER)
    with records.transaction() as connection:
        sessions.close_session(connection, session)
        assert sessions.find_session(connection, session, NOON) is None
        assert sessions.find_session(connection, owner.act.session_token, NOON) is not None


def test_people_stand_in_the_order_in_which_they_came(records: Records, owner: Owner) -> None:
    with records.transaction() as connection:
        for minute in (3, 1, 2):
            at = later(minute)
            people.add_person(connection, owner.account_id, f"{minute}@example.com", Role.OWNER, at, RANDOM)
        emails = [each.email for each in people.people_of(connection, owner.account_id)]
        assert emails == ["owner@example.com", "1@example.com", "2@example.com", "3@example.com"]
        assert people.owner_of(connection, owner.account_id).person_id == owner.person_id
