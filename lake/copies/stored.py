"""What a copy says of itself, as it stands beside the copy's files: read and written."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from pydantic import ValidationError

from lake.copies.card import card
from lake.copies.manifest import CARD, MANIFEST, PLAN, PLOTS, Manifest, Plan
from schemas.errors import CopyInTheWay, NotFound, StoreFault
from schemas.record import Record
from store.objects.folder import half_written
from store.objects.object_store import ObjectStore

R = TypeVar("R", bound=Record)


def read_manifest(copy: ObjectStore) -> Manifest | None:
    """What a finished copy says of itself; None where there is none. Raises `CopyInTheWay` for what is none of ours."""
    return _read(copy, MANIFEST, Manifest)


def read_plan(copy: ObjectStore) -> Plan | None:
    """What an unfinished copy is to become; None where there is none. Raises `CopyInTheWay` as above."""
    return _read(copy, PLAN, Plan)


def is_copy(place: ObjectStore, pull_id: str | None = None) -> bool:
    """Whether a copy (of that pull) is there, finished or not, as far as one may look."""
    for look in (read_manifest, read_plan):
        with suppress(CopyInTheWay, StoreFault):
            if (found := look(place)) is not None and pull_id in (None, found.pull_id):
                return True
    return False


def _read(copy: ObjectStore, name: str, kind: type[R]) -> R | None:
    try:
        return kind.model_validate_json(copy.read(name))
    except NotFound:
        return None
    except ValidationError:
        raise CopyInTheWay(
            f"There is a {name} that no pull wrote, or that was changed since. Choose an empty place. If a copy was "
            "there, delete all of it and note that with `bgbatch lake pulls --gone`."
        ) from None


def sweep_half_written(copy: ObjectStore) -> None:
    """Delete what a killed writer left of a copy's own pages. None of them holds an image."""
    copy.delete(name for name in copy.files("") if half_written(name) in (PLAN, MANIFEST, CARD))
    copy.delete(f"{PLOTS}/{name}" for name in copy.files(PLOTS) if half_written(name) is not None)


def write_manifest(copy: ObjectStore, manifest: Manifest) -> None:
    """Write it, and the card that says the same to people."""
    copy.write(CARD, card(manifest).encode())
    copy.write(MANIFEST, manifest.model_dump_json(indent=1).encode())
