"""Small urgent batches are not stuck behind a marketplace's night; nobody starves; deadlines count."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flows.fair_share import TURN_ITEMS, charged, may_cut_in, next_turn
from schemas.ids import AccountId, new_batch_id
from store.records.line import InLine
from store.records.shares import Share

EVENING = datetime(2026, 11, 25, 22, tzinfo=UTC)


def waiting(account: str, left: int, at: datetime = EVENING, due_at: datetime | None = None) -> InLine:
    return InLine(new_batch_id(at, Random(f"{account}{left}{at}").randbytes), AccountId(account), left, at, due_at)


def test_who_has_had_less_lately_goes_first() -> None:
    shares = {AccountId("big"): charged(Share(account_id=AccountId("big")), 5000, EVENING)}
    big, small = waiting("big", 200_000), waiting("small", 40, EVENING + timedelta(minutes=1))
    assert next_turn([big, small], shares, EVENING, 10.0, True) == small


def test_use_fades_and_a_heavier_weight_bears_more() -> None:
    share = Share(account_id=AccountId("a"))
    long_ago = charged(share, 64_000, EVENING - timedelta(hours=2))
    now = charged(share, 64, EVENING)
    assert long_ago.finish_tag < now.finish_tag
    heavy = {AccountId("a"): replace_weight(now, 4.0), AccountId("b"): charged(share, 32, EVENING)}
    assert next_turn([waiting("a", 1), waiting("b", 1)], heavy, EVENING, 1.0, True).account_id == "a"


def replace_weight(share: Share, weight: float) -> Share:
    return share.model_copy(update={"weight": weight})


def test_a_deadline_at_risk_goes_before_fairness_and_a_comfortable_one_does_not() -> None:
    due = EVENING + timedelta(seconds=300)
    heavy = charged(Share(account_id=AccountId("m")), 9000, EVENING)
    night, small = waiting("m", 1000, due_at=due), waiting("d", 40)
    assert next_turn([small, night], {AccountId("m"): heavy}, EVENING, 5.0, True) == night
    assert next_turn([small, night], {AccountId("m"): heavy}, EVENING, 50.0, True) == small


def test_a_batch_is_late_when_there_is_not_twice_the_time_that_it_needs() -> None:
    heavy = charged(Share(account_id=AccountId("m")), 9000, EVENING)
    small = waiting("d", 40)
    for seconds, is_first in ((20, True), (21, False)):
        night = waiting("m", 100, due_at=EVENING + timedelta(seconds=seconds))
        chosen = next_turn([small, night], {AccountId("m"): heavy}, EVENING, 10.0, True)
        assert (chosen == night) is is_first


def test_a_batch_whose_turn_is_over_lets_others_go_and_of_its_own_account_what_is_done_in_one() -> None:
    account = AccountId("a")
    assert may_cut_in(waiting("b", 200_000), account)
    assert may_cut_in(waiting("a", TURN_ITEMS), account)
    assert not may_cut_in(waiting("a", TURN_ITEMS + 1), account)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20))
def test_charging_in_parts_is_charging_at_once(parts: list[int]) -> None:
    share = Share(account_id=AccountId("a"))
    for items in parts:
        share = charged(share, items, EVENING)
    at_once = charged(Share(account_id=AccountId("a")), sum(parts), EVENING)
    assert abs(share.finish_tag - at_once.finish_tag) < 1e-6


def night(accounts: int, seed: int, rate: float) -> list[tuple[InLine, int, float]]:
    """Play a night: heavy-tailed sizes, four fifths of the workers' time asked for. Gives size and wait in seconds."""
    random = Random(seed)
    hours = 8 * 3600
    sizes = [min(200_000, int(20 * random.paretovariate(0.9))) for _ in range(accounts)]
    scale = 0.8 * hours * rate / sum(sizes)
    if scale < 1:
        hours = int(hours / scale)
    moments = [EVENING + timedelta(seconds=random.uniform(0, hours)) for _ in sizes]
    coming = [(waiting(f"account{n}", size, at), size) for n, (size, at) in enumerate(zip(sizes, moments, strict=True))]
    arrivals = sorted(coming, key=lambda pair: pair[0].ready_at)
    now, line, shares, size_of, is_for_deadlines = EVENING, {}, {}, {}, False
    started: dict[str, float] = {}
    ended: list[tuple[InLine, int, float]] = []
    while arrivals or line:
        while arrivals and arrivals[0][0].ready_at <= now:
            batch, size = arrivals.pop(0)
            line[batch.batch_id], size_of[batch.batch_id] = batch, (size, batch.ready_at)
        is_for_deadlines = not is_for_deadlines
        chosen = next_turn(line.values(), shares, now, rate, is_for_deadlines)
        if chosen is None:
            now = arrivals[0][0].ready_at
            continue
        size, came = size_of[chosen.batch_id]
        started.setdefault(chosen.batch_id, (now - came).total_seconds())
        items = min(chosen.left, TURN_ITEMS)
        now += timedelta(seconds=items / rate)
        share = shares.get(chosen.account_id, Share(account_id=chosen.account_id))
        shares[chosen.account_id] = charged(share, items, now)
        if items == chosen.left:
            del line[chosen.batch_id]
            ended.append((chosen, size, started[chosen.batch_id]))
        else:
            line[chosen.batch_id] = replace(chosen, left=chosen.left - items, ready_at=now)
    return ended


