"""Who allowed what, when, and what they had been shown."""

from __future__ import annotations

from enum import StrEnum

from schemas.ids import AccountId, GrantId, PersonId
from schemas.industries import Industry
from schemas.record import Moment, Record


class Act(StrEnum):
    """What a person did. `declined` changes no grant: it only ends "never asked"."""

    GRANTED = "granted"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


class ConsentState(StrEnum):
    """What the account page says of one industry. "Never asked" is not "no", and neither is a yes."""

    NEVER_ASKED = "never_asked"
    DECLINED = "declined"
    GRANTED = "granted"
    WITHDRAWN = "withdrawn"


class Method(StrEnum):
    """How the act came in. Only `button` may grant; all may withdraw."""

    BUTTON = "button"
    COMMAND_LINE = "command_line"
    API = "api"
    OPERATOR = "operator"


class ConsentEvent(Record):
    """One line of the ledger. `notice_sha256` is the hash of the exact text shown; empty for acts without a notice.

    `actor` is the person, or None for an operator, who must give a `reason`.
    `hash` covers everything else here and `previous_hash`: see `schemas.chain`. `account_previous_hash` is the hash of
    the same account's event before this one, so that one account's history is a chain of its own.
    """

    sequence: int
    account_id: AccountId
    actor: PersonId | None
    act: Act
    industry: Industry
    grant_id: GrantId | None
    notice_version: str
    notice_sha256: str
    page: str
    method: Method
    reason: str
    received_at: Moment
    recorded_at: Moment
    account_previous_hash: str
    previous_hash: str
    hash: str


class Grant(Record):
    """One continuous permission by one account for one industry. It never restarts."""

    grant_id: GrantId
    account_id: AccountId
    industry: Industry
    granted_at: Moment
    withdrawn_at: Moment | None
    notice_version: str
