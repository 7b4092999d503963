"""What of a place is new, has changed, or is gone since it was last done. Pure: a listing and fingerprints in.

Cutouts are named over the whole listing, not over what is left to do: else `a.heic`, alone tonight, would be written
over the cutout that `a.jpg` got last night. The name is part of the fingerprint, so a photo whose cutout is
called otherwise from now on counts as changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.batch import can_be_kept
from schemas.left_out import LeftOut
from schemas.naming import has_photo_name, lasting_paths
from store.outside.listing import OutsideFile
from store.records.fingerprints import content_hmac, path_hmac


@dataclass(frozen=True)
class Photo:
    """A photo to do. `name`: of its cutout. The hashes are its fingerprint."""

    path: str
    size: int
    name: str
    path_hmac: str
    content_hmac: str


@dataclass(frozen=True)
class Changes:
    """What a look at a place found. `deleted`: hashes of paths. `left_out`: files that are no photos, by reason."""

    new: tuple[Photo, ...]
    changed: tuple[Photo, ...]
    skipped: int
    deleted: frozenset[str]
    left_out: Mapping[LeftOut, int]

    @property
    def found(self) -> int:
        """How many photos there are."""
        return len(self.new) + len(self.changed) + self.skipped

    @property
    def todo(self) -> tuple[Photo, ...]:
        """What is to be done, in order of the paths."""
        return tuple(sorted((*self.new, *self.changed), key=lambda photo: photo.path))


def compare(listing: Iterable[OutsideFile], key: str, known: Mapping[str, str], suffix: str) -> Changes:
    """Compare a listing with fingerprints (path's hash -> content's hash). `suffix`: of the cutouts, with its dot."""
    photos, left_out = photos_in(listing)
    names = lasting_paths((each.path for each in photos), suffix)
    new, changed, skipped, seen = [], [], 0, set()
    for each in photos:
        name = names[each.path]
        photo = Photo(
            each.path,
            each.size,
            name,
            path_hmac(key, each.path),
            content_hmac(key, each.size, each.version, name),
        )
        seen.add(photo.path_hmac)
        before = known.get(photo.path_hmac)
        if before is None:
            new.append(photo)
        elif before != photo.content_hmac:
            changed.append(photo)
        else:
            skipped += 1
    return Changes(tuple(new), tuple(changed), skipped, frozenset(known) - seen, left_out)


def photos_in(listing: Iterable[OutsideFile]) -> tuple[list[OutsideFile], Counter[LeftOut]]:
    """The photos of a listing, by path, and how many files were left out and why."""
    photos: dict[str, OutsideFile] = {}
    left_out: Counter[LeftOut] = Counter()
    for each in listing:
        if not has_photo_name(each.path):
            left_out[LeftOut.NOT_A_PHOTO] += 1
        elif not can_be_kept(each.path):
            left_out[LeftOut.BAD_NAME] += 1
        else:
            photos[each.path] = each
    return [photos[path] for path in sorted(photos)], left_out
