"""A lake to work with: a folder, records, a clock that the test moves, and grants as the ledger would name them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from lake.admission import admit
from lake.erase import Reconciled, reconcile
from lake.pull import Order, Pulled, pull
from lake.query import Query
from lake.reading import Lake
from lake.write import CandidateFacts, LakeFile, write_candidates
from schemas.batch import Stamp
from schemas.consent import Grant
from schemas.ids import AccountId, BatchId, GrantId, new_batch_id, new_grant_id
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Scores
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore, open_store
from store.records.database import Records, open_records
from store.transient.transient_store import TransientStore, mask_key, source_key
from tests.records import at_home

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
AUTO = Industry.AUTOMOTIVE
ALL = Query(AUTO)


@dataclass
class World:
    """`grants` stands for the ledger."""

    lake: ObjectStore
    transient: TransientStore
    records: Records
    now: datetime = NOON
    grants: dict[GrantId, Grant] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(7))

    def clock(self) -> datetime:
        return self.now

    def grant(self, industry: Industry = AUTO) -> Grant:
        grant = Grant(
            grant_id=new_grant_id(self.random.randbytes),
            account_id=AccountId("a" + "0" * 32),
            industry=industry,
            granted_at=self.now,
            withdrawn_at=None,
            notice_version="1",
        )
        self.grants[grant.grant_id] = grant
        return grant

    def withdraw(self, grant: Grant) -> Grant:
        ended = grant.model_copy(update={"withdrawn_at": self.now})
        self.grants[grant.grant_id] = ended
        return ended

    def live(self) -> list[GrantId]:
        return [each.grant_id for each in self.grants.values() if each.withdrawn_at is None]

    def ended(self) -> list[Grant]:
        return [each for each in self.grants.values() if each.withdrawn_at is not None]

    def batch(self, grant: Grant, images: list[bytes]) -> list[CandidateFacts]:
        """Put a batch's sources and masks into the transient store, as workers would."""
        batch_id = new_batch_id(self.now, self.random.randbytes)
        stamp = stamp_of(batch_id, self.now, grant)
        for number, image in enumerate(images, start=1):
            self.transient.write(stamp, source_key(batch_id, number), image)
            self.transient.write(stamp, mask_key(batch_id, number), a_mask(image))
        return [
            CandidateFacts(
                batch_id=batch_id,
                item=number,
                received_at=self.now,
                industry=grant.industry,
                grant_id=grant.grant_id,
                network="u2netp",
                weights_sha256="ab" * 32,
                device="cpu",
                scores=some_scores(number),
            )
            for number in range(1, len(images) + 1)
        ]

    def write(self, facts: list[CandidateFacts]) -> LakeFile:
        return write_candidates(self.lake, self.transient, facts, self.now)

    def admit(self, file: LakeFile) -> None:
        with self.records.transaction() as connection:
            admit(connection, file, self.now, self.lake)

    def give(self, grant: Grant, count: int = 2) -> LakeFile:
        """A batch of `count` images, all the way into the lake."""
        file = self.write(self.batch(grant, [a_photo(self.random.randrange(10**6)) for _ in range(count)]))
        self.admit(file)
        return file

    def sweep(self) -> Reconciled:
        return reconcile(self.lake, self.records, self.live(), self.ended(), self.clock)

    def reader(self) -> Lake:
        return Lake(self.lake, self.records, self.live)

    def pull(
        self,
        to: Path | ObjectStore,
        query: Query = ALL,
        order: Order | None = None,
        on_part: Callable[[int, int], None] = lambda done, of: None,
    ) -> Pulled:
        copy = ObjectStore(Folder(str(to))) if isinstance(to, Path) else to
        return pull(self.reader(), query, copy, self.clock, on_part, order or Order())

    def pass_time(self, **span: float) -> None:
        self.now += timedelta(**span)

    def keys(self) -> list[str]:
        return sorted(each.key for each in self.lake.walk(""))


def stamp_of(batch_id: BatchId, at: datetime, grant: Grant) -> Stamp:
    return Stamp(
        batch_id=batch_id,
        received_at=at,
        purge_at=at + timedelta(hours=23),
        industry=grant.industry,
        grant_id=grant.grant_id,
        options=CutoutOptions(),
    )


def some_scores(number: int) -> Scores:
    """Different ones for each item; fields that came later get a value, too."""
    known = {"coverage": 0.5, "edge_uncertainty": (number % 10) / 10}
    return Scores.model_validate({name: known.get(name, 0) for name in Scores.model_fields})


def a_photo(seed: int, size: tuple[int, int] = (48, 32), kind: str = "JPEG", **options: object) -> bytes:
    """A small photo-like image: the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def a_mask(image: bytes) -> bytes:
    with Image.open(io.BytesIO(image)) as opened:
        size = opened.size
    sink = io.BytesIO()
    Image.new("L", size, 255).save(sink, "PNG")
    return sink.getvalue()


def build_world(home: Path, lake_url: str = "", **settings: object) -> World:
    """Empty stores under `home`. `lake_url`: elsewhere."""
    here = at_home(home, lake_url=lake_url, **settings)
    world = World.__new__(World)
    transient = TransientStore(open_store(str(home / "transient"), here), lambda: world.now)
    world.__init__(open_store(here.lake_root, here), transient, open_records(here))  # type: ignore[misc]
    return world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = build_world(tmp_path)
    yield world
    world.records.engine.dispose()
