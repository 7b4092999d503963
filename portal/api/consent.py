"""AI Training Data for programs: see what is on, and take it back. Turning it on is done on the account page alone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Body

from consent.ledger import LONGEST_REASON, Refusal, read_grants, withdraw
from consent.suppression import note_soon, open_suppressions
from portal.api.keys import Caller
from portal.web.portal import ThePortal
from schemas.batch import PROMISED_LIFE
from schemas.consent import ConsentState, Grant, Method
from schemas.industries import Industry
from schemas.record import Moment, Record

router = APIRouter(prefix="/consent", tags=["consent"])

_MOST_OF_REASON = LONGEST_REASON - 50


class IndustryConsent(Record):
    """One industry, and the grant that is live for it."""

    industry: Industry
    state: ConsentState
    grant_id: str | None
    granted_at: Moment | None


class Withdrawal(Record):
    """Which industries to turn off (all, when left out), and why, in words without anybody's name."""

    industries: tuple[Industry, ...] | None = None
    reason: Annotated[str, Body(max_length=_MOST_OF_REASON, pattern="^[^\\x00]*$")] = ""


class Withdrawn(Record):
    """A grant that ended with this request. Its images are out of reach now and erased by `erased_by`."""

    industry: Industry
    grant_id: str
    withdrawn_at: Moment
    erased_by: Moment


@router.get("")
def show(portal: ThePortal, caller: Caller) -> list[IndustryConsent]:
    """What the account allows, industry by industry."""
    with portal.records.reading() as connection:
        grants = read_grants(connection, caller.account_id)
    shown = []
    for industry in Industry:
        live = grants.live(caller.account_id, industry)
        shown.append(
            IndustryConsent(
                industry=industry,
                state=grants.state(caller.account_id, industry),
                grant_id=live.grant_id if live else None,
                granted_at=live.granted_at if live else None,
            )
        )
    return shown


@router.post("/withdrawals")
def take_back(portal: ThePortal, caller: Caller, afterwards: BackgroundTasks, wanted: Withdrawal) -> list[Withdrawn]:
    """Turn AI Training Data off. Readers are shut out at once. What was off stays off: then the list is empty."""
    words = f"with API key {caller.key_id}" + (f": {wanted.reason}" if wanted.reason else "")
    by = Refusal(caller.account_id, Method.API, portal.clock(), reason=words)
    chosen = Industry if wanted.industries is None else dict.fromkeys(wanted.industries)
    with portal.records.transaction() as connection:
        ended = [withdraw(connection, by, industry, portal.clock()) for industry in chosen]
    afterwards.add_task(note_soon, portal.records, open_suppressions(portal.settings))
    return [_withdrawn(grant) for grant in ended if grant is not None]


def _withdrawn(grant: Grant) -> Withdrawn:
    assert grant.withdrawn_at is not None
    return Withdrawn(
        industry=grant.industry,
        grant_id=grant.grant_id,
        withdrawn_at=grant.withdrawn_at,
        erased_by=grant.withdrawn_at + PROMISED_LIFE,
    )
