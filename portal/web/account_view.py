"""What the account page says, as a value: for each industry its state and dates, and the history of acts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from consent.grants import Grants, grants_of
from consent.ledger import read_events
from consent.notice import RECONSENT_FROM
from schemas.consent import ConsentEvent, ConsentState, Grant
from schemas.errors import LedgerBroken
from schemas.industries import Industry
from store.people import Account, Person, Role, find_account


@dataclass(frozen=True)
class IndustryView:
    """One industry. `grant`: the live one, or the last one that ended. `must_confirm`: given on an outdated text."""

    industry: Industry
    state: ConsentState
    grant: Grant | None
    must_confirm: bool

    @property
    def is_on(self) -> bool:
        """Whether a grant is live."""
        return self.state is ConsentState.GRANTED


@dataclass(frozen=True)
class AccountView:
    """The page. `history` is newest first."""

    account: Account
    person: Person
    industries: tuple[IndustryView, ...]
    history: tuple[ConsentEvent, ...]
    now: datetime

    @property
    def on(self) -> tuple[IndustryView, ...]:
        """Industries with a live grant."""
        return tuple(each for each in self.industries if each.is_on)

    @property
    def off(self) -> tuple[IndustryView, ...]:
        """Industries without one."""
        return tuple(each for each in self.industries if not each.is_on)

    @property
    def may_consent(self) -> bool:
        """Whether this person may turn things on and off."""
        return self.person.role is Role.OWNER


def view_account(connection: Connection, person: Person, now: datetime) -> AccountView:
    """Read what the page says of the person's own account. A ledger that does not replay shows nothing as on."""
    events = read_events(connection, person.account_id)
    try:
        grants = grants_of(events)
    except LedgerBroken:
        grants = Grants()
    return AccountView(
        account=find_account(connection, person.account_id),
        person=person,
        industries=tuple(_industry(grants, person, industry) for industry in Industry),
        history=tuple(reversed(events)),
        now=now,
    )


def _industry(grants: Grants, person: Person, industry: Industry) -> IndustryView:
    given = [each for each in grants.by_id.values() if each.industry is industry]
    newest = given[-1] if given else None
    outdated = newest is not None and RECONSENT_FROM is not None and newest.granted_at < RECONSENT_FROM
    state = grants.state(person.account_id, industry)
    return IndustryView(industry, state, newest, outdated and state is ConsentState.GRANTED)
