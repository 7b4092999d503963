"""Photos of an open batch as they come in, whole or in parts: under which key, how many, and how large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from portal.api.opening import WAIT, load_of
from portal.api.room import pieces_of
from portal.api.sender import Sender
from schemas.counting import so_many
from schemas.errors import LineTooLong, NotFound, StillAnswering
from store.records import line
from store.records.batches import BatchRecord
from store.transient.uploads import Announced, Uploads, require_open, token_of


def upload_key(sender: Sender, record: BatchRecord) -> str:
    """The key of an open batch's uploads. Raises `WrongState`, `StillAnswering` while the batch is being sealed."""
    with sender.portal.records.reading() as connection:
        known = line.find_submission(connection, record.stamp.batch_id)
    key = require_open(record.stamp.batch_id, known.upload_key if known else None)
    if known and known.lease_until and known.lease_until > sender.portal.clock():
        raise StillAnswering("The batch is being sealed just now. Ask again soon.")
    return key


def uploads_of(sender: Sender, record: BatchRecord) -> Uploads:
    """The uploads of a batch."""
    return Uploads(sender.portal.transient, record.stamp, sender.portal.settings.max_bytes)


def take_in(sender: Sender, record: BatchRecord, photo: Announced, data: bytes) -> tuple[str, int]:
    """A photo, whole or as far as its first part. The upload's token, and where it stands then.

    Raises `LineTooLong`, `UserError` for a path that cannot be, and as `upload_key` does.
    """
    token, uploads = token_of(upload_key(sender, record), photo.path), uploads_of(sender, record)
    with _counted(sender, record, token):
        if len(data) == photo.size or photo.size > sender.portal.settings.max_bytes:
            uploads.put(token, photo, data)  # the bytes of one over the limit need not come: it gets its own result
            stands = photo.size
        else:
            stands = uploads.announce_again(token, photo)
    if data and stands == 0:
        stands = uploads.append(token, 0, data)
    upload_key(sender, record)  # sealed meanwhile, the batch may not hold this photo: no 201 then
    return token, stands


@contextmanager
def _counted(sender: Sender, record: BatchRecord, token: str) -> Iterator[None]:
    """Announce a photo within this: one that was not there before counts. Raises `LineTooLong` when it is too many."""
    try:
        uploads_of(sender, record).announced(token)
    except NotFound:
        is_new = True
    else:
        is_new = False
    if is_new:
        own, _, most = load_of(sender)
        if own.items >= most:
            raise LineTooLong(
                f"The account has {so_many(own.items, 'photo')} under way, and may have {most:,}. Seal what is open or "
                "call it off, or wait until some are done.",
                WAIT,
            )
    yield
    if is_new:
        with sender.portal.records.transaction() as connection:
            line.count_uploads(connection, record.stamp.batch_id, 1)


def take_out(sender: Sender, record: BatchRecord, token: str) -> None:
    """Take a photo out of an open batch, whatever has come of it. Raises `NotFound`."""
    uploads_of(sender, record).remove(token)
    with sender.portal.records.transaction() as connection:
        line.count_uploads(connection, record.stamp.batch_id, -1)


async def read_body(request: Request, most: int) -> tuple[bytes, int]:
    """The body and its size. One over the limit is read to its end, and not kept. Raises as `pieces_of` does."""
    pieces, size = [], 0
    async for piece in pieces_of(request, most):
        size += len(piece)
        if size <= most:
            pieces.append(piece)
    return (b"".join(pieces) if size <= most else b""), size
