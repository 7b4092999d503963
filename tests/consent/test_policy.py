"""One sentence is the whole policy; the docs are what the code says; the gate says the same over tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import product

import pyarrow as pa
import pytest

from consent.gate import gate
from consent.policy import Facts, LedgerUnreadable, Reason, decide
from consent.truth_table import CASES, PAGE, page
from schemas.consent import Grant
from schemas.errors import LedgerBroken
from schemas.ids import AccountId, GrantId
from schemas.industries import Industry
from tests.consent.conftest import NOON, later

TIMES = [later(minutes) for minutes in (-2, -1, 0, 1, 2)]
IDS = [GrantId(f"g{number:032}") for number in range(20)]
GRANTS = [
    Grant(
        grant_id=grant_id,
        account_id=AccountId("a" * 33),
        industry=industry,
        granted_at=granted_at,
        withdrawn_at=withdrawn_at,
        notice_version="1",
    )
    for grant_id, (industry, granted_at, withdrawn_at) in zip(
        IDS, product((Industry.AUTOMOTIVE, Industry.STUDIO), TIMES, (None, NOON)), strict=True
    )
]
A_GRANT = GRANTS[0]
TAGS = ("automotive", "studio", "pipeline", "aviation", "Automotive", "", None)
FACTS = [Facts(*each) for each in product((None, *TIMES), TAGS, (None, "", "g" + "f" * 32, *IDS))]
"""Whatever a stamp can say, as far as it matters here."""


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


@pytest.mark.parametrize("again", [None, *TIMES])
@pytest.mark.parametrize("now", TIMES)
def test_the_policy_is_the_sentence(now: datetime, again: datetime | None) -> None:
    one_id = [each.model_copy(update={"grant_id": IDS[0]}) for each in GRANTS]
    for facts, grant in product(FACTS, [None, LedgerUnreadable(), *one_id]):
        assert decide(facts, grant, now, again).admitted == reference(facts, grant, now, again)


@pytest.mark.parametrize("as_dictionary", [False, True])
@pytest.mark.parametrize("again", [None, *TIMES])
@pytest.mark.parametrize("now", TIMES)
def test_the_gate_says_what_the_policy_says_row_by_row(
    now: datetime, again: datetime | None, as_dictionary: bool
) -> None:
    rows = table_of(FACTS, as_dictionary)
    for grants in (GRANTS, LedgerUnreadable()):
        held = {each.grant_id: each for each in grants} if isinstance(grants, list) else {}
        unknown = None if isinstance(grants, list) else grants
        reasons = [decide(each, held.get(each.grant_id, unknown), now, again).reason for each in FACTS]
        result = gate(rows, grants, now, again)
        admitted = [place for place, reason in enumerate(reasons) if reason is None]
        assert result.admitted == rows.take(pa.array(admitted, pa.int64()))
        assert result.refusals == Counter(reason for reason in reasons if reason is not None)


def table_of(rows: Sequence[Facts], as_dictionary: bool = False) -> pa.Table:
    label = pa.dictionary(pa.int32(), pa.string()) if as_dictionary else pa.string()
    return pa.table(
        {
            "received_at": pa.array([facts.received_at for facts in rows], pa.timestamp("us", tz="UTC")),
            "industry": pa.array([facts.industry for facts in rows], pa.string()).cast(label),
            "grant_id": pa.array([facts.grant_id for facts in rows], pa.string()).cast(label),
            "item": pa.array(range(len(rows)), pa.int32()),
        }
    )


def test_times_without_a_zone_are_no_yes() -> None:
    rows = table_of([Facts(NOON, "automotive", IDS[0])])
    naive = rows.set_column(0, "received_at", rows["received_at"].cast(pa.timestamp("us")))
    with pytest.raises(ValueError, match="time zone"):
        gate(naive, [A_GRANT], NOON)


def test_a_grant_that_is_there_twice_admits_nothing() -> None:
    rows = table_of([Facts(NOON, "automotive", IDS[0])])
    with pytest.raises(LedgerBroken):
        gate(rows, [A_GRANT, A_GRANT.model_copy(update={"withdrawn_at": NOON})], NOON)
