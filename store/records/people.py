"""Accounts, and the people in them."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from schemas.errors import AlreadyExists, NotAllowed, NotFound, UserError
from schemas.ids import AccountId, PersonId, Randomness, new_account_id, new_person_id
from schemas.record import Moment, Record
from store.records.tables import accounts, people, sessions, sign_in_links

_ACCOUNT_ID = re.compile(r"a[0-9a-f]{32}")
_PART = r"[^@\s,;:<>()\[\]\\\"]+"
_EMAIL = re.compile(f"{_PART}@{_PART}")
"""Without what means something in a letter's head: there, `a,b@example.com` would be two addresses."""
_ELSEWHERE = "Through the provider you come to another account. For this one, use a one-time link."
_LONGEST_NAME, _LONGEST_EMAIL = 200, 320  # what the columns hold
MOST_PEOPLE = 200
"""People that an account may have."""
IS_IN = people.c.email != people.c.person_id
"""Of somebody who was taken out, or whose account was closed, the id stands where the address was."""


class Role(StrEnum):
    """What a person may do: an owner consents and manages, a member submits, an auditor reads."""

    OWNER = "owner"
    MEMBER = "member"
    AUDITOR = "auditor"

    @property
    def manages(self) -> bool:
        """Whether they may consent, and change the account itself."""
        return self is Role.OWNER

    @property
    def submits(self) -> bool:
        """Whether they may send batches, and change what is under way."""
        return self is not Role.AUDITOR


class Account(Record):
    """A customer. A closed one keeps nothing but its random id."""

    account_id: AccountId
    name: str
    created_at: Moment
    closed_at: Moment | None


class Person(Record):
    """Somebody who can sign in to one account. `added_by`: the owner who added them; None if an operator did."""

    person_id: PersonId
    account_id: AccountId
    email: str
    role: Role
    created_at: Moment
    added_by: PersonId | None
    signed_in_at: Moment | None


def create_account(
    connection: Connection, name: str, email: str, now: datetime, randomness: Randomness
) -> tuple[AccountId, PersonId]:
    """A new account with its owner. Raises `AlreadyExists` for a taken name, `UserError` for one that cannot be."""
    name = name.strip()
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or _ACCOUNT_ID.fullmatch(name):
        raise UserError(f"An account's name has 1 to {_LONGEST_NAME} printable characters and is no account id.")
    account_id = new_account_id(randomness)
    try:
        with connection.begin_nested():
            connection.execute(insert(accounts).values(account_id=account_id, name=name, created_at=now))
    except IntegrityError:
        raise AlreadyExists("An account of that name exists. Choose another name.") from None
    return account_id, add_person(connection, account_id, email, Role.OWNER, now, randomness)


def add_person(
    connection: Connection,
    account_id: AccountId,
    email: str,
    role: Role,
    now: datetime,
    randomness: Randomness,
    added_by: PersonId | None = None,
) -> PersonId:
    """One more person in an account. Raises `AlreadyExists`, `UserError`, `NotFound` for a closed account."""
    email = email.strip()
    if len(email) > _LONGEST_EMAIL or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise UserError("That is no e-mail address. Give one like name@example.com.")
    require_open(connection, account_id, alone=True)
    own = people_of(connection, account_id)
    if any(_is_same(each.email, email) for each in own):
        raise AlreadyExists("The account has a person with that address.")
    if len(own) >= MOST_PEOPLE:
        raise UserError(f"An account may have {MOST_PEOPLE} people. Take somebody out first.")
    person_id = new_person_id(randomness)
    row = {"person_id": person_id, "account_id": account_id, "email": email, "role": role, "created_at": now}
    connection.execute(insert(people).values(**row, added_by=added_by))
    return person_id


def find_account(connection: Connection, name_or_id: str) -> Account:
    """The open account of that name or id. Raises `NotFound`."""
    account = find_account_or_closed(connection, name_or_id)
    if account.closed_at is not None:
        raise NotFound(f"Account {account.account_id} was closed. Nothing can be done in it any more.")
    return account


def require_open(connection: Connection, account_id: AccountId, *, alone: bool = False) -> None:
    """Until this transaction ends, the account is open: a closing waits for it. Raises `NotFound`.

    `alone`: so does everybody else who asks; for what there may be once, or so many times, in an account.
    """
    query = select(accounts.c.account_id).where(accounts.c.account_id == account_id, accounts.c.closed_at.is_(None))
    if connection.execute(query.with_for_update(read=not alone, key_share=alone)).first() is None:
        raise NotFound("There is no such account, or it was closed.")


def find_account_or_closed(connection: Connection, name_or_id: str) -> Account:
    """The account of that name or id, be it closed; a closed one has no name. Raises `NotFound`."""
    query = select(accounts).where(or_(accounts.c.account_id == name_or_id, accounts.c.name == name_or_id.strip()))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(
            "There is no account of that name or id. "
            "`bgbatch account list` shows those that there are, `bgbatch account create` makes one."
        )
    return _account(row)


def list_accounts(connection: Connection) -> list[Account]:
    """All accounts, by name."""
    rows = connection.execute(select(accounts).order_by(accounts.c.name)).mappings()
    return [_account(row) for row in rows]


def people_of(connection: Connection, account_id: AccountId) -> list[Person]:
    """Everybody in an account, the first to come first; not who was taken out of it."""
    own = select(people).where(people.c.account_id == account_id, IS_IN)
    query = own.order_by(people.c.created_at, people.c.person_id)
    return [person_in(row) for row in connection.execute(query).mappings()]


