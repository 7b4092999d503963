"""Whose turn it is. Pure: who waits, what each account has had lately, and the time go in; one batch comes out.

Each account's use fades with a half-life, so that a dealer with 40 photos is not stuck behind a marketplace with
200,000, a newcomer waits for nobody's past, and nobody starves. Use is one number that needs no clock to compare:
forward decay (Cormode et al., "Forward Decay", ICDE 2009), the logarithm of sum(seconds * 2^(time / half-life)), where
the seconds are the workers': a turn takes some to begin, so many batches of one photo cost more than one of them all.
Every other turn is for deadlines: a batch that would miss its own goes first there, the tightest before the others. It
is reckoned to need twice its time, so half of the turns is enough, and the other half is left to be fair.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from schemas.ids import AccountId
from store.records.line import InLine
from store.records.shares import Share

HALF_LIFE = timedelta(minutes=10)
TURN_ITEMS = 40
"""Photos after which a batch lets another one have its turn, if one waits: what a dealer sends at once."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def charged(share: Share, seconds: float, now: datetime) -> Share:
    """The account's share after the workers were its own for so long."""
    if seconds <= 0:
        return share
    new = math.log2(seconds) + (now - _EPOCH) / HALF_LIFE
    high, low = max(share.finish_tag, new), min(share.finish_tag, new)
    return share.model_copy(update={"finish_tag": high + math.log2(1.0 + 2.0 ** (low - high))})


def may_cut_in(waiting: InLine, account_id: AccountId) -> bool:
    """Whether a batch of this account whose turn is over lets the other one go before it goes on.

    Of its own account only one that is done in a turn: taking turns with a large one would bring neither to its end.
    """
    return waiting.account_id != account_id or waiting.left <= TURN_ITEMS


def next_turn(
    waiting: Collection[InLine],
    shares: Mapping[AccountId, Share],
    now: datetime,
    items_per_second: float,
    is_for_deadlines: bool,
) -> InLine | None:
    """The batch that goes next; None when nobody waits. `items_per_second`: how fast the workers have been lately."""
    if not waiting:
        return None
    at_risk = [each for each in waiting if is_for_deadlines and _would_be_late(each, now, items_per_second)]
    if at_risk:
        return min(at_risk, key=lambda each: (each.due_at or now, each.ready_at))
    return min(waiting, key=lambda each: (_use(shares.get(each.account_id)), each.ready_at, each.batch_id))


def _use(share: Share | None) -> float:
    """What the account has had, per weight, in logarithms."""
    return 0.0 if share is None else share.finish_tag - math.log2(share.weight)


def _would_be_late(batch: InLine, now: datetime, items_per_second: float) -> bool:
    """Whether it must run from now on, with as much time again in hand, to be done when it is due."""
    if batch.due_at is None:
        return False
    needed = timedelta(seconds=2 * batch.left / max(items_per_second, 1e-6))
    return now + needed >= batch.due_at
