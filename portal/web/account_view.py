"""What the account page says, as a value: for each industry its state, its grants and what they gave; the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from sqlalchemy import Connection

from consent.grants import Grants
from consent.ledger import newest_event, read_events, read_grants
from consent.notice import RECONSENT_FROM
from portal.web.contributions import Contribution, contributions
from schemas.consent import Act, ConsentEvent, ConsentState, Method
from schemas.errors import LedgerBroken
from schemas.ids import PersonId
from schemas.industries import Industry
from store.records.early_purge import PurgeWish, find_wish
from store.records.people import Person, people_of


@dataclass(frozen=True)
class IndustryView:
    """One industry. `given`: its grants, newest first. `must_confirm`: the live one was given on an outdated text."""

    industry: Industry
    state: ConsentState
    given: tuple[Contribution, ...]
    must_confirm: bool

    @property
    def is_on(self) -> bool:
        """Whether a grant is live."""
        return self.state is ConsentState.GRANTED

    @property
    def live(self) -> Contribution | None:
        """What was given under the live grant."""
        return self.given[0] if self.is_on else None

    @property
    def ended(self) -> tuple[Contribution, ...]:
        """What was given under grants that were withdrawn."""
        return self.given[1:] if self.is_on else self.given


@dataclass(frozen=True)
class HistoryStep:
    """What was done with one press (or one command): the same act for one or several industries.

    `who`: the address of who pressed; empty for a program or an operator, and for who is in the account no more.
    """

    act: Act
    at: datetime
    method: Method
    reason: str
    who: str
    industries: tuple[Industry, ...]

    @property
    def what(self) -> str:
        """For which industries, in words."""
        if len(self.industries) == len(Industry):
            return "every industry"
        return ", ".join(industry.label for industry in self.industries)

    @property
    def how(self) -> str:
        """How it came in, in words."""
        how = _HOW[self.method]
        if self.method is Method.BUTTON:
            how += f" by {self.who or 'somebody who has left the account'}"
        return how + (f": {self.reason}" if self.reason else "")


_HOW = {
    Method.BUTTON: "on this page",
    Method.COMMAND_LINE: "by an operator",
    Method.API: "by a program",
    Method.OPERATOR: "by an operator",
}


@dataclass(frozen=True)
class AccountView:
    """The page. `history` is newest first, `newest_event` the hash of its first; `wish`: how soon batches are to go.

    `is_damaged`: the ledger does not verify, so nothing is on.
    """

    industries: tuple[IndustryView, ...]
    history: tuple[HistoryStep, ...]
    newest_event: str
    wish: PurgeWish
    now: datetime
    is_damaged: bool

    @property
    def on(self) -> tuple[IndustryView, ...]:
        """Industries with a live grant."""
        return tuple(each for each in self.industries if each.is_on)

    @property
    def withdrawn(self) -> tuple[Contribution, ...]:
        """Withdrawn grants of all industries, the last to end first."""
        ended = [given for each in self.industries for given in each.ended]
        return tuple(sorted(ended, key=lambda given: given.grant.withdrawn_at or self.now, reverse=True))

    @property
    def was_taken(self) -> bool:
        """Whether somebody took images for training that were taken back later."""
        return any(given.copies for given in self.withdrawn)


def view_account(connection: Connection, person: Person, now: datetime) -> AccountView:
    """Read what the page says of the person's own account. A ledger that does not verify shows nothing as on."""
    events: list[ConsentEvent] = []
    grants, is_damaged = Grants(), False
    try:
        events = read_events(connection, person.account_id)
        grants = read_grants(connection, person.account_id)
    except LedgerBroken:
        is_damaged = True
    given = contributions(connection, grants.by_id.values())
    return AccountView(
        industries=tuple(_industry(grants, list(given.values()), person, each) for each in Industry),
        history=_steps(events, {each.person_id: each.email for each in people_of(connection, person.account_id)}),
        newest_event=newest_event(connection, person.account_id),
        wish=find_wish(connection, person.account_id),
        now=now,
        is_damaged=is_damaged,
    )


def _steps(events: Sequence[ConsentEvent], addresses: Mapping[PersonId, str]) -> tuple[HistoryStep, ...]:
    """Newest first; what came in together stands together."""
    together = groupby(events, key=lambda each: (each.act, each.received_at, each.method, each.reason, each.actor))
    steps = []
    for (act, at, method, reason, actor), group in together:
        who = "" if actor is None else addresses.get(actor, "")
        steps.append(HistoryStep(act, at, method, reason, who, tuple(event.industry for event in group)))
    return tuple(reversed(steps))


def _industry(grants: Grants, given: list[Contribution], person: Person, industry: Industry) -> IndustryView:
    of_this = tuple(each for each in reversed(given) if each.grant.industry is industry)
    state = grants.state(person.account_id, industry)
    is_outdated = bool(of_this) and RECONSENT_FROM is not None and of_this[0].grant.granted_at < RECONSENT_FROM
    return IndustryView(industry, state, of_this, is_outdated and state is ConsentState.GRANTED)
