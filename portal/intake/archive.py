"""A zip file of photos. What it says of itself is not believed.

- A name that is absolute, has `..`, a drive, a backslash or a control character: the whole file is refused (zip slip).
- Entries that overlap, more entries or bytes than the limits, or more bytes than it announces: refused (bombs).
- Links, hidden files and what is no photo by name are left out and counted, as in a folder.
- The same name twice: refused. Names that differ in case or Unicode form alone: both kept; delivery keeps them apart.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flows.parts import Parts
from flows.receive import seal
from schemas.batch import Item, Manifest, Stamp, safe_path
from schemas.errors import BadArchive, NothingToDo
from schemas.naming import PHOTO_SUFFIXES
from store.transient import source_key

_PIECE = 1 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_MACHINERY = "__MACOSX/"


@dataclass(frozen=True)
class ArchiveLimits:
    """`entries`: in the file. `bytes`: of all photos together. `photo_bytes`: of one; a larger one is not unpacked."""

    photo_bytes: int
    entries: int = 100_000
    bytes: int = 100 * 10**9


class Archive:
    """The photos of a zip file, checked before the first is unpacked. Use it as a context."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._limits = limits
        self.left_out: Counter[str] = Counter()
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise BadArchive("That is no zip file, or a damaged one. Pack it again.") from None
        try:
            self.photos = self._checked(self._zip.infolist())
        except BadArchive:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self) -> Iterator[tuple[str, int, bytes | None]]:
        """Path, size and bytes of each photo, by path; None for one over the limit. Raises `BadArchive`."""
        for path, entry in self.photos.items():
            yield path, entry.file_size, self._unpack(entry) if entry.file_size <= self._limits.photo_bytes else None

    def _checked(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        if len(entries) > self._limits.entries:
            raise BadArchive(f"The zip file has more than {self._limits.entries} entries. Send it in several.")
        _refuse_overlaps(entries)
        photos: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            path = _checked_path(entry)
            if entry.is_dir():
                continue
            if entry.flag_bits & 1:
                raise BadArchive("The zip file is encrypted. Send it without a password.")
            reason = _why_not(entry, path)
            if reason is not None:
                self.left_out[reason] += 1
            elif path in photos:
                raise BadArchive("The zip file holds the same name twice. Pack it again.")
            else:
                photos[path] = entry
        if sum(entry.file_size for entry in photos.values()) > self._limits.bytes:
            raise BadArchive("The zip file unpacks to more than the limit. Send it in several.")
        if not photos:
            raise NothingToDo("There is no photo in that zip file.")
        return dict(sorted(photos.items()))

    def _unpack(self, entry: zipfile.ZipInfo) -> bytes:
        data = bytearray()
        try:
            with self._zip.open(entry) as stream:
                while piece := stream.read(_PIECE):
                    data += piece
                    if len(data) > entry.file_size:
                        raise BadArchive("An entry of the zip file is larger than it says. Pack it again.")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError):
            raise BadArchive("An entry of the zip file is damaged, or packed in an odd way. Pack it again.") from None
        return bytes(data)


def upload_archive(parts: Parts, stamp: Stamp, archive: Archive, on_item: Callable[[], None]) -> Manifest:
    """Unpack the photos into the transient store and seal the batch. Raises `BadArchive`, `PastDeadline`."""
    items: list[Item] = []
    for path, size, data in archive.read():
        number = len(items) + 1
        if data is not None:
            parts.transient.write(stamp, source_key(stamp.batch_id, number), data)
        items.append(Item(number=number, path=path, size=size))
        on_item()
    return seal(parts, stamp, items)


def _checked_path(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename
    try:
        if "\\" in name or _DRIVE.match(name):
            raise ValueError
        return safe_path(name.rstrip("/") if entry.is_dir() else name)
    except ValueError:
        raise BadArchive("The zip file holds a name that leaves its folder, or that no disk can hold.") from None


def _why_not(entry: zipfile.ZipInfo, path: str) -> str | None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "links"
    if path.startswith(_MACHINERY) or any(part.startswith(".") for part in path.split("/")):
        return "hidden files"
    suffix = PurePosixPath(path).suffix.lower()
    return None if suffix in PHOTO_SUFFIXES else suffix or "no suffix"


def _refuse_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Each entry has bytes of its own: a small file that unpacks to petabytes uses the same ones again and again."""
    end = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < end:
            raise BadArchive("Entries of the zip file overlap. Pack it again.")
        end = entry.header_offset + 30 + entry.compress_size
