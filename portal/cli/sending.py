"""Sending what is named: a folder, a photo, a zip file, a manifest, or a place. It is checked before it is stamped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from flows.calling_off import call_off
from flows.parts import Parts
from flows.receive import require_complete, seal, stamp_batch
from portal.cli.terminal import progress_bar, tell
from portal.intake.addresses import sources
from portal.intake.archive import Archive, ArchiveLimits, upload_archive
from portal.intake.copying import Copying
from portal.intake.folder import find_photos, one_photo, upload
from portal.intake.manifest import SUFFIXES, read_manifest
from portal.intake.place import items_in_place
from portal.intake.tally import Tally
from portal.intake.upload_manifest import upload_manifest
from schemas.batch import BatchState, Stamp
from schemas.errors import BadArchive, UserError
from schemas.ids import AccountId, BatchId
from schemas.industries import Industry
from schemas.naming import shown
from schemas.options import CutoutOptions
from store.outside.allowed import IN_PLACE
from store.records.batches import get_batch, hasten

_MOST_NAMES = 5


def send(
    parts: Parts, source: str, account_id: AccountId, industry: Industry | None, options: CutoutOptions
) -> BatchId:
    """Stamp, upload, seal; what lies in a place stays there. Raises `UserError` with what is wrong with the source."""
    if source.startswith(IN_PLACE):
        items, left_out = items_in_place(parts, account_id, source)
        require_complete(options, [(item.path, None) for item in items])
        stamp = stamp_batch(parts, account_id, industry, options)
        with _called_off_if_broken(parts, stamp):
            seal(parts, stamp, items, left_out.counts)
        _tell(left_out)
        return stamp.batch_id
    if "://" in source:
        raise UserError(
            "Photos at addresses are sent with a list of them: a CSV file with a column `url`, or a JSON array. A "
            "place whose photos are read there is s3://bucket/prefix or file:///folder."
        )
    return _upload(parts, Path(source), account_id, industry, options)


def _upload(
    parts: Parts, source: Path, account_id: AccountId, industry: Industry | None, options: CutoutOptions
) -> BatchId:
    source.stat()  # one that is not there is told as such
    kind = "" if source.is_dir() else source.suffix.lower()
    listed = found = None
    if kind in SUFFIXES:
        listed = read_manifest(source.read_bytes(), source.name, sources(parts, account_id), options)
    if listed is None and kind != ".zip":
        found = find_photos(source) if source.is_dir() else one_photo(source)
    left_out = found.left_out if found is not None else Tally()
    with _opened(source, parts.settings.max_bytes) if kind == ".zip" else nullcontext() as archive:
        paths = found.photos if found is not None else archive.photos if archive is not None else ()
        photos = [(each.path, each.options) for each in listed] if listed else [(path, None) for path in paths]
        require_complete(options, photos)
        stamp = stamp_batch(parts, account_id, industry, options)
        with _called_off_if_broken(parts, stamp), progress_bar("Uploading", len(photos)) as bar:
            copying = Copying(parts, stamp)
            if archive is not None:
                left_out = archive.left_out
                upload_archive(parts, stamp, archive, bar.advance)
                _tell_lost("Damaged in the zip file", [shown(path) for path in archive.damaged])
            elif listed is not None:
                upload_manifest(copying, listed, source.parent, bar.advance)
            elif found is not None:
                upload(copying, found.photos, bar.advance, left_out.counts)
            unread = [f"{shown(path)} ({why})" for path, why in sorted(copying.unread.items())]
            _tell_lost("Not to be read", unread)
    _tell(left_out)
    return stamp.batch_id


def _opened(source: Path, max_bytes: int) -> Archive:
    try:
        return Archive(source, ArchiveLimits(photo_bytes=max_bytes))
    except BadArchive as fault:
        if fault.entry:
            tell(f"The entry: {shown(fault.entry)}")
        raise


def _tell(left_out: Tally) -> None:
    if left_out.counts:
        inside = " What is in a zip file comes when that is submitted by itself." if left_out.zip_files else ""
        tell(f"Left out: {left_out}.{inside}")


def _tell_lost(why: str, photos: Sequence[str]) -> None:
    if photos:
        names = ", ".join(photos[:_MOST_NAMES])
        more = f" and {len(photos) - _MOST_NAMES} more" if len(photos) > _MOST_NAMES else ""
        tell(f"{why}, so that there is nothing to cut: {names}{more}.")


@contextmanager
def _called_off_if_broken(parts: Parts, stamp: Stamp) -> Iterator[None]:
    """A command sends from the start each time: nobody would go on with what one left half sent, or make room of it."""
    batch_id, now = stamp.batch_id, parts.clock()
    gone_by = f"It is gone by {stamp.purge_at:%Y-%m-%d %H:%M} UTC"
    try:
        yield
    except BaseException:
        told = f"Batch {batch_id} is called off, because it was not sent whole. The next cleanup deletes what came."
        try:
            with parts.records.transaction() as connection:
                if get_batch(connection, batch_id).state is BatchState.OPEN:
                    hasten(connection, batch_id, now)
                else:  # somebody may be at work on it
                    told = f"Batch {batch_id} came whole, and is called off. {gone_by}."
                call_off(connection, batch_id, now)
        except SQLAlchemyError:  # a full disk may hold both: what broke the upload is to be told
            told = (
                f"Batch {batch_id} was not sent whole, and the records do not take it that it is called off: "
                f"`bgbatch cancel {batch_id}` does so. {gone_by} in any case."
            )
        tell(told)
        raise
