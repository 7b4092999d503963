"""Receiving a batch: stamped before its first byte, sealed when it is complete.

The stamp asks the ledger once whether a grant for the batch's industry is live now; nothing later can add one. From the
seal on the batch stands in line, and whoever works on it finds all that it needs in the stores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection

from consent.ledger import live_grant
from flows.cleaning import cleaning
from flows.lease import batch_renewed, renew_batch
from flows.parts import Parts
from schemas.batch import BatchState, Item, Manifest, Stamp, without_background
from schemas.counting import so_many
from schemas.errors import BadOptions, BatchNotSealed, NotFound, NothingToDo, StillAnswering
from schemas.ids import AccountId, BatchId, Randomness, new_batch_id, received_at
from schemas.industries import Industry
from schemas.left_out import LeftOut
from schemas.options import CutoutOptions
from store.purging.cleanup import admit_intake
from store.records import batches, line
from store.records.database import Records
from store.records.early_purge import life_of
from store.records.people import require_open
from store.spans import note_submit, span
from store.transient.backdrop import note_name, with_name
from store.transient.transient_store import TransientStore


def stamp_batch(
    parts: Parts,
    account_id: AccountId,
    industry: Industry | None,
    options: CutoutOptions,
    randomness: Randomness = os.urandom,
    due_at: datetime | None = None,
    takes_uploads: bool = False,
    note: Callable[[Connection, Stamp], None] = lambda connection, stamp: None,
) -> Stamp:
    """Open a batch: fix its times and its grant, once. The deadline counts from here.

    `note`: what else is to be recorded in the same transaction.

    Raises `NotFound` (account), `LedgerBroken`, `StoreFault`, `IntakeStopped` while what comes in might not be gone in
    time.
    """
    admit_intake(cleaning(parts, randomness), parts.settings)
    batch_id = new_batch_id(parts.clock(), randomness)
    stamp = Stamp(
        batch_id=batch_id,
        received_at=received_at(batch_id),
        purge_at=received_at(batch_id) + parts.settings.purge_after,
        industry=industry,
        grant_id=None,
        options=options,
    )
    note_name(parts.transient, stamp)  # before the transaction: the store may be slow, and others wait for their turn
    with parts.records.transaction() as connection:
        require_open(connection, account_id)
        grant = live_grant(connection, account_id, industry) if industry is not None else None
        life = life_of(connection, account_id, parts.settings.purge_after)
        found = {"purge_at": stamp.received_at + life, "grant_id": grant.grant_id if grant else None}
        stamp = stamp.model_copy(update=found)
        batches.open_batch(connection, stamp, account_id)
        upload_key = randomness(32).hex() if takes_uploads else None
        line.enter(connection, stamp.batch_id, account_id, upload_key, due_at)
        note(connection, stamp)
    note_submit(parts.settings, batch_id, stamp.received_at, parts.clock())
    return stamp


def seal(
    parts: Parts,
    stamp: Stamp,
    items: Sequence[Item],
    left_out: Mapping[LeftOut, int] | None = None,
    require: Callable[[Connection], None] = lambda connection: None,
) -> Manifest:
    """Declare the batch complete and put it in line. `left_out`: files of its source that are not in it.

    One that is sealed stays as it is: whoever stood still meanwhile may have listed other photos under these numbers.
    `require`: called in the transaction that puts it in line, raises what keeps it out.

    Raises `NothingToDo`, `BadOptions` when a background is not in the batch, `PastDeadline`, `StoreFault`.
    """
    stamp = with_name(parts.transient, stamp)
    require_complete(stamp.options, [(item.path, item.options) for item in items])
    manifest = Manifest(stamp=stamp, items=tuple(items))
    with parts.records.reading() as connection:
        known = batches.get_batch(connection, stamp.batch_id)
    if known.state is not BatchState.OPEN and known.counts.items:
        return manifest
    with span(parts.settings, stamp.batch_id, "seal", items=len(items)):
        name = parts.transient.keep_list(manifest)
        with parts.records.transaction() as connection:
            require(connection)
            line.stand_still(connection, stamp.batch_id)
            is_sealed = batches.seal(connection, stamp.batch_id, len(items), left_out)
            if is_sealed:
                line.make_ready(connection, stamp.batch_id, parts.clock(), name)
        if is_sealed:
            parts.transient.seal(manifest)  # who dies before: `sealed_manifest` does it
    return manifest


def sealed_manifest(records: Records, transient: TransientStore, batch_id: BatchId) -> Manifest:
    """The batch as the records say it was sealed, also while its manifest is not written yet, and never will be.

    Raises `BatchNotSealed`, `PastDeadline`, `StoreFault`.
    """
    try:
        return transient.manifest(batch_id)
    except BatchNotSealed:
        with records.reading() as connection:
            known, stands = batches.get_batch(connection, batch_id), line.find_submission(connection, batch_id)
        if stands is None or stands.sealed_with is None:
            raise
        with suppress(NotFound):  # it is purged
            transient.publish_list(known.stamp, stands.sealed_with)
        return transient.manifest(batch_id)


def seal_uploads(parts: Parts, stamp: Stamp, list_items: Callable[[], Sequence[Item]], randomness: Randomness) -> None:
    """Seal an open batch with what has come. Until that is listed and written it takes no photos, and no other seal.

    Raises `StillAnswering` while another request seals it, and as `list_items` and `seal` do: then it is open again.
    """
    batch_id, holder = stamp.batch_id, f"seal {randomness(8).hex()}"
    with parts.records.transaction() as connection:
        if not line.shut(connection, batch_id, holder, parts.clock()):
            raise StillAnswering("Another request seals the batch just now. Ask again soon.")
    try:
        with batch_renewed(parts, batch_id, holder):
            items = list_items()
            if not renew_batch(parts, batch_id, holder):
                raise StillAnswering("Another request seals the batch by now. Ask again soon.")
            seal(parts, stamp, items)
    finally:
        with parts.records.transaction() as connection:
            line.unshut(connection, batch_id, holder)


def require_complete(options: CutoutOptions, photos: Sequence[tuple[str, CutoutOptions | None]]) -> None:
    """Refuse what cannot be sealed, by path and own options. Asked before the stamp too, where they are known by then.

    Raises `NothingToDo`, `BadOptions`.
    """
    if not photos:
        raise NothingToDo("The batch holds no photo. Send some, then seal it.")
    if lack := without_background(options, photos):
        raise BadOptions(
            f"bg_image names a photo that is not in the batch, so {lack:,} of its {so_many(len(photos), 'photo')} "
            "could not be cut. Add that photo to the batch, or name another."
        )
