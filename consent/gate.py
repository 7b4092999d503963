"""The gate before the lake: the policy over Arrow tables, and once more inside the transaction that admits.

`gate` says what `consent.policy.decide` says, row by row (a test of all cases holds them equal), a million rows a
second.
`confirm` is asked again in the transaction that records the admission, so that it and a withdrawal have an order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from consent.ledger import find_grant
from consent.locks import lock_grant
from consent.notice import RECONSENT_FROM
from consent.policy import Decision, Facts, LedgerUnreadable, Reason, decide
from schemas.consent import Grant
from schemas.errors import LedgerBroken
from schemas.ids import GrantId
from schemas.industries import Industry

_TIME = pa.timestamp("us", tz="UTC")
_ADMIT = ""

_GRANTS = pa.schema({"grant_id": pa.string(), "industry": pa.string(), "granted_at": _TIME, "withdrawn_at": _TIME})
"""What is asked of grants."""


@dataclass(frozen=True)
class GateResult:
    """`admitted`: the rows that may go on, whole. `refusals`: reason -> rows that may not."""

    admitted: pa.Table
    refusals: dict[Reason, int]


def gate(
    rows: pa.Table,
    grants: Sequence[Grant] | LedgerUnreadable,
    now: datetime,
    reconsent_from: datetime | None = RECONSENT_FROM,
) -> GateResult:
    """Split `rows` (columns received_at, industry, grant_id, and any others) by the policy.

    `grants`: what the ledger holds, live or not. A row without its grant among them is refused, as is every row when
    the ledger cannot be read. Raises `LedgerBroken` for two grants of one id, `ValueError` for times without a zone.
    """
    known = _as_table(() if isinstance(grants, LedgerUnreadable) else grants)
    if len(pc.unique(known["grant_id"])) != known.num_rows:
        raise LedgerBroken("The ledger names one grant twice. Run `bgbatch consent verify`.")
    reasons = _reasons(rows, known, now, reconsent_from)
    if isinstance(grants, LedgerUnreadable):
        not_found = pc.equal(reasons, Reason.UNKNOWN_GRANT.value)
        reasons = pc.if_else(not_found, Reason.LEDGER_UNREADABLE.value, reasons)
    admitted = rows.filter(pc.equal(reasons, _ADMIT))
    counted = {each["values"]: each["counts"] for each in pc.value_counts(reasons).to_pylist()}
    return GateResult(admitted, {Reason(why): count for why, count in counted.items() if why != _ADMIT})


def confirm(
    connection: Connection,
    grant_id: str | None,
    industry: str | None,
    received_at: datetime,
    now: datetime,
    reconsent_from: datetime | None = RECONSENT_FROM,
) -> Decision:
    """Decide once more, inside the transaction that records the admission.

    Either a withdrawal of this grant is committed before and seen here, or it waits until this transaction ends and
    finds the admission recorded. Admissions do not wait for each other.
    """
    facts = Facts(received_at=received_at, industry=industry, grant_id=grant_id)
    return decide(facts, _grant_held(connection, grant_id), now, reconsent_from)


def is_live(connection: Connection, grant_id: GrantId) -> bool:
    """Whether a grant is live, with the order towards a withdrawal that `confirm` has: rows of it may then be moved."""
    grant = _grant_held(connection, grant_id)
    return not isinstance(grant, LedgerUnreadable) and grant is not None and grant.withdrawn_at is None


def _as_table(grants: Sequence[Grant]) -> pa.Table:
    columns = {
        "grant_id": [str(each.grant_id) for each in grants],
        "industry": [each.industry.value for each in grants],
        "granted_at": [each.granted_at for each in grants],
        "withdrawn_at": [each.withdrawn_at for each in grants],
    }
    return pa.table(columns, schema=_GRANTS)


def _grant_held(connection: Connection, grant_id: str | None) -> Grant | LedgerUnreadable | None:
    if not grant_id:
        return None
    lock_grant(connection, GrantId(grant_id), shared=True)
    if not _sees_what_is_committed(connection):
        return LedgerUnreadable()
    try:
        return find_grant(connection, GrantId(grant_id))
    except LedgerBroken:
        return LedgerUnreadable()


def _sees_what_is_committed(connection: Connection) -> bool:
    """Under PostgreSQL's stricter isolation levels a transaction reads a past in which the grant may still be live."""
    if connection.dialect.name != "postgresql":
        return True
    return connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"


def _reasons(rows: pa.Table, known: pa.Table, now: datetime, reconsent_from: datetime | None) -> pa.ChunkedArray:
    """One reason per row, or the empty text. The order of the cases is that of `consent.policy.Reason`."""
    received = _times(rows["received_at"])
    industry = pc.fill_null(rows["industry"].cast(pa.string()), "")
    grant_id = pc.fill_null(rows["grant_id"].cast(pa.string()), "")
    place = pc.index_in(grant_id, value_set=known["grant_id"])
    granted_at = known["granted_at"].take(place)
    cases = {
        Reason.NO_TIME: pc.is_null(received),
        Reason.NO_INDUSTRY: pc.equal(industry, ""),
        Reason.UNKNOWN_INDUSTRY: pc.invert(pc.is_in(industry, value_set=pa.array([each.value for each in Industry]))),
        Reason.NO_GRANT: pc.equal(grant_id, ""),
        Reason.UNKNOWN_GRANT: pc.is_null(place),
        Reason.OTHER_INDUSTRY: pc.not_equal(industry, known["industry"].take(place)),
        Reason.WITHDRAWN: pc.is_valid(known["withdrawn_at"].take(place)),
        Reason.GRANTED_LATER: pc.greater(granted_at, received),
        Reason.NOTICE_OUTDATED: pc.less(granted_at, pa.scalar(reconsent_from, _TIME)),
        Reason.CLOCK_WENT_BACK: pc.greater(received, pa.scalar(now, _TIME)),
    }
    # A case that is unknown (null) does not apply by itself; the null behind it has its own case before, or is the
    # `reconsent_from` of a notice that has not changed.
    conditions = [pc.fill_null(condition.combine_chunks(), False) for condition in cases.values()]
    answers = [pa.scalar(reason.value) for reason in cases]
    asked = pa.StructArray.from_arrays(conditions, names=[reason.value for reason in cases])
    return pa.chunked_array([pc.case_when(asked, *answers, pa.scalar(_ADMIT))], pa.string())


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise ValueError("received_at must be a timestamp with a time zone")
    return column.cast(_TIME)
