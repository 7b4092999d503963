"""The whole policy, in one function.

An output is a candidate only if a grant for its batch's industry was live when the batch was *received* and that same
grant is *still* live when the candidate is written. No grant, no tag, unknown tag, any doubt: no.

Pure: the facts, the grant and the time go in, a decision comes out. `consent.gate` says the same over Arrow tables,
and docs/consent-policy.md is generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas.consent import Grant
from schemas.industries import Industry


class Reason(StrEnum):
    """Why not; the first that applies, in this order. `sentence` says it to people."""

    NO_TIME = "no_time"
    NO_INDUSTRY = "no_industry"
    UNKNOWN_INDUSTRY = "unknown_industry"
    NO_GRANT = "no_grant"
    LEDGER_UNREADABLE = "ledger_unreadable"
    UNKNOWN_GRANT = "unknown_grant"
    OTHER_INDUSTRY = "other_industry"
    WITHDRAWN = "withdrawn"
    GRANTED_LATER = "granted_later"
    NOTICE_OUTDATED = "notice_outdated"
    CLOCK_WENT_BACK = "clock_went_back"

    @property
    def sentence(self) -> str:
        """One sentence for the batch's report."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NO_TIME: "It is not known when the batch was received.",
    Reason.NO_INDUSTRY: "The batch has no industry tag.",
    Reason.UNKNOWN_INDUSTRY: "The batch's industry tag is none that we know.",
    Reason.NO_GRANT: "No grant was live for this industry when the batch was received.",
    Reason.LEDGER_UNREADABLE: "The consent ledger could not be read or does not verify.",
    Reason.UNKNOWN_GRANT: "The ledger knows no grant of this id.",
    Reason.OTHER_INDUSTRY: "The grant is for another industry.",
    Reason.WITHDRAWN: "The grant was withdrawn.",
    Reason.GRANTED_LATER: "The grant was given after the batch was received.",
    Reason.NOTICE_OUTDATED: "The grant was given on a text that has since changed so much that we ask again.",
    Reason.CLOCK_WENT_BACK: "The clock stands before the batch's receipt.",
}


@dataclass(frozen=True)
class Facts:
    """What a batch's stamp says. Plain text and None are possible, because a doubtful stamp must get a no, no error."""

    received_at: datetime | None
    industry: str | None
    grant_id: str | None


class LedgerUnreadable:
    """Stands where a grant would, when the ledger could not be read or does not verify."""


@dataclass(frozen=True)
class Decision:
    """Admit, or the reason why not."""

    reason: Reason | None = None

    @property
    def admitted(self) -> bool:
        """Whether the output may become a candidate."""
        return self.reason is None


_TAGS = frozenset(industry.value for industry in Industry)


def decide(
    facts: Facts, grant: Grant | LedgerUnreadable | None, now: datetime, reconsent_from: datetime | None
) -> Decision:
    """Whether an output of the batch may become a candidate now. Every doubt is a no.

    `grant`: what the ledger holds under `facts.grant_id`, live or not. `reconsent_from`: grants given before it do not
    count, because the notice has changed (None: it has not).
    """
    return Decision(_why_not(facts, grant, now, reconsent_from))


def _why_not(
    facts: Facts, grant: Grant | LedgerUnreadable | None, now: datetime, reconsent_from: datetime | None
) -> Reason | None:
    if facts.received_at is None:
        return Reason.NO_TIME
    if not facts.industry:
        return Reason.NO_INDUSTRY
    if facts.industry not in _TAGS:
        return Reason.UNKNOWN_INDUSTRY
    if not facts.grant_id:
        return Reason.NO_GRANT
    if isinstance(grant, LedgerUnreadable):
        return Reason.LEDGER_UNREADABLE
    if grant is None or grant.grant_id != facts.grant_id:
        return Reason.UNKNOWN_GRANT
    if grant.industry.value != facts.industry:
        return Reason.OTHER_INDUSTRY
    if grant.withdrawn_at is not None:
        return Reason.WITHDRAWN
    if grant.granted_at > facts.received_at:
        return Reason.GRANTED_LATER
    if reconsent_from is not None and grant.granted_at < reconsent_from:
        return Reason.NOTICE_OUTDATED
    if now < facts.received_at:
        return Reason.CLOCK_WENT_BACK
    return None
