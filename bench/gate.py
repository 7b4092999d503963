"""How fast is the consent gate? A million rows through `consent.gate.gate`, beside the policy asked row by row.

`python -m bench.gate` writes its section of bench/RESULTS.md, and writes nothing unless both admit the same rows
and refuse as many for each reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pyarrow as pa

from bench.results import table, write_section
from consent.gate import gate
from consent.policy import Facts, decide
from schemas.consent import Grant
from schemas.ids import AccountId, GrantId
from schemas.industries import Industry

ROWS, GRANTS, ROWS_PER_BATCH = 1_000_000, 10_000, 500
RUNS = 3
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
_Answer = TypeVar("_Answer")


def main() -> None:
    """Measure both, compare what they say, write the section."""
    grants, rows = make_grants(), make_rows()
    facts = [Facts(each["received_at"], each["industry"], each["grant_id"]) for each in rows.to_pylist()]
    print(f"{ROWS:,} rows, {GRANTS:,} grants")
    seconds, result = best_of(RUNS, lambda: gate(rows, grants, NOON))
    one_by_one, (admitted, refusals) = best_of(RUNS, lambda: ask_each(facts, grants))
    counted = {reason.value: count for reason, count in result.refusals.items()}
    if result.admitted["number"].to_pylist() != admitted or counted != refusals:
        raise SystemExit("The gate and the policy disagree.")
    lines = [
        f"{ROWS:,} rows of {ROWS // ROWS_PER_BATCH:,} batches, {GRANTS:,} grants (a fifth of them withdrawn); "
        f"{result.admitted.num_rows:,} rows admitted, the others counted by reason.",
        "",
        *table(
            ["", "seconds", "rows per second"],
            [
                [f"gate over Arrow, best of {RUNS}", f"{seconds:.2f}", f"{ROWS / seconds:,.0f}"],
                [f"`decide` row by row, best of {RUNS}", f"{one_by_one:.2f}", f"{ROWS / one_by_one:,.0f}"],
            ],
        ),
        "",
        f"The gate is {one_by_one / seconds:.1f} times as fast, admitted the same rows, and refused as many for each "
        "reason.",
    ]
    print("\n".join(lines))
    write_section("Consent gate", lines)


def make_grants() -> list[Grant]:
    """Grants of many accounts; every fifth was withdrawn, every seventh is younger than the batches."""
    return [
        Grant(
            grant_id=GrantId(f"g{number:032x}"),
            account_id=AccountId(f"a{number:032x}"),
            industry=list(Industry)[number % len(Industry)],
            granted_at=NOON - timedelta(hours=1 if number % 7 == 0 else 48),
            withdrawn_at=NOON - timedelta(minutes=1) if number % 5 == 0 else None,
            notice_version="1",
        )
        for number in range(GRANTS)
    ]


def make_rows() -> pa.Table:
    """What a night's batches offer: some without a tag, some without a grant, some with another industry's."""
    batches = [number // ROWS_PER_BATCH for number in range(ROWS)]
    grant = [(batch * 37) % GRANTS for batch in batches]
    tags = [each.value for each in Industry]
    return pa.table(
        {
            "number": pa.array(range(ROWS)),
            "batch_id": pa.array([f"batch-{batch}" for batch in batches]),
            "received_at": pa.array([NOON - timedelta(hours=2)] * ROWS, pa.timestamp("us", "UTC")),
            "industry": pa.array(
                [
                    None if batch % 11 == 0 else tags[(number if batch % 13 else number + 1) % len(tags)]
                    for batch, number in zip(batches, grant, strict=True)
                ]
            ),
            "grant_id": pa.array(
                [None if batch % 3 == 0 else f"g{number:032x}" for batch, number in zip(batches, grant, strict=True)]
            ),
        }
    )


def ask_each(facts: Sequence[Facts], grants: list[Grant]) -> tuple[list[int], Counter[str]]:
    """The same, by asking the policy once for each row: numbers of those admitted, and refusals by reason."""
    known = {grant.grant_id: grant for grant in grants}
    admitted: list[int] = []
    refusals: Counter[str] = Counter()
    for number, each in enumerate(facts):
        reason = decide(each, known.get(GrantId(each.grant_id or "")), NOON, None).reason
        if reason is None:
            admitted.append(number)
        else:
            refusals[reason.value] += 1
    return admitted, refusals


def best_of(runs: int, work: Callable[[], _Answer]) -> tuple[float, _Answer]:
    """The least wall seconds of so many runs, and the answer."""
    times = []
    for _ in range(runs):
        before = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - before)
    return min(times), answer


if __name__ == "__main__":
    main()