def test_in_a_night_of_a_thousand_accounts_small_batches_hardly_wait_and_all_end() -> None:
    rate = 50.0
    ended = night(1000, seed=7, rate=rate)
    assert len(ended) == 1000, "nobody starves"
    assert max(size for _, size, _ in ended) > 5_000, "the tail is heavy"
    small = sorted(wait / (size / rate) for _, size, wait in ended if size <= TURN_ITEMS)
    assert len(small) > 300
    assert small[int(0.95 * len(small))] < 2.0


@given(
    left=st.lists(st.integers(1, 20 * TURN_ITEMS), min_size=1, max_size=5),
    had=st.lists(st.integers(0, 10_000), min_size=5, max_size=5),
    hurried=st.integers(1, 5),
    rate=st.floats(0.1, 1000.0),
)
def test_who_calls_every_batch_overdue_goes_first_in_half_of_the_turns_and_starves_nobody(
    left: list[int], had: list[int], hurried: int, rate: float
) -> None:
    """An account without end that says its batches were needed yesterday, and others who say nothing."""
    accounts = [AccountId(f"account{n}") for n in range(len(left))]
    shares = {each: charged(Share(account_id=each), items, EVENING) for each, items in zip(accounts, had, strict=False)}
    line = {each: waiting(each, items) for each, items in zip(accounts, left, strict=True)}
    overdue = [waiting("greedy", 10_000 + n, due_at=EVENING - timedelta(days=1)) for n in range(hurried)]
    own = sum(math.ceil(each / TURN_ITEMS) for each in left)
    until_it_has_had_more = math.ceil((max(had) + max(left)) / TURN_ITEMS)
    now, turns, greedy = EVENING, 0, 0
    while line:
        turns += 1
        assert turns <= 2 * (own + until_it_has_had_more)
        chosen = next_turn([*overdue, *line.values()], shares, now, rate, turns % 2 == 1)
        assert chosen is not None
        items = min(chosen.left, TURN_ITEMS)
        now += timedelta(seconds=items / rate)
        account = chosen.account_id
        shares[account] = charged(shares.get(account, Share(account_id=account)), items, now)
        if account == "greedy":
            greedy += 1
        elif items == chosen.left:
            del line[account]
        else:
            line[account] = replace(chosen, left=chosen.left - items, ready_at=now)
    assert greedy >= turns // 2
