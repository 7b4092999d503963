"""A marketplace with real stores, a clock in the test's hand, and everything of a night but the pixels."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.nights import steps as night_steps
from flows.nights.report import REPORTS
from flows.nights.worker import Worker
from flows.parts import Parts, open_parts
from portal.schedules import Wanted, add
from schemas.batch import Counts
from schemas.errors import (
    DamagedImage,
)
from schemas.ids import AccountId, BatchId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.objects.object_store import ObjectStore, open_store
from store.outside import allowed
from store.outside.listing import list_place
from store.records.nights import Night
from store.records.people import create_account
from store.records.schedules import Schedule
from tests.batches import run_batch
from tests.promise.world import StandInCutter
from tests.records import at_home
from workers.order import Order
from workers.shard import process_shard

EVENING = datetime(2026, 11, 25, 18, tzinfo=UTC)
FIRST = datetime(2026, 11, 26, 1, tzinfo=UTC)  # two o'clock in Berlin
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process dies: nothing below catches it."""


class Cutter(StandInCutter):
    """Finds what starts with `broken` broken."""

    def open(self, order: Order) -> Order:
        if order.source.startswith(b"broken"):
            raise DamagedImage("The image ends too early. Send it again.")
        return super().open(order)


@dataclass
class Market:
    """A marketplace, its bucket, and a clock in the test's hand. `cut` lists what was cut, by path."""

    parts: Parts
    account_id: AccountId
    source: ObjectStore
    target: ObjectStore
    source_url: str
    target_url: str
    clock: list[datetime]
    cut: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    die_after: int | None = None
    minutes_per_photo: float = 0

    def schedule(self, **wanted: object) -> Schedule:
        with self.parts.records.transaction() as connection:
            chosen: dict[str, object] = {
                "cron": "0 2 * * *",
                "timezone": "Europe/Berlin",
                "source": self.source_url,
                "deliver": self.target_url,
                "industry": Industry.MARKETPLACE,
                "options": CutoutOptions(),
            }
            want = Wanted(**(chosen | wanted))  # type: ignore[arg-type]
            return add(connection, self.account_id, want, self.parts.settings, self.parts.clock, os.urandom)

    def run_due(self, at: datetime, cuts: bool = True) -> list[Night]:
        self.clock[0] = at
        process = self._process if cuts else None
        worker = Worker(os.urandom(4).hex(), os.urandom, process, lambda key, page: self.pages.append(page))
        return night_steps.run_due(self.parts, worker)

    @property
    def target_folder(self) -> Path:
        return Path(self.target_url.removeprefix("file://"))

    def delivered(self) -> list[str]:
        found = (each.path for each in list_place(self.target_url, self.parts.settings))
        return sorted(path for path in found if not path.startswith(REPORTS))

    def details(self, at: datetime) -> dict[str, object]:
        """The one report of that night with names."""
        (found,) = [each for each in self.target.files(REPORTS) if each.startswith(f"{at:%Y-%m-%dT%H-%M-%S}")]
        return json.loads(self.target.read(f"{REPORTS}/{found}"))

    def _process(self, parts: Parts, batch_id: BatchId) -> Counts:
        def run_shards(batch_id, shards, clock, keep, stop):  # type: ignore[no-untyped-def]
            manifest = parts.transient.manifest(batch_id)
            for shard in shards:
                if stop():
                    return
                if self.die_after is not None and len(self.cut) >= self.die_after:
                    raise Killed
                self.cut += [manifest.items[number - 1].path for number in shard]
                self.clock[0] += len(shard) * timedelta(minutes=self.minutes_per_photo)
                yield process_shard(parts.transient, Cutter(), manifest, shard, clock)  # type: ignore[arg-type]

        return run_batch(parts, batch_id, run_shards)


def open_market(tmp_path: Path, root: str, **settings: object) -> Market:
    clock = [EVENING]
    here = at_home(tmp_path / "home", shard_items=5, **settings)
    parts = open_parts(here, lambda: clock[0])
    source, target = f"{root}/catalog", f"{root}/cutouts"
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", clock[0], os.urandom)
        for place in (source, target, f"{target}-of-bikes"):
            allowed.allow(connection, account_id, place, clock[0])
    return Market(parts, account_id, open_store(source, here), open_store(target, here), source, target, clock)


def fill(market: Market, count: int) -> None:
    for number in range(count):
        market.source.write(f"listing-{number:03d}/front.jpg", b"photo %d" % number)


def everything_kept(market: Market) -> bytes:
    """The whole of the records, where no name may be."""
    files = sorted(market.parts.settings.home.glob("records.db*"))
    return b"".join(path.read_bytes() for path in files)
