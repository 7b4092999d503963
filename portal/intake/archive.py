"""A zip file of photos. What it says of itself is not believed.

- A name that is absolute, has `..`, a drive or a control character (zip slip), or is too long: the entry is left out,
  counted and told. Nothing is ever written under a name of the zip's. Backslashes, as old programs on Windows write
  them, are slashes.
- A photo that is damaged in the zip, or is more than it says: it gets its own result (`damaged_in_zip`).
- Entries that overlap, more entries or bytes than the limits: refused (bombs). So is a photo that is packed otherwise
  than with deflate: what Python unpacks of that at once has no limit.
- Links, hidden files and what is no photo by name are left out and counted, as in a folder.
- A name is in UTF-8 if its bytes are: a Mac writes them so and does not say it. Else it is in DOS's letters.
- The same name twice: refused. Names that differ in case or Unicode form alone: both kept; delivery keeps them apart.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.parts import Parts
from flows.receive import seal
from portal.intake.tally import Tally
from schemas.batch import DAMAGED_IN_ZIP, Item, Manifest, Stamp, safe_path
from schemas.errors import BadArchive, BgbatchError, NothingToDo
from schemas.left_out import LeftOut
from schemas.naming import has_photo_name
from store.parallel import all_in_parallel
from store.transient.transient_store import source_key

_PIECE = 1 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_MACHINERY = "__MACOSX/"
_SAYS_UTF8 = 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError)


@dataclass(frozen=True)
class ArchiveLimits:
    """`entries`: in the file. `bytes`: of all photos together. `photo_bytes`: of one; a larger one is not unpacked."""

    photo_bytes: int
    entries: int = 100_000
    bytes: int = 100 * 10**9


class Archive:
    """The photos of a zip file, checked before the first is unpacked. Use it as a context.

    `damaged`: paths of those that could not be unpacked, as far as they have been read.
    """

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self._limits = limits
        self.left_out = Tally()
        self.damaged: list[str] = []
        try:
            self._zip = zipfile.ZipFile(path)
        except PermissionError:  # packed again, it would be no better
            raise
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise BadArchive("That is no zip file, or a damaged one. Pack it again.") from None
        try:
            self.photos = self._checked(self._zip.infolist())
        except BgbatchError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self) -> Iterator[tuple[str, int, bytes | None]]:
        """Path, size and bytes of each photo, by path; None for one that is over the limit, or damaged in the zip."""
        for path, entry in self.photos.items():
            fits = entry.file_size <= self._limits.photo_bytes
            data = self._unpack(entry) if fits else None
            if fits and data is None:
                self.damaged.append(path)
            yield path, entry.file_size, data

    def _checked(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        if len(entries) > self._limits.entries:
            raise BadArchive(f"The zip file has more than {self._limits.entries} entries. Send it in several.")
        _refuse_overlaps(entries)
        photos: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if _is_folder(entry):
                continue
            if entry.flag_bits & 1:
                raise BadArchive("The zip file is encrypted. Send it without a password.")
            path = _path(entry)
            if path is None:
                self.left_out.leave_out(_name(entry), LeftOut.BAD_NAME)
            elif (reason := _why_not(entry, path)) is not None:
                self.left_out.leave_out(path, reason)
            elif path in photos:
                raise BadArchive("The zip file holds the same name twice. Pack it again.", entry=path)
            elif entry.compress_type not in _METHODS:
                raise BadArchive("A photo in the zip file is not packed with deflate. Pack it again so.", entry=path)
            else:
                photos[path] = entry
        if sum(entry.file_size for entry in photos.values()) > self._limits.bytes:
            raise BadArchive("The zip file unpacks to more than the limit. Send it in several.")
        if not photos:
            raise NothingToDo(f"There is no photo in that zip file.{self.left_out.instead()}")
        return dict(sorted(photos.items()))

    def _unpack(self, entry: zipfile.ZipInfo) -> bytes | None:
        try:
            with self._zip.open(entry) as stream:  # piece by piece, it gives no more than the size that is said
                return b"".join(iter(lambda: stream.read(_PIECE), b""))
        except _DAMAGED:
            return None


def upload_archive(parts: Parts, stamp: Stamp, archive: Archive, on_item: Callable[[], None]) -> Manifest:
    """Unpack the photos into the transient store and seal the batch. Raises `PastDeadline`, `BadArchive`."""

    def unpacked() -> Iterator[tuple[Item, bytes | None]]:
        for number, (path, size, data) in enumerate(archive.read(), start=1):
            source = DAMAGED_IN_ZIP if path in archive.damaged[-1:] else ""
            yield Item(number=number, path=path, size=size, source=source), data

    def kept(both: tuple[Item, bytes | None]) -> Item:
        item, data = both
        if data is not None:
            parts.transient.write(stamp, source_key(stamp.batch_id, item.number), data)
        return item

    items = all_in_parallel(parts.transient.objects.storage.AT_ONCE, kept, unpacked(), on_item)
    if stamp.options.bg_image in archive.damaged:  # else each of the others would be told that it is damaged
        raise BadArchive(
            "The photo that bg_image names is damaged in the zip file. Pack it again from the original, and send that."
        )
    return seal(parts, stamp, items, archive.left_out.counts)


def _name(entry: zipfile.ZipInfo) -> str:
    """What it is called there, as whoever packed it meant it."""
    name = entry.orig_filename
    if entry.flag_bits & _SAYS_UTF8:
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    name = entry.orig_filename
    return name.endswith("/") or (name.endswith("\\") and entry.file_size == 0)


def _path(entry: zipfile.ZipInfo) -> str | None:
    name = _name(entry)
    try:
        return None if _DRIVE.match(name) else safe_path(name)
    except ValueError:
        return None


def _why_not(entry: zipfile.ZipInfo, path: str) -> LeftOut | None:
    if stat.S_ISLNK(entry.external_attr >> 16):
        return LeftOut.LINK
    if path.startswith(_MACHINERY) or any(part.startswith(".") for part in path.split("/")):
        return LeftOut.HIDDEN
    return None if has_photo_name(path) else LeftOut.NOT_A_PHOTO


def _refuse_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    """Each entry has bytes of its own: a small file that unpacks to petabytes uses the same ones again and again."""
    end = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < end:
            raise BadArchive("Entries of the zip file overlap. Pack it again.")
        end = entry.header_offset + 30 + entry.compress_size
