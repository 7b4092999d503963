"""Our own synthetic batches, to see that nothing stays: each carries a marker that follows from its id.

The marker is kept nowhere, so whatever is found of it after the deadline is a copy that should not be. It is in the
file's name, in its metadata and in its pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image, PngImagePlugin
from sqlalchemy import Connection, insert, select, update

from schemas.ids import AccountId, BatchId, received_at
from store.objects.object_store import ObjectStore
from store.purging.file_search import files_with
from store.purging.places import SHARED_MEMORY, Place
from store.records.tables import accounts, admissions, canaries
from store.transient.transient_store import batch_prefix

ACCOUNT = AccountId("a" + hashlib.sha256(b"bgbatch canary").hexdigest()[:32])
"""Nobody can sign in to it, so nobody can press its button."""
SIZE = 64
LOOKED_FOR = timedelta(days=1)
"""So long after its purge a canary is looked for that was found, or never looked for: later ones stand for it then."""
_BY_ALL = timedelta(hours=1)
"""So long each cleanup looks for it, for each sees other folders: its own container's."""

_CLOCKS = timedelta(hours=1)
"""How far two machines' clocks may differ, with much to spare. Files that have not changed since a canary was sent
hold nothing of it and are not read: else all that lies on the machine would hold up the next cleanup.
"""

_ON = " on "


def marker(batch_id: BatchId) -> bytes:
    """32 hex digits that stand nowhere but in this canary."""
    return hashlib.sha256(f"bgbatch canary {batch_id}".encode()).hexdigest()[:32].encode()


def pixel_block(batch_id: BatchId) -> bytes:
    """Three rows of the photo as they lie in memory, RGB."""
    return _pixels(batch_id)[: SIZE * 3 * 3]


def needles(batch_id: BatchId) -> tuple[bytes, ...]:
    """What to look for: marker (name and metadata) and a pixel block."""
    return marker(batch_id), pixel_block(batch_id)


def photo(batch_id: BatchId) -> tuple[str, bytes]:
    """The canary's file name and file: a PNG that decodes to the pixels, with the marker as its comment."""
    word = marker(batch_id).decode()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", word)
    file = io.BytesIO()
    Image.frombytes("RGB", (SIZE, SIZE), _pixels(batch_id)).save(file, "PNG", pnginfo=notes)
    return f"canary/{word}.png", file.getvalue()


def ensure_account(connection: Connection, now: datetime) -> None:
    """The account that canaries belong to. It has no people."""
    if connection.execute(select(accounts.c.account_id).where(accounts.c.account_id == ACCOUNT)).first() is None:
        connection.execute(insert(accounts).values(account_id=ACCOUNT, name="canary of bgbatch", created_at=now))


def remember(connection: Connection, batch_id: BatchId, purge_at: datetime) -> None:
    """Note that this batch is a canary."""
    connection.execute(insert(canaries).values(batch_id=batch_id, purge_at=purge_at, found_in=[]))


def to_look_for(connection: Connection, now: datetime, after: timedelta) -> list[BatchId]:
    """Canaries whose purge time passed at least `after` ago.

    Those of the last hour, whoever has looked for them; of earlier ones those that nobody did, or that were found.
    """
    due, by_all = now - after, now - after - _BY_ALL
    query = select(canaries).where(canaries.c.purge_at <= due, canaries.c.purge_at > now - LOOKED_FOR)
    return [
        BatchId(each.batch_id)
        for each in connection.execute(query)
        if each.purge_at > by_all or each.checked_at is None or each.found_in
    ]


def admitted(connection: Connection, batch_ids: Sequence[BatchId]) -> set[BatchId]:
    """Those of which a file was ever admitted to the lake: once merged, it has another name."""
    query = select(admissions.c.batch_id).where(admissions.c.batch_id.in_(batch_ids))
    return set(map(BatchId, connection.execute(query).scalars()))


def look(
    batch_ids: Sequence[BatchId], transient: ObjectStore, lake: ObjectStore, places: Sequence[Place], machine: str
) -> dict[BatchId, list[str]]:
    """Names of the places in which anything of each canary is; `… on <machine>` where another machine sees others.

    By its path among the photos that may be there, so that none of them is read; by reading local files elsewhere.
    """
    found: dict[BatchId, list[str]] = {each: [] for each in batch_ids}
    for batch_id in batch_ids:
        if next(transient.walk(batch_prefix(batch_id)), None) is not None:
            found[batch_id].append("transient store")
    keys = (each.key for each in lake.walk("")) if batch_ids else ()
    in_lake = {batch_id for key in keys for batch_id in batch_ids if batch_id in key}
    for batch_id in in_lake:
        found[batch_id].append("lake")
    wanted = {batch_id: needles(batch_id) for batch_id in batch_ids}
    everything = [needle for each in wanted.values() for needle in each]
    sent = min((received_at(each).timestamp() for each in batch_ids), default=0.0) - _CLOCKS.total_seconds()
    for place in [each for each in places if not each.is_listed] if everything else ():
        name = f"{place.name}{_ON}{machine}"
        since = 0.0 if SHARED_MEMORY in place.folders else sent  # what is mapped there changes without a trace
        for path in files_with(everything, filter(Path.exists, place.folders), _of_others(place, places), since):
            for batch_id, each in wanted.items():
                if name not in found[batch_id] and next(files_with(each, [path]), None) is not None:
                    found[batch_id].append(name)
    return found


def note_look(connection: Connection, found: dict[BatchId, list[str]], machine: str, now: datetime) -> None:
    """Record what was found of each. What another machine found on itself stays: this one cannot see it."""
    query = select(canaries).where(canaries.c.batch_id.in_(found)).with_for_update()
    for row in connection.execute(query).all():
        of_others = [each for each in row.found_in if _ON in each and not each.endswith(f"{_ON}{machine}")]
        names = found[BatchId(row.batch_id)] + of_others
        this = canaries.c.batch_id == row.batch_id
        connection.execute(update(canaries).where(this).values(checked_at=now, found_in=names))


def _of_others(place: Place, places: Sequence[Place]) -> list[Path]:
    """Folders inside this place that are places of their own: they are looked into once, under their own name."""
    return [folder for other in places if other is not place for folder in other.folders]


def _pixels(batch_id: BatchId) -> bytes:
    seed = f"bgbatch canary pixels {batch_id}".encode()
    return hashlib.shake_256(seed).digest(SIZE * SIZE * 3)
