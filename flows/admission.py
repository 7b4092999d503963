"""From outputs to candidates: the gate picks rows, workers write files, a transaction admits each file.

The order makes a crash harmless: an object without an admission is read by nobody and erased by the next reconcile.
A file is named for its bytes, so a write of an earlier try that comes late changes no admitted file; and who has lost
the batch's lease admits nothing more, so one worker alone says which file is its batch's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from sqlalchemy import Connection

from consent.gate import confirm, gate
from consent.ledger import find_grant
from consent.policy import LedgerUnreadable
from flows.lease import batch_fenced, require_lease
from flows.parts import Parts
from lake.admission import Seen, admit, discard, look
from lake.layout import Place, place_of
from lake.write import CandidateFacts, LakeFile
from schemas.batch import Stamp
from schemas.consent import Grant
from schemas.errors import LedgerBroken, NotFound, StoreFault
from schemas.ids import BatchId
from schemas.results import Done, results_by_number
from store.records.batches import BatchRecord, get_batch, set_refusals

FILE_ITEMS = 50
"""Candidates in one lake file: what one writer holds in memory. `bgbatch lake compact` merges them."""

Portion = tuple[CandidateFacts, ...]
Write = Callable[[Sequence[Portion], datetime], Iterator[LakeFile]]
"""Writes each portion as one lake file that says when it was admitted.

On Ray in the flow, so that no image passes through the flow's process.
"""


@dataclass(frozen=True)
class Admitted:
    """What came of it. `refusals`: reason of the gate -> outputs kept out."""

    rows: int
    files: int
    refusals: dict[str, int]


def admit_outputs(parts: Parts, batch_id: BatchId, done: Set[int], write: Write) -> Admitted:
    """Gate the outputs of a batch that are not in the lake yet; write and admit what may go in.

    Which grant there was at receipt the records say, where workers cannot write; the manifest is not asked. All that is
    known of the outputs fills the memory where they are many: it is read only if some may go in. Raises `LeaseLost`,
    `StoreFault`, `NotFound` for a batch that the records do not know, or that is being purged.
    """
    with parts.records.reading() as connection:
        batch = get_batch(connection, batch_id)
        stamp = batch.stamp
        seen = look(connection, batch_id)
        grants = _grants(connection, batch)
    split = gate(_rows(stamp, sorted(done - seen.items)), grants, parts.clock())
    refusals = Counter({reason.value: count for reason, count in split.refusals.items()})
    rows = files = 0
    if numbers := split.admitted["item"].to_pylist():
        results = results_by_number(parts.transient.reports(batch_id))
        outputs = {number: result for number in done if isinstance(result := results.get(number), Done)}
        if len(outputs) < len(done):  # the purge came since they were counted
            raise NotFound("The batch is being purged. Nothing more of it goes into the lake.")
        facts = [_facts(stamp, outputs[number]) for number in numbers]
        portions = [tuple(facts[start : start + FILE_ITEMS]) for start in range(0, len(facts), FILE_ITEMS)]
        admitted_at = max(each.finished_at for each in outputs.values())  # of each try the same, so that its files are
        for file in write(portions, admitted_at):
            reason = _admit(parts, stamp, file, seen)
            if reason is None:
                rows, files = rows + file.rows, files + 1
            else:
                refusals[reason] += file.rows
                with parts.records.transaction() as connection:
                    discard(connection, file.key, parts.lake)
    with batch_fenced(parts, stamp.batch_id) as connection:
        set_refusals(connection, stamp.batch_id, refusals)
    return Admitted(rows, files, dict(refusals))


def _admit(parts: Parts, stamp: Stamp, file: LakeFile, seen: Seen) -> str | None:
    """Why the file may not stay, asked once more in the transaction that admits it; None when it was admitted."""
    place = place_of(file.key)
    if (file.batch_id, file.industry, file.grant_id) != (stamp.batch_id, stamp.industry, stamp.grant_id) or (
        place != Place(file.industry, file.grant_id)
    ):
        raise StoreFault("A worker wrote a candidate file for another permission than was asked. It was not admitted.")
    now = parts.clock()
    with parts.records.transaction() as connection:
        decision = confirm(connection, stamp.grant_id, stamp.industry, stamp.received_at, now)
        if decision.reason is not None:
            return decision.reason.value
        require_lease(connection, parts, stamp.batch_id)  # here: closing an account ends grants first, then its batches
        is_new = admit(connection, file, now, parts.lake, seen)
    if is_new:
        seen.take(file)
    return None


def _grants(connection: Connection, batch: BatchRecord) -> list[Grant] | LedgerUnreadable:
    """The batch's own, if it is its account's."""
    if batch.stamp.grant_id is None:
        return []
    try:
        grant = find_grant(connection, batch.stamp.grant_id)
    except LedgerBroken:
        return LedgerUnreadable()
    return [grant] if grant is not None and grant.account_id == batch.account_id else []


def _rows(stamp: Stamp, numbers: list[int]) -> pa.Table:
    count = len(numbers)
    return pa.table(
        {
            "batch_id": pa.array([stamp.batch_id] * count, pa.string()),
            "item": pa.array(numbers, pa.int32()),
            "received_at": pa.array([stamp.received_at] * count, pa.timestamp("us", tz="UTC")),
            "industry": pa.array([stamp.industry] * count, pa.string()),
            "grant_id": pa.array([stamp.grant_id] * count, pa.string()),
        }
    )


def _facts(stamp: Stamp, result: Done) -> CandidateFacts:
    if stamp.industry is None or stamp.grant_id is None:
        raise LedgerBroken("The gate let an output through that has no grant. Nothing was written.")
    return CandidateFacts(
        batch_id=stamp.batch_id,
        item=result.number,
        received_at=stamp.received_at,
        industry=stamp.industry,
        grant_id=stamp.grant_id,
        network=result.network,
        weights_sha256=result.weights_sha256,
        device=result.device,
        scores=result.scores,
        source_sha256=result.source_sha256,
    )
