"""Opening a batch over REST: once for each Idempotency-Key, and only while not too much is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from flows.receive import require_complete, seal, stamp_batch
from portal.api.sender import Sender
from portal.api.shapes import NewBatch
from portal.intake.addresses import items_of_addresses
from portal.intake.place import items_in_place
from schemas.batch import BatchState, Item, Stamp
from schemas.counting import so_many
from schemas.errors import BgbatchError, LineTooLong, StillAnswering, UserError
from schemas.ids import BatchId
from schemas.left_out import LeftOut
from store.records import idempotency, line
from store.records.idempotency import Asked, begin
from store.records.shares import find_share

Note = Callable[[Connection, Stamp], None]
WAIT = 30
"""Seconds after which somebody whose line was too long may ask again."""


def open_once(sender: Sender, key: str | None, body: bytes, wanted: NewBatch) -> dict[str, object]:
    """The answer. `key`: with the same one, the same `body` gets the same answer for a day.

    Raises `KeyReused`, `StillAnswering`, `LineTooLong`, `IntakeStopped`, `UserError`.
    """
    if key is None:
        return _answer(sender, _open(sender, wanted))
    account_id, records, now = sender.account_id, sender.portal.records, sender.portal.clock()
    with records.transaction() as connection:
        asked = idempotency.find(connection, account_id, key, body, now)
    if asked is not None and asked.status is not None:
        return asked.answer
    is_ours = asked is not None

    def note(connection: Connection, stamp: Stamp) -> None:
        nonlocal is_ours
        begin(connection, account_id, key, body, stamp.batch_id, now)
        is_ours = True

    try:
        batch_id = _open(sender, wanted, note) if asked is None else _go_on(sender, wanted, asked, now)
    except StillAnswering:
        raise
    except BgbatchError as error:
        if not is_ours:  # if the key is known by now, its twin that was quicker has it
            raise
        with records.transaction() as connection:
            if error.fault == "user":
                idempotency.forget(connection, account_id, key)
            else:
                idempotency.let_go(connection, account_id, key, now)
        raise
    answer = _answer(sender, batch_id)
    with records.transaction() as connection:
        idempotency.finish(connection, account_id, key, 201, answer)
    return answer


def load_of(sender: Sender) -> tuple[line.Load, int, int]:
    """What the account has under way, and how many batches and photos it may have."""
    with sender.portal.records.reading() as connection:
        own = line.load_of(connection, sender.portal.clock(), sender.account_id)
        share = find_share(connection, sender.account_id)
    return own, *share.limits(sender.portal.settings)


def _open(sender: Sender, wanted: NewBatch, note: Note | None = None) -> BatchId:
    """`note`: notes the key by which the same request goes on with the batch if this one fails."""
    if wanted.items is not None and wanted.source is not None:
        raise UserError("Give items or a source, not both.")
    _check_line(sender)
    items, left_out = _items(sender, wanted)
    if items is not None:
        require_complete(wanted.options, [(item.path, item.options) for item in items])
    stamp = stamp_batch(
        sender.parts,
        sender.account_id,
        wanted.industry,
        wanted.options,
        sender.portal.randomness,
        due_at=wanted.due_at,
        takes_uploads=items is None,
        note=note or (lambda connection, stamp: None),
    )
    if items is not None:
        try:
            seal(sender.parts, stamp, items, left_out)
        except BgbatchError:
            if note is None:  # nobody is told of the batch, and it would count among those under way
                with sender.portal.records.transaction() as connection:
                    line.ask_to_stop(connection, stamp.batch_id, sender.portal.clock())
            raise
    return stamp.batch_id


def _go_on(sender: Sender, wanted: NewBatch, asked: Asked, now: datetime) -> BatchId:
    """With a request whose process died, or is still at it. Raises `StillAnswering`."""
    record = sender.batch(asked.batch_id)
    if record.state is BatchState.OPEN and (wanted.items is not None or wanted.source is not None):
        if asked.may_be_under_way(now):
            raise StillAnswering("The first request with this Idempotency-Key may be under way. Ask again soon.")
        items, left_out = _items(sender, wanted)
        seal(sender.parts, record.stamp, items or (), left_out)
    return record.stamp.batch_id


def _items(sender: Sender, wanted: NewBatch) -> tuple[list[Item] | None, Mapping[LeftOut, int]]:
    """Photos that the request itself names, None when they are to be uploaded; and what of its source is left out."""
    if wanted.items is not None:
        return items_of_addresses(sender.parts, sender.account_id, wanted.items), {}
    if wanted.source is not None:
        items, tally = items_in_place(sender.parts, sender.account_id, wanted.source)
        return items, tally.counts
    return None, {}


def _answer(sender: Sender, batch_id: BatchId) -> dict[str, object]:
    return sender.answer(batch_id).model_dump(mode="json")


def _check_line(sender: Sender) -> None:
    """Back-pressure: whoever has too much waiting sends no more for now. Raises `LineTooLong`."""
    own, most_batches, most_items = load_of(sender)
    with sender.portal.records.reading() as connection:
        everybody = line.load_of(connection, sender.portal.clock())
    if own.batches >= most_batches or own.items >= most_items:
        raise LineTooLong(
            f"The account has {so_many(own.batches, 'batch')} with {so_many(own.items, 'photo')} under way, and may "
            f"have {most_batches:,} with {most_items:,}. Wait until some are done, or call some off.",
            WAIT,
        )
    if everybody.items >= sender.portal.settings.line_items:
        raise LineTooLong("So much is waiting that nothing more is taken in for now. Nothing was lost.", 2 * WAIT)