def owner_of(connection: Connection, account_id: AccountId) -> Person:
    """The first owner of an account. Raises `NotFound`."""
    for person in people_of(connection, account_id):
        if person.role is Role.OWNER:
            return person
    raise NotFound("The account has no owner.")


def person_of(connection: Connection, account_id: AccountId, email: str) -> Person:
    """The person of that address in an account. Raises `NotFound`."""
    for person in people_of(connection, account_id):
        if _is_same(person.email, email):
            return person
    raise NotFound("Nobody in the account has that address.")


def find_person(connection: Connection, account_id: AccountId, person_id: str) -> Person:
    """The person of that id in an account. Raises `NotFound`."""
    for person in people_of(connection, account_id):
        if person.person_id == person_id:
            return person
    raise NotFound("There is nobody of that id in your account.")


def require_owner(connection: Connection, person: Person) -> None:
    """Until this transaction ends, this person is an owner: whoever takes them out waits. Raises `NotAllowed`."""
    require_open(connection, person.account_id, alone=True)
    own = people_of(connection, person.account_id)
    if not any(each.person_id == person.person_id and each.role is Role.OWNER for each in own):
        raise NotAllowed("Only an owner of the account can change this.")


def set_role(connection: Connection, account_id: AccountId, email: str, role: Role) -> Person:
    """Let somebody be another thing in the account; they sign in anew. Returns who it is, as they were.

    Raises `NotFound`; `NotAllowed` when nobody would be left who is an owner.
    """
    person = _who_may_leave(connection, account_id, email, role)
    _change(connection, person.person_id, role=role)
    return person


def remove_person(connection: Connection, account_id: AccountId, email: str) -> Person:
    """Take somebody out: they cannot come in any more, and their address is gone. Returns who it was.

    Their random id stays: the ledger and the keys that they made name it. Raises as `set_role` does.
    """
    person = _who_may_leave(connection, account_id, email, None)
    gone = {"email": person.person_id, "oidc_issuer": None, "oidc_subject": None, "signed_in_at": None}
    _change(connection, person.person_id, **gone)
    return person


def _who_may_leave(connection: Connection, account_id: AccountId, email: str, role: Role | None) -> Person:
    """Who has that address, if an owner is left once they have this role, or none."""
    require_open(connection, account_id, alone=True)  # two owners who go at once would each see the other
    person = person_of(connection, account_id, email)
    owners = [each for each in people_of(connection, account_id) if each.role is Role.OWNER]
    if owners == [person] and role is not Role.OWNER:
        raise NotAllowed("That is the account's only owner. Make somebody else an owner first, or close the account.")
    return person


def _change(connection: Connection, person_id: PersonId, **values: object) -> None:
    """Change somebody, and sign them out everywhere."""
    # In the order in which whoever uses a link comes by: else the two would wait for each other in a circle.
    connection.execute(delete(sign_in_links).where(sign_in_links.c.person_id == person_id))
    connection.execute(update(people).where(people.c.person_id == person_id).values(**values))
    connection.execute(delete(sessions).where(sessions.c.person_id == person_id))


def people_with_address(connection: Connection, email: str) -> list[Person]:
    """Everybody with that address, in whatever account. Case does not count: see `_is_same`."""
    if not email.strip().isprintable():  # nobody's: see `add_person`. PostgreSQL would not look for one with NUL in it
        return []
    alike = select(people).where(func.lower(people.c.email) == func.lower(email.strip()))
    query = alike.order_by(people.c.created_at, people.c.person_id)
    found = [person_in(row) for row in connection.execute(query).mappings()]
    return [person for person in found if _is_same(person.email, email)]


def person_of_identity(connection: Connection, issuer: str, subject: str) -> Person | None:
    """Who this is at an identity provider, if they came in through it before."""
    query = select(people).where(people.c.oidc_issuer == issuer, people.c.oidc_subject == subject)
    row = connection.execute(query).mappings().first()
    return None if row is None else person_in(row)


def set_identity(connection: Connection, person_id: PersonId, issuer: str, subject: str) -> None:
    """Remember who this person is at an identity provider. Whoever is known already is not replaced: `NotAllowed`."""
    known = person_of_identity(connection, issuer, subject)
    if known is not None and known.person_id != person_id:
        raise NotAllowed(_ELSEWHERE)
    unknown = update(people).where(people.c.person_id == person_id, people.c.oidc_subject.is_(None), IS_IN)
    try:
        with connection.begin_nested():
            is_set = connection.execute(unknown.values(oidc_issuer=issuer, oidc_subject=subject)).rowcount == 1
    except IntegrityError:  # two accounts were chosen at once
        raise NotAllowed(_ELSEWHERE) from None
    if not is_set and known is None:
        raise NotAllowed("This address belongs to somebody else at the identity provider. Ask the account's owner.")


def _account(row: RowMapping) -> Account:
    return Account.model_validate({name: row[name] for name in Account.model_fields})


def person_in(row: RowMapping) -> Person:
    """The person of a row that has all columns of `people`."""
    return Person.model_validate({name: row[name] for name in Person.model_fields})


def _is_same(one: str, other: str) -> bool:
    """Whether two addresses differ at most in the case of ASCII letters.

    Of other letters it counts: `ß` would become `ss`, and with an IDN domain of their own somebody would be another.
    """
    return one.strip().encode().lower() == other.strip().encode().lower()
