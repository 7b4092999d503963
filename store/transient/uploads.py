"""Uploads of an open batch: whole ones, and resumable ones in parts. All of it lies in the transient store.

    <batch>/upload/<token>.json        the photo's path and announced size, and its own options
    <batch>/upload/<token>/000000000000-000004194304   a part of a resumable upload, named by where it begins and ends
    <batch>/source/<token>             the bytes, once they are complete

A token is a keyed hash of the photo's path under a key of the batch, which the records forget when the batch is sealed.
The same path is the same upload, so sending a photo twice replaces it; no name stands in any key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from schemas.batch import Item, Stamp, can_be_kept
from schemas.counting import so_many
from schemas.errors import NotFound, UserError, WrongOffset, WrongState
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.record import Record
from store.objects.storage import Kind
from store.transient.transient_store import UPLOAD, TransientStore, batch_prefix, uploaded_key

_READERS = 16
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what a web server makes of bytes that are no UTF-8: of two names, one


class Announced(Record):
    """What is to come, or has come, under a token. `size` in bytes; `metadata`: as the client of an upload put it."""

    path: str
    size: int
    options: CutoutOptions | None = None
    metadata: str = ""


def token_of(upload_key: str, path: str) -> str:
    """Names the upload of a path; says nothing about it without the key."""
    return hmac.new(bytes.fromhex(upload_key), path.encode(), hashlib.sha256).hexdigest()[:32]


class Uploads:
    """The uploads of one open batch."""

    def __init__(self, transient: TransientStore, stamp: Stamp, most_bytes: int) -> None:
        self._transient = transient
        self._stamp = stamp
        self._most_bytes = most_bytes
        self._folder = f"{batch_prefix(stamp.batch_id)}/upload"

    def put(self, token: str, photo: Announced, data: bytes) -> None:
        """A whole photo at once. One over the limit is noted without its bytes and gets its own result later."""
        self.announce(token, photo)
        if photo.size <= self._most_bytes:
            self._transient.write(self._stamp, uploaded_key(self._stamp.batch_id, token), data)

    def announce(self, token: str, photo: Announced) -> None:
        """Note what is to come. Raises `UserError` for a path that cannot be."""
        if not can_be_kept(photo.path) or _UNREADABLE in photo.path:
            raise UserError(
                "A photo's path is relative, in UTF-8, with forward slashes, without `..`, empty parts or control "
                "characters."
            )
        self._transient.write(self._stamp, f"{self._folder}/{token}.json", photo.model_dump_json().encode())

    def announce_again(self, token: str, photo: Announced) -> int:
        """Announce a photo that is not empty, or go on with one of the same path and size; returns where it stands."""
        try:
            if self.announced(token).model_copy(update={"metadata": photo.metadata}) == photo:
                return self.offset(token)
        except NotFound:
            pass
        else:
            self.remove(token)
        self.announce(token, photo)
        return 0

    def announced(self, token: str) -> Announced:
        """What was announced under a token. Raises `NotFound`."""
        return Announced.model_validate_json(self._transient.read(f"{self._folder}/{token}.json"))

    def offset(self, token: str) -> int:
        """Where it stands; one over the limit is through at once, as its bytes are not kept. Raises `NotFound`."""
        photo = self.announced(token)
        return photo.size if self._is_whole(token, photo) else self._stands(token, photo)

    def append(self, token: str, offset: int, data: bytes) -> int:
        """Add a part that begins at `offset`; returns where the upload stands then. Raises `WrongOffset`."""
        photo, stands = self.announced(token), self.offset(token)
        if offset != stands or offset + len(data) > photo.size:
            raise WrongOffset(f"The upload stands at byte {stands}. Ask for the offset again and go on from there.")
        if not data:
            return stands
        if offset + len(data) < photo.size:
            part = f"{self._folder}/{token}/{offset:012d}-{offset + len(data):012d}"
            self._transient.write(self._stamp, part, data)
            return offset + len(data)
        whole = self._joined(token, offset) + data
        if len(whole) != photo.size:
            raise WrongOffset("Another request has changed the upload. Ask for the offset again and go on from there.")
        self._transient.write(self._stamp, uploaded_key(self._stamp.batch_id, token), whole)
        self._transient.objects.delete_folder(f"{self._folder}/{token}")
        return photo.size

    def remove(self, token: str) -> None:
        """Take an upload back, whatever has come of it. Raises `NotFound`."""
        self.announced(token)
        keys = [f"{self._folder}/{token}.json", uploaded_key(self._stamp.batch_id, token)]
        self._transient.objects.delete(keys)
        self._transient.objects.delete_folder(f"{self._folder}/{token}")

    def items(self) -> tuple[Item, ...]:
        """All uploads as items, in order of their paths. Raises `WrongState` when one is not complete."""
        have, photos = self._complete(), dict(self._announced(self._tokens()))
        missing = [
            token for token, photo in photos.items() if photo.size <= self._most_bytes and have.get(token) != photo.size
        ]
        if missing:
            raise WrongState(
                f"{len(missing):,} of {so_many(len(photos), 'photo')} {'is' if len(missing) == 1 else 'are'} not "
                "complete. Send what is missing, or take it out."
            )
        ordered = sorted(photos.items(), key=lambda pair: pair[1].path)
        return tuple(
            Item(number=number, path=photo.path, size=photo.size, source=f"{UPLOAD}{token}", options=photo.options)
            for number, (token, photo) in enumerate(ordered, start=1)
        )

    def standing(self, after: str, limit: int) -> list[tuple[str, Announced, int]]:
        """Token, photo and bytes that have come, of up to so many uploads whose tokens come after this one."""
        have, tokens = self._complete(), [token for token in self._tokens() if token > after][:limit]
        return [
            (token, photo, photo.size if photo.size in (have.get(token), 0) else self._stands(token, photo))
            for token, photo in self._announced(tokens)
        ]

    def _stands(self, token: str, photo: Announced) -> int:
        if photo.size > self._most_bytes:
            return photo.size
        parts = self._parts(token)
        return parts[-1][2] if parts else 0

    def _is_whole(self, token: str, photo: Announced) -> bool:
        """Whether the bytes are there; after a late writer of another photo of this path, they may be that one's."""
        try:
            return self._transient.objects.size(uploaded_key(self._stamp.batch_id, token)) == photo.size
        except NotFound:
            return False

    def _joined(self, token: str, most: int) -> bytes:
        """The first bytes, as far as they have come. Empty when another request has just joined them."""
        try:
            return b"".join(self._transient.read(key)[skipped:] for key, skipped, _ in self._parts(token))[:most]
        except NotFound:
            return b""

    def _complete(self) -> dict[str, int]:
        """Token -> size of what has come whole."""
        prefix = f"{batch_prefix(self._stamp.batch_id)}/source/"
        sizes: dict[str, int] = {}
        for found in self._transient.objects.walk(prefix.rstrip("/")):
            if found.kind is not Kind.UPLOAD:
                sizes.setdefault(found.key.removeprefix(prefix), found.size)  # of several versions the newest is first
        return sizes

    def _tokens(self) -> list[str]:
        names = self._transient.objects.files(self._folder)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]  # a partial write does not

    def _announced(self, tokens: list[str]) -> Iterator[tuple[str, Announced]]:
        with ThreadPoolExecutor(_READERS) as readers:
            yield from zip(tokens, readers.map(self.announced, tokens), strict=True)

    def _parts(self, token: str) -> list[tuple[str, int, int]]:
        """Key of each part, its bytes that came before, and where it ends; as far as they follow one another.

        A request that was cut and is written late may overlap those that the client sent instead of it.
        """
        found = []
        for each in self._transient.objects.walk(f"{self._folder}/{token}"):
            first, _, last = each.key.rpartition("/")[2].partition("-")
            if last.isdigit() and each.size == int(last) - int(first):  # unfinished writes are listed, too
                found.append((int(first), int(last), each.key))
        parts: list[tuple[str, int, int]] = []
        stands = 0
        for begin, end, key in sorted(found):
            if begin <= stands < end:
                parts.append((key, stands - begin, end))
                stands = end
        return parts


def require_open(batch_id: BatchId, upload_key: str | None) -> str:
    """The key of an open batch's uploads. Raises `WrongState`."""
    if upload_key is None:
        raise WrongState(f"Batch {batch_id} takes no more photos: it is sealed or was called off. Open another one.")
    return upload_key
