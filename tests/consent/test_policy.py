"""One sentence is the whole policy; the docs are what the code says; the gate says the same over tables."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.gate import gate, grants_table
from consent.policy import Facts, LedgerUnreadable, Reason, decide
from consent.truth_table import CASES, PAGE, page
from schemas.consent import Grant
from schemas.errors import LedgerBroken
from schemas.ids import AccountId, GrantId
from schemas.industries import Industry
from tests.consent.conftest import NOON, later

IDS = [GrantId("g" + digit * 32) for digit in "0123"]
TIMES = [later(minutes) for minutes in (-2, -1, 0, 1, 2)]
A_GRANT = Grant(
    grant_id=IDS[0],
    account_id=AccountId("a" * 33),
    industry=Industry.AUTOMOTIVE,
    granted_at=later(-1),
    withdrawn_at=None,
    notice_version="1",
)


def test_the_page_in_the_docs_is_current() -> None:
    assert PAGE.read_text() == page(), "run python -m consent.truth_table"


def test_the_page_shows_every_reason_and_a_yes() -> None:
    shown = {decide(*case[1:]).reason for case in CASES}
    assert shown == {None, *Reason}


def reference(facts: Facts, grant: Grant | LedgerUnreadable | None, now: datetime, again: datetime | None) -> bool:
    """The policy once more, as the sentence in DESIGN.md reads."""
    return (
        isinstance(grant, Grant)
        and facts.grant_id == grant.grant_id
        and facts.industry in set(Industry)
        and facts.industry == grant.industry
        and facts.received_at is not None
        and grant.granted_at <= facts.received_at <= now
        and grant.withdrawn_at is None
        and not (again is not None and grant.granted_at < again)
    )


tags = st.sampled_from([*(each.value for each in Industry), "aviation", "Automotive", "", None])
times = st.sampled_from(TIMES)
grant_of = st.builds(
    Grant,
    grant_id=st.sampled_from(IDS[:3]),
    account_id=st.just(AccountId("a" * 33)),
    industry=st.sampled_from([Industry.AUTOMOTIVE, Industry.STUDIO]),
    granted_at=times,
    withdrawn_at=st.one_of(st.none(), st.none(), times),
    notice_version=st.just("1"),
)
facts_of = st.builds(
    Facts,
    received_at=st.one_of(st.none(), times, times, times),
    industry=st.one_of(st.just("automotive"), tags),
    grant_id=st.one_of(st.sampled_from([None, "", *IDS])),
)


@settings(max_examples=500, deadline=None)
@given(facts_of, st.one_of(st.none(), st.just(LedgerUnreadable()), grant_of), times, st.one_of(st.none(), times))
def test_the_policy_is_the_sentence(facts, grant, now, again) -> None:
    assert decide(facts, grant, now, again).admitted == reference(facts, grant, now, again)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["b1", "b2", "b3"]), facts_of), max_size=12),
    st.one_of(st.just(LedgerUnreadable()), st.lists(grant_of, max_size=3, unique_by=lambda each: each.grant_id)),
    times,
    st.one_of(st.none(), times),
    st.booleans(),
)
def test_the_gate_says_what_the_policy_says_row_by_row(rows, grants, now, again, as_dictionary) -> None:
    table = table_of(rows, as_dictionary)
    result = gate(table, grants, now, again)
    admitted, refusals = [], {}
    for place, (_, facts) in enumerate(rows):
        held = (
            next((each for each in grants if each.grant_id == facts.grant_id), None)
            if isinstance(grants, list)
            else grants
        )
        reason = decide(facts, held, now, again).reason
        if reason is None:
            admitted.append(place)
            continue
        refusals[reason] = refusals.get(reason, 0) + 1
    assert result.admitted == table.take(pa.array(admitted, pa.int64()))
    assert result.refusals == refusals


def table_of(rows: list[tuple[str, Facts]], as_dictionary: bool = False) -> pa.Table:
    label = pa.dictionary(pa.int32(), pa.string()) if as_dictionary else pa.string()
    return pa.table(
        {
            "batch_id": pa.array([batch for batch, _ in rows], pa.string()),
            "received_at": pa.array([facts.received_at for _, facts in rows], pa.timestamp("us", tz="UTC")),
            "industry": pa.array([facts.industry for _, facts in rows], pa.string()).cast(label),
            "grant_id": pa.array([facts.grant_id for _, facts in rows], pa.string()).cast(label),
            "item": pa.array(range(len(rows)), pa.int32()),
        }
    )


def test_the_gate_takes_grants_as_a_table_too() -> None:
    rows = table_of([("b1", Facts(NOON, "automotive", IDS[0]))])
    assert gate(rows, grants_table([A_GRANT]), NOON).admitted.num_rows == 1


def test_times_without_a_zone_are_no_yes() -> None:
    rows = table_of([("b1", Facts(NOON, "automotive", IDS[0]))])
    naive = rows.set_column(1, "received_at", rows["received_at"].cast(pa.timestamp("us")))
    with pytest.raises(ValueError, match="time zone"):
        gate(naive, [A_GRANT], NOON)


def test_a_grant_that_is_there_twice_admits_nothing() -> None:
    rows = table_of([("b1", Facts(NOON, "automotive", IDS[0]))])
    with pytest.raises(LedgerBroken):
        gate(rows, [A_GRANT, A_GRANT.model_copy(update={"withdrawn_at": NOON})], NOON)
