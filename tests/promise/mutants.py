"""Hand-made bugs, one for each rule that the promise rests on. The world must catch every one of them.

Each is a patch: where, and what stands there instead. `seed`: where to begin to look for a walk that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import flows.admission
import flows.reconciling
import flows.steps
import lake.erase
import store.purging.purge
from consent.gate import GateResult
from consent.ledger import live_grant
from consent.policy import Decision
from flows.admission import Admitted, Write
from flows.parts import Parts
from lake.erase import Reconciled
from schemas.batch import Stamp
from schemas.ids import BatchId
from store.objects.erase import Erasure
from store.objects.object_store import ObjectStore
from store.objects.storage import Kind, StoredObject
from store.purging.purge import Due, Look, Purge, PurgeReport
from store.records.batches import get_batch, mark_purged, overdue
from store.transient.transient_store import TransientStore, batch_prefix
from tests.promise.bucket import Bucket
from tests.promise.world import World


@dataclass(frozen=True)
class Mutant:
    """`rule`: what it breaks, in the words of the design."""

    rule: str
    place: object
    name: str
    bug: Callable[..., Any]
    seed: int = 0


_find = Bucket.find
_is_due, _sweep = store.purging.purge.is_due, Purge._erase
_run, _admit_outputs = Purge.run, flows.steps.admit_outputs


def _find_latest_only(self: Bucket, prefix: str) -> Iterator[StoredObject]:
    """What a plain listing shows; deleting such a key hides it behind a marker."""
    shown = {each.found for each in self.things if each.is_latest and each.found.kind is Kind.VERSION}
    uploads = {each.found for each in self.things if each.found.kind is Kind.UPLOAD}
    for found in _find(self, prefix):
        if found in shown:
            yield StoredObject(found.key, found.size)
        elif found in uploads:
            yield found


def _find_no_uploads(self: Bucket, prefix: str) -> Iterator[StoredObject]:
    return (found for found in _find(self, prefix) if found.kind is not Kind.UPLOAD)


def _count_from_birth(self: Purge) -> PurgeReport:
    """Each object dies 23 hours after its own birth."""
    bucket = self._objects.storage
    old = [each.found for each in bucket.things if each.born + self._purge_after <= self._now()]
    with suppress(OSError):
        bucket.remove(old)
    return self.report


def _trust_the_database(self: Purge) -> PurgeReport:
    """Only what the records know of is purged."""
    with self._records.transaction() as connection:
        due = overdue(connection, self._now())
    for batch_id in due:
        self._objects.delete_folder(batch_prefix(batch_id))
        with self._records.transaction() as connection:
            mark_purged(connection, [batch_id], self._now())
    return self.report


def _sweep_once(self: Purge, prefixes: Sequence[str], look: Look | None = None) -> None:
    """An hour that was swept is done with."""
    swept: set[str] = self._objects.storage.__dict__.setdefault("swept", set())
    fresh = [prefix for prefix in prefixes if prefix not in swept]
    swept.update(fresh)
    _sweep(self, fresh, look)


def _whole_hours_only(name: str, now: datetime, purge_after: timedelta) -> Due:
    due = _is_due(name, now, purge_after)
    return Due.NO if due is Due.PARTLY else due


def _an_hour_too_late(name: str, now: datetime, purge_after: timedelta) -> Due:
    return _is_due(name, now, purge_after + timedelta(hours=1, minutes=30))


def _everything_at_once(self: Purge, prefixes: Sequence[str], look: Look | None = None) -> None:
    """What is due is listed and deleted; so is what lives beside it."""
    _sweep(self, [prefix.partition("/")[0] for prefix in prefixes], None)


def _keep_strays(name: str, now: datetime, purge_after: timedelta) -> Due:
    return Due.NO if store.purging.purge.parse_hour(name) is None else _is_due(name, now, purge_after)


def _let_hours_ahead_live(name: str, now: datetime, purge_after: timedelta) -> Due:
    hour = store.purging.purge.parse_hour(name)
    return Due.NO if hour is not None and hour > now + store.purging.purge.AHEAD else _is_due(name, now, purge_after)


def _believe_the_store(self: ObjectStore, look: Any, before: Any = None, **_: Any) -> Erasure:
    """One request is enough: what it does not refuse is gone, and nobody looks again."""
    found = list(look())
    if before is not None:
        before(found)
    for start in range(0, len(found), self.storage.MOST_AT_ONCE):
        self.storage.remove(found[start : start + self.storage.MOST_AT_ONCE])
    return Erasure()


def _receipt_first(self: Purge) -> PurgeReport:
    """The receipt is written when the batch is due, the deletion comes later."""
    with self._records.transaction() as connection:
        due = overdue(connection, self._now())
    self._leave_some(due)
    return _run(self)


def _write_without_a_fence(self: TransientStore, stamp: Stamp, key: str, data: bytes) -> None:
    self.objects.write(key, data)


def _stamp_looks_later(parts: Parts, batch_id: BatchId, done: Set[int], write: Write) -> Admitted:
    """Whatever grant the account has when the batch is admitted will do, as if it had been stamped with it."""
    with parts.records.transaction() as connection:
        batch = get_batch(connection, batch_id)
        industry = batch.stamp.industry
        grant = live_grant(connection, batch.account_id, industry) if industry else None
    if grant is None:
        return Admitted(0, 0, {})
    stamped = batch.model_copy(update={"stamp": batch.stamp.model_copy(update={"grant_id": grant.grant_id})})
    with (
        patch.object(flows.admission, "get_batch", lambda *_: stamped),
        patch.object(flows.admission, "gate", lambda rows, *_: GateResult(rows, {})),
        patch.object(flows.admission, "confirm", lambda *_: Decision(None)),
    ):
        return _admit_outputs(parts, batch_id, done, write)


def _no_reconcile(parts: object) -> Reconciled:
    return Reconciled(objects=0, strays=0, retired=0, receipts=())


def _no_ledger_no_matter(*_: object) -> int:
    """What the ledger does not know is left for somebody to look at."""
    return 0


def _readers_do_not_ask(self: World) -> list[object]:
    return [each.grant_id for each in self.batches if each.grant_id]


MUTANTS = [
    Mutant("versions and markers are objects too", Bucket, "find", _find_latest_only),
    Mutant("unfinished uploads are objects too", Bucket, "find", _find_no_uploads, 90),
    Mutant("the deadline counts from receipt, not from each object's birth", Purge, "run", _count_from_birth),
    Mutant("purging needs no bookkeeping", Purge, "run", _trust_the_database, 3),
    Mutant("expired hours are swept again", Purge, "_erase", _sweep_once, 65),
    Mutant("a batch goes by its own age, not by its hour's end", store.purging.purge, "is_due", _whole_hours_only, 16),
    Mutant("purge time leaves room before the deadline", store.purging.purge, "is_due", _an_hour_too_late, 3),
    Mutant("what is not due stays", Purge, "_erase", _everything_at_once, 23),
    Mutant("strays go too", store.purging.purge, "is_due", _keep_strays, 7),
    Mutant("an hour that lies ahead is none of ours", store.purging.purge, "is_due", _let_hours_ahead_live, 6),
    Mutant("absence is verified by listing again", ObjectStore, "erase", _believe_the_store, 3),
    Mutant("a receipt follows the deletion", Purge, "run", _receipt_first, 16),
    Mutant("late writers are fenced", TransientStore, "write", _write_without_a_fence, 9),
    Mutant("the grant is the one that was live at receipt", flows.steps, "admit_outputs", _stamp_looks_later, 2),
    Mutant("the lake is compared with the ledger on every run", flows.reconciling, "reconcile", _no_reconcile, 3),
    Mutant("no grant in the ledger, no permission", lake.erase, "_sweep_unknown_grant", _no_ledger_no_matter, 3),
    Mutant("readers check too", World, "_live_grants", _readers_do_not_ask, 4),
]
