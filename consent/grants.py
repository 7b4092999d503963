"""What a history of consent events amounts to: a pure replay.

A grant starts with one event and ends with one event. It never restarts: opting in again is another grant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.consent import Act, ConsentEvent, ConsentState, Grant
from schemas.errors import LedgerBroken
from schemas.ids import AccountId, GrantId
from schemas.industries import Industry

_Pair = tuple[AccountId, Industry]


@dataclass(frozen=True)
class Grants:
    """All grants of a history, in the order in which they were given, and who ever said no."""

    by_id: dict[GrantId, Grant] = field(default_factory=dict)
    declined: frozenset[_Pair] = frozenset()

    def get(self, grant_id: str | None) -> Grant | None:
        """The grant of that id, live or not."""
        return self.by_id.get(GrantId(grant_id)) if grant_id else None

    def live(self, account_id: AccountId, industry: Industry) -> Grant | None:
        """The one grant of this account for this industry that has not been withdrawn."""
        return next((each for each in self._given(account_id, industry) if each.withdrawn_at is None), None)

    def state(self, account_id: AccountId, industry: Industry) -> ConsentState:
        """What the account page says of one industry."""
        if self.live(account_id, industry) is not None:
            return ConsentState.GRANTED
        if self._given(account_id, industry):
            return ConsentState.WITHDRAWN
        declined = (account_id, industry) in self.declined
        return ConsentState.DECLINED if declined else ConsentState.NEVER_ASKED

    def _given(self, account_id: AccountId, industry: Industry) -> list[Grant]:
        return [each for each in self.by_id.values() if (each.account_id, each.industry) == (account_id, industry)]


def grants_of(events: Iterable[ConsentEvent]) -> Grants:
    """Replay `events` in their order. Raises `LedgerBroken` for a history that cannot have happened."""
    by_id: dict[GrantId, Grant] = {}
    live: dict[_Pair, GrantId] = {}
    declined: set[_Pair] = set()
    for event in events:
        pair = (event.account_id, event.industry)
        match event.act:
            case Act.DECLINED:
                declined.add(pair)
            case Act.GRANTED:
                if event.grant_id is None or event.grant_id in by_id or pair in live:
                    raise _impossible(event)
                by_id[event.grant_id] = Grant(
                    grant_id=event.grant_id,
                    account_id=event.account_id,
                    industry=event.industry,
                    granted_at=event.received_at,
                    withdrawn_at=None,
                    notice_version=event.notice_version,
                )
                live[pair] = event.grant_id
            case Act.WITHDRAWN:
                if event.grant_id is None or live.get(pair) != event.grant_id:
                    raise _impossible(event)
                ended = by_id[event.grant_id].model_copy(update={"withdrawn_at": event.received_at})
                by_id[event.grant_id] = ended
                del live[pair]
    return Grants(by_id, frozenset(declined))


def _impossible(event: ConsentEvent) -> LedgerBroken:
    return LedgerBroken(
        f"Event {event.sequence} of the consent ledger cannot follow what stands before it. "
        "Nothing is admitted for that account until the ledger is restored."
    )
