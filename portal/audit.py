"""Did the promise hold? Replays ledger, receipts and listings with readers of its own, over any period.

It trusts no summary: consent events are replayed here, not by `consent`; the lake is read with fastparquet, not with
the writer's library; ages are read off paths.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import fastparquet
from sqlalchemy import Connection, select

from consent.ledger import verify
from consent.suppression import noted_purges, open_suppressions
from flows.parts import Parts
from lake.layout import made_from, may_be_of_a_newer_grant, place_of
from schemas.batch import PROMISED_LIFE
from schemas.counting import so_many
from schemas.errors import BgbatchError, LedgerBroken, NotFound
from schemas.ids import BatchId, GrantId, parse_batch_id, received_at
from schemas.receipt import Erased, Receipt, receipt_hash
from store.objects.object_store import ObjectStore
from store.purging.receipts import each_receipt, verify_receipts
from store.records.tables import batches, cleanups, consent_events, pulled_grants

_IN_ONE_QUERY = 500  # databases limit how many values a query may carry


@dataclass
class Audit:
    """`broken`: each way in which the promise did not hold. `looked_at`: how much was looked at, by kind.

    `longest_gap_minutes`: between a good cleanup and the next one, or the period's end.
    """

    since: datetime
    until: datetime
    looked_at: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    longest_gap_minutes: float | None = None

    @property
    def held(self) -> bool:
        """Whether nothing was found."""
        return not self.broken


@dataclass(frozen=True)
class _Grant:
    industry: str
    given_at: datetime
    ended_at: datetime | None


def audit(parts: Parts, since: datetime, until: datetime) -> Audit:
    """Look at everything that was received, erased or is held, from `since` to `until` (for what is held: now)."""
    result = Audit(since, until)
    now = parts.clock()
    with parts.records.reading() as connection:
        _chains(connection, result)
        _batches(connection, result, now, open_suppressions(parts.settings))
        _cleanups(connection, result)
        grants = _replay(connection)
        _copies(connection, result, grants, now)
    _transient(parts, result, now)
    _lake(parts, result, grants, now)
    return result


def _chains(connection: Connection, result: Audit) -> None:
    try:
        result.looked_at["consent events of all time"] = verify(connection)
        result.looked_at["receipts of all time"] = verify_receipts(each_receipt(connection))
    except BgbatchError as error:
        result.broken.append(str(error))


def _batches(connection: Connection, result: Audit, now: datetime, beside: ObjectStore) -> None:
    """Every batch of the period whose day has passed has a receipt, in time, with nothing left."""
    gone = _gone(each_receipt(connection), result)
    query = select(batches.c.batch_id).where(
        batches.c.received_at >= result.since,
        batches.c.received_at <= min(result.until, now - PROMISED_LIFE),
    )
    ids = list(connection.execute(query).scalars())
    result.looked_at["batches of the period past their day"] = len(ids)
    forgotten: set[str] = set()
    if not gone.issuperset(ids):  # by records that were restored from a backup, or whose newest receipts were deleted
        noted = (each for each in noted_purges(beside) if each.subject not in gone and each.hash == receipt_hash(each))
        try:
            forgotten = _gone(noted, result)
        except LedgerBroken as error:  # what no note tells may stand in this one
            result.broken.append(str(error))
            return
    result.looked_at["receipts that only the notes beside the lake have"] = len(forgotten)
    gone |= forgotten
    result.broken += [f"batch {each} is past its day and has no receipt" for each in ids if each not in gone]


def _gone(told: Iterable[Receipt], result: Audit) -> set[str]:
    """The batches of the period that these receipts tell of."""
    gone: set[str] = set()
    for receipt in told:
        if receipt.kind is not Erased.BATCH:
            continue
        moment = received_at(BatchId(receipt.subject))
        age = receipt.last_deletion - moment
        if not result.since <= moment <= result.until:
            continue
        gone.add(receipt.subject)
        if age > PROMISED_LIFE:
            result.broken.append(f"batch {receipt.subject} was gone {age} after it was received")
        if receipt.remaining:
            result.broken.append(
                f"of batch {receipt.subject} {so_many(receipt.remaining, 'thing')} remained, says its receipt"
            )
    return gone


def _cleanups(connection: Connection, result: Audit) -> None:
    query = (
        select(cleanups.c.finished_at)
        .where(cleanups.c.faults == 0, cleanups.c.finished_at >= result.since, cleanups.c.finished_at <= result.until)
        .order_by(cleanups.c.finished_at)
    )
    moments = list(connection.execute(query).scalars())
    result.looked_at["good cleanups"] = len(moments)
    # The last gap is the one that still goes on: cleanups may have stopped.
    gaps = [(later - earlier).total_seconds() / 60 for earlier, later in pairwise([*moments, result.until])]
    result.longest_gap_minutes = max(gaps, default=None)


def _replay(connection: Connection) -> dict[str, _Grant]:
    """Who allowed what, out of the bare events."""
    grants: dict[str, _Grant] = {}
    rows = connection.execute(select(consent_events).order_by(consent_events.c.sequence)).mappings()
    for row in rows:
        if row["act"] == "granted":
            grants[row["grant_id"]] = _Grant(row["industry"], row["received_at"], None)
        elif row["act"] == "withdrawn" and row["grant_id"] in grants:
            given = grants[row["grant_id"]]
            grants[row["grant_id"]] = _Grant(given.industry, given.given_at, row["received_at"])
    return grants


def _copies(connection: Connection, result: Audit, grants: dict[str, _Grant], now: datetime) -> None:
    """No copy that somebody took holds, as far as the records know, what was withdrawn more than a day ago."""
    query = (
        select(pulled_grants.c.pull_id, pulled_grants.c.grant_id)
        .where(pulled_grants.c.rows > 0, pulled_grants.c.erased_at.is_(None))
        .order_by(pulled_grants.c.pull_id, pulled_grants.c.grant_id)
    )
    held = list(connection.execute(query))
    result.looked_at["copies taken of the lake, as the records know them"] = len({each.pull_id for each in held})
    for pull_id, grant_id in held:
        grant = grants.get(grant_id)
        if grant is None or (grant.ended_at is not None and now - grant.ended_at > PROMISED_LIFE):
            result.broken.append(f"copy {pull_id} still holds images of {grant_id}, which ended more than a day ago")


def _transient(parts: Parts, result: Audit, now: datetime) -> None:
    """Nothing in the transient store is older than a day, and all of it lies in a batch."""
    count = 0
    for found in parts.transient.objects.walk(""):
        count += 1
        batch_id = parse_batch_id(found.key.split("/")[1]) if found.key.count("/") > 1 else None
        if batch_id is None:
            result.broken.append("something lies in the transient store outside any batch")
        elif now - received_at(batch_id) > PROMISED_LIFE:
            result.broken.append(f"something of batch {batch_id} is older than a day")
    result.looked_at["objects in the transient store"] = count


def _lake(parts: Parts, result: Audit, grants: dict[str, _Grant], now: datetime) -> None:
    """Every row of the lake has a grant that was live at receipt, and is live now or ended less than a day ago."""
    rows = leaving = 0
    held: dict[str, set[GrantId]] = {}
    for found in parts.lake.walk(""):
        place, since = place_of(found.key), made_from(found.key)
        if place is None or since is None:
            result.broken.append("something lies in the lake that is no candidate file")
            continue
        grant = grants.get(place.grant_id)
        if grant is None and may_be_of_a_newer_grant(found.key, now):
            continue
        if grant is None or grant.industry != place.industry:
            result.broken.append(f"a file lies in the lake under {place.grant_id}, no grant for {place.industry}")
        elif grant.ended_at is not None and now - grant.ended_at > PROMISED_LIFE:
            result.broken.append(f"a file lies in the lake under {place.grant_id} a day after it was withdrawn")
        elif grant.ended_at is not None:
            leaving += 1
        elif found.key.endswith(".parquet"):
            rows += _rows(parts, result, found.key, place.grant_id, grant, held)
        elif now - since > PROMISED_LIFE:
            result.broken.append(f"half a file lies in the lake under {place.grant_id}, a day after it was begun")
    _stamps(parts, result, held)
    result.looked_at["rows in the lake"] = rows
    result.looked_at["files in the lake that are still to be erased"] = leaving


def _stamps(parts: Parts, result: Audit, held: dict[str, set[GrantId]]) -> None:
    """Every batch that has rows in the lake was received under that very grant, as the records have it from then."""
    ids = sorted(held)
    for start in range(0, len(ids), _IN_ONE_QUERY):
        some = batches.c.batch_id.in_(ids[start : start + _IN_ONE_QUERY])
        with parts.records.reading() as connection:
            stamped = connection.execute(select(batches.c.batch_id, batches.c.grant_id).where(some)).all()
        for batch_id, grant_id in stamped:
            result.broken += [
                f"batch {batch_id} has rows in the lake under {each}, and was not received under that grant"
                for each in sorted(held[batch_id] - {grant_id})
            ]


def _rows(
    parts: Parts, result: Audit, key: str, grant_id: GrantId, grant: _Grant, held: dict[str, set[GrantId]]
) -> int:
    """How many rows a file holds, each received after its grant was given. `held`: adds whose they are."""
    try:
        data = parts.lake.read(key)
    except NotFound:
        return 0  # erased, or merged into another, since it was listed
    try:
        frame = fastparquet.ParquetFile(io.BytesIO(data)).to_pandas(columns=["received_at", "batch_id"])
    except Exception as error:  # noqa: BLE001 - the reader has many errors of its own for damaged bytes
        result.broken.append(f"a file under {grant_id} cannot be read ({type(error).__name__})")
        return 0
    for moment in frame["received_at"].drop_duplicates():
        received = moment.to_pydatetime()
        received = received if received.tzinfo else received.replace(tzinfo=UTC)
        if received < grant.given_at:
            result.broken.append(f"a row under {grant_id} was received before that grant was given")
    for batch_id in frame["batch_id"].drop_duplicates():
        held.setdefault(batch_id, set()).add(grant_id)
    return len(frame)
