"""A small world that drives the real code in one process: two accounts, three machines, a bucket, a lake, a database.

It knows the truth (true time, what was received when, who had allowed what) and holds the code to the promise:

1. No byte of a customer is older than 24 hours, counted from receipt, unless it is in the lake under a live grant.
2. Nothing is in the lake, or handed out of it, without a grant that was live at receipt and is still live.

And a cleanup takes nothing that is not due: that would keep the promise, too.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from unittest.mock import patch

import pyarrow.parquet as pq
from PIL import Image
from sqlalchemy.exc import OperationalError

from consent import ledger
from consent.button import Press, press
from consent.ledger import Refusal, newest_event
from consent.notice import CURRENT
from flows import reconciling, steps
from flows.admission import Portion
from flows.cleaning import cleaning
from flows.parts import Parts
from flows.receive import seal, stamp_batch
from lake.pull import pull
from lake.query import Query
from lake.reading import Lake
from lake.write import LakeFile, write_candidates
from schemas.batch import Item, Stamp
from schemas.clock import Clock
from schemas.consent import Method
from schemas.errors import BgbatchError
from schemas.ids import AccountId, BatchId, GrantId
from schemas.industries import Industry
from schemas.options import CutoutOptions, Format
from schemas.receipt import Erased, Receipt
from schemas.results import Scores, ShardReport
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.purging import receipts
from store.purging.cleanup import clean_up
from store.purging.purge import PurgeReport
from store.records import people, sessions
from store.records.batches import hasten, list_batches
from store.settings import Settings
from store.transient.transient_store import TransientStore, batch_prefix, cutout_key, source_key
from tests.batches import run_batch
from tests.promise.bucket import Bucket, Thing
from tests.promise.database import Database
from tests.promise.trouble import Crash, Kind, Trouble
from workers.decode import Limits
from workers.lanes import ONE_BY_ONE
from workers.order import Cut, Order, Pixels
from workers.shard import process_shard

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
TICK = timedelta(minutes=10)
BAD_TICKS = 2
"""So many cleanups in a row may go wrong here. It survives an hour of that; but here clocks are wrong as well."""
WITHDRAWAL = timedelta(minutes=60)
"""How long after a withdrawal a candidate may still lie in the lake, unreadable."""
LIVES = timedelta(hours=22)
ABOUT_TO_GO = timedelta(hours=22, minutes=45)
INDUSTRIES = (Industry.AUTOMOTIVE, Industry.ECOMMERCE)


class Broken(AssertionError):
    """The promise was broken."""


@dataclass
class Owner:
    """An account, the person who owns it, and which grants are live."""

    name: str
    account_id: AccountId
    person_id: object
    live: dict[Industry, GrantId] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """A batch as it truly was: when its first byte could come, which grant was live then, and where it lies."""

    stamp: Stamp
    at: datetime
    grant_id: GrantId | None
    database: int
    prefix: str


class World:
    """`now` is true time. Every machine's clock may be wrong by up to ten minutes."""

    def __init__(self, seed: int, home: Path, note: Callable[[str], None] = lambda line: None) -> None:
        self.random = Random(seed)
        self.now = START + timedelta(minutes=self.random.randrange(60))
        self.trouble = Trouble()
        self.bucket = Bucket(self.random.random() < 0.5, lambda: self.now, self.trouble)
        self.lake = Bucket(self.random.random() < 0.5, lambda: self.now, self.trouble)
        self.database = Database(self.trouble)
        self.skew = dict.fromkeys(("portal", "worker", "cleaner"), timedelta())
        self.batches: list[Received] = []
        self.ended: dict[GrantId, datetime] = {}
        self.hastened: set[BatchId] = set()
        self.generation = 0
        self.bad_ticks = 0
        self.late_writes = 0
        self._since_tick = timedelta()
        self._reconciled: tuple[datetime, tuple[object, ...]] = (self.now, ())
        self._home = home
        self._settings = Settings(home=home, shard_items=2)  # reading them anew took half of a walk
        self._note = note
        self.owners = [self._new_owner(name) for name in ("Acme", "Bazaar")]

    # What people and machines do. None of these may break the promise, whatever goes wrong meanwhile.

    def submit(self, owner: int, industry: Industry | None, photos: int) -> None:
        """A batch is opened, uploaded and sealed; it may stop anywhere."""
        self._pass(timedelta(minutes=self.random.randrange(10)))
        parts, account = self.parts("portal"), self.owners[owner]
        with self.mishaps():
            at, live = self.now, account.live.get(industry) if industry else None
            options = CutoutOptions(format=Format.JPG)
            stamp = stamp_batch(parts, account.account_id, industry, options, self.random.randbytes)
            self.batches.append(Received(stamp, at, live, self.generation, f"{batch_prefix(stamp.batch_id)}/"))
            items = []
            for number in range(1, photos + 1):
                photo = _jpeg(self.random.randrange(8))
                parts.transient.write(stamp, source_key(stamp.batch_id, number), photo)
                items.append(Item(number=number, path=f"VIN{number}/front.jpg", size=len(photo)))
            seal(parts, stamp, items)

    def process(self, batch: int) -> None:
        """The flow of one batch, with a stand-in for the network."""
        received = self._batch(batch)
        if received is not None:
            parts = self.parts("worker")
            with self.mishaps():
                run_batch(parts, received.stamp.batch_id, self._run_shards(parts), self._write(parts))

    def press_button(self, owner: int, industry: Industry) -> None:
        """A signed-in owner turns AI Training Data on."""
        account = self.owners[owner]
        clock = self.clock("portal")
        with self.mishaps(), self.database.records.transaction() as connection:
            token = sessions.open_session(connection, account.person_id, clock(), self.random.randbytes)
            session = sessions.find_session(connection, token, clock())
            assert session is not None
            shown = (CURRENT.version, CURRENT.sha256, "/account", clock(), newest_event(connection, account.account_id))
            act = Press(token, session.form_token, (industry,), *shown)
            press(connection, act, clock(), self.random.randbytes)
        self._look_up_grants()

    def withdraw(self, owner: int, industry: Industry) -> None:
        """Somebody turns it off."""
        account = self.owners[owner]
        by = Refusal(account.account_id, Method.API, self.clock("portal")(), reason="asked to")
        with self.mishaps(), self.database.records.transaction() as connection:
            ledger.withdraw(connection, by, industry, self.clock("portal")())
        self._look_up_grants()
        if self.lake.things and not self.trouble.is_armed:
            self.check_readers()

    def change_mind_twice(self, owner: int, industry: Industry) -> None:
        """Off and on again between a batch's receipt and its end: the new grant is no grant for that batch."""
        self.submit(owner, industry, 1)
        self.withdraw(owner, industry)
        self.press_button(owner, industry)
        self.process(0)

    def write_late(self, batch: int) -> None:
        """A worker that hung writes on, hours later, maybe after the purge."""
        received = self._batch(batch)
        if received is not None:
            store = self.parts("worker").transient
            with self.mishaps():
                self.late_writes += 1
                key = cutout_key(received.stamp.batch_id, self.random.randrange(1, 4), ".jpg")
                store.write(received.stamp, key, b"late cutout")

    def stray(self) -> None:
        """Something lands outside the layout."""
        hour = f"{self.now:%Y-%m-%dT%H}"
        key = self.random.choice(["tmp/file", "file", f"{hour}/file", f"{hour}/not-a-batch/1", "2099-01-01T00/x/y"])
        with self.mishaps(), suppress(OSError):
            self.bucket.put(key, b"stray")

    def download(self, batch: int) -> None:
        """The customer has the cutouts and wants the batch gone."""
        received = self._batch(batch)
        if received is not None:
            with self.mishaps(), self.database.records.transaction() as connection:
                self.hastened.add(received.stamp.batch_id)
                hasten(connection, received.stamp.batch_id, self.clock("portal")())

    def set_clock(self, machine: str, minutes: int) -> None:
        """A machine's clock turns out to be wrong."""
        self.skew[machine] = timedelta(minutes=minutes)

    def lose_database(self) -> None:
        """Everything that the records knew is gone: the promise must not need it."""
        self.database.lose()
        self.generation += 1
        for owner in self.owners:
            self.ended.update(dict.fromkeys(owner.live.values(), self.now))
        self.owners = [self._new_owner(owner.name) for owner in self.owners]

    def plan_trouble(self, kind: Kind, after: int) -> None:
        """Something will go wrong at a later step."""
        self.bucket.settle()
        self.lake.settle()
        action: Callable[[], None] = lambda: None  # noqa: E731
        if kind is Kind.SLOW:
            action = self._let_time_pass
        elif kind is Kind.MEANWHILE:
            action = self.random.choice([self.clean_up, self.reconcile, self._somebody_withdraws, self._late_writer])
        self.trouble.arm(kind, after, action)

    def clean_up(self) -> None:
        """One cleanup on the cleaning machine. What it says is gone must be gone."""
        parts = self.parts("cleaner")
        late, known = self.late_writes, {each.hash for each in self._receipts()}
        living = self._living_keys()
        with self.mishaps():
            self._clean(parts)
        if lost := living - {each.found.key for each in self.bucket.things} - self._of_hastened(living):
            raise Broken(f"a cleanup took {sorted(lost)[0]}, whose time had not come")
        if self.late_writes == late:
            for receipt in self._receipts():
                left = [each for each in self.bucket.things if f"/{receipt.subject}/" in each.found.key]
                if receipt.hash not in known and left:
                    raise Broken(
                        f"a receipt says that {receipt.subject} is gone, and {len(left)} things of it are there"
                    )

    def submit_and_process(self, owner: int, industry: Industry | None, photos: int) -> None:
        """A batch that goes through without waiting."""
        self.submit(owner, industry, photos)
        self.process(0)

    def spoil_purge(self, kind: Kind, after: int) -> None:
        """Time passes until something is about to be purged; then something will go wrong."""
        for _ in range(140):
            if not self.bucket.things or self.now - min(map(self._received, self.bucket.things)) > ABOUT_TO_GO:
                break
            self.advance(1)
        self.plan_trouble(kind, after)
        self.advance(3)

    def reconcile(self) -> None:
        """One reconcile on the cleaning machine."""
        with self.mishaps():
            reconciling.reconcile(self.parts("cleaner"))

    def advance(self, ticks: int) -> None:
        """Time passes, with a cleanup and a reconcile every ten minutes."""
        for _ in range(ticks):
            self._pass(TICK)

    def _pass(self, time: timedelta) -> None:
        """So much time passes; at the tick in it, if there is one, cleaner and reconcile have their turn."""
        self._since_tick += time
        self.now += time
        if self._since_tick < TICK:
            return
        self._since_tick -= TICK
        self._tick()

    def _tick(self) -> None:
        self.check()
        is_quiet = self._is_quiet()
        if is_quiet and self._is_lake_quiet():
            return
        self.bad_ticks = self.bad_ticks + 1 if self.trouble.is_armed else 0
        if self.bad_ticks > BAD_TICKS:
            self.trouble.clear()
        if not is_quiet or self.trouble.is_armed:
            self.clean_up()
        self.reconcile()
        self._reconciled = (self.now, self._lake_state())

    # What must hold.

    def check(self) -> None:
        """Both sentences of the promise, now."""
        self.check_age()
        self.check_lake()

    def check_age(self) -> None:
        """Sentence one, over every version, marker and unfinished upload."""
        for thing in self.bucket.things:
            age = self.now - self._received(thing)
            if age > DAY:
                raise Broken(f"{thing.found.kind.value} {thing.found.key} is {age} old")

    def check_lake(self) -> None:
        """Sentence two, over every object of the lake."""
        by_id = {each.stamp.batch_id: each for each in self.batches}
        live = {grant_id for owner in self.owners for grant_id in owner.live.values()}
        for thing in self.lake.things:
            grant_id = GrantId(thing.found.key.split("/")[1].removeprefix("grant="))
            batch = by_id.get(BatchId(thing.found.key.rpartition("/")[2][:36]))
            if batch is None or batch.grant_id != grant_id:
                raise Broken(f"{thing.found.key} is in the lake and its grant was not live at receipt")
            since = max(self.ended.get(grant_id, START), thing.born)
            if grant_id not in live and self.now - since > WITHDRAWAL:
                raise Broken(f"{thing.found.key} is in the lake {self.now - since} after its grant ended")

    def check_readers(self) -> None:
        """Sentence two, for whoever reads: every row that a pull hands out, now."""
        self.trouble.clear()
        parts = self.parts("portal")
        grants = {each.stamp.batch_id: each.grant_id for each in self.batches}
        live = {grant_id for owner in self.owners for grant_id in owner.live.values()}
        for industry in INDUSTRIES:
            with tempfile.TemporaryDirectory(dir=self._home) as folder:
                reader, copy = Lake(parts.lake, parts.records, self._live_grants), ObjectStore(Folder(folder))
                pulled = pull(reader, Query(industry), copy, parts.clock)
                for name in pulled.files:
                    for batch_id in pq.read_table(Path(folder, name), columns=["batch_id"])["batch_id"].to_pylist():
                        if grants[batch_id] not in live:
                            raise Broken(f"a row of {batch_id} was handed out without a live grant")

    def check_end(self) -> None:
        """After two calm days: nothing is left, each batch has its receipt, and both chains verify."""
        self.trouble.clear()
        self.bucket.denied.clear()
        self.check_readers()
        self.advance(6 * 26)
        self.check_readers()
        if self.bucket.things:
            raise Broken(f"{self.bucket.things[0].found.key} is left in the transient store")
        with self.database.records.transaction() as connection:
            known = receipts.list_receipts(connection)
            receipts.verify_receipts(known)
            ledger.verify(connection)
            unpurged = [each for each in list_batches(connection, limit=1000) if each.purged_at is None]
        if unpurged:
            raise Broken(f"{unpurged[0].stamp.batch_id} has no receipt after two days")

    # The machines.

    def clock(self, machine: str) -> Clock:
        return lambda: self.now + self.skew[machine]

    def parts(self, machine: str) -> Parts:
        clock = self.clock(machine)
        return Parts(
            settings=self._settings,
            clock=clock,
            records=self.database.records,
            transient=TransientStore(ObjectStore(self.bucket, pause=lambda seconds: None), clock),
            lake=ObjectStore(self.lake, pause=lambda seconds: None),
        )

    @contextmanager
    def its_clock(self) -> Iterator[None]:
        """This machine's real clock is the portal's: intake measures the store's clock against it."""
        with patch("flows.cleaning.system_clock", self.clock("portal")):
            yield

    @contextmanager
    def mishaps(self) -> Iterator[None]:
        """What may go wrong. Anything else is a defect of the code and ends the test."""
        with suppress(BgbatchError, OperationalError, Crash):
            yield

    def _clean(self, parts: Parts) -> PurgeReport:
        machine = cleaning(parts, self.random.randbytes)
        return clean_up(replace(machine, real=parts.clock))

    def _run_shards(self, parts: Parts) -> steps.RunShards:
        def run(
            batch_id: BatchId,
            shards: Sequence[tuple[int, ...]],
            clock: Clock,
            keep: Callable[[ShardReport], None],
            stop: Callable[[], bool],
        ) -> Iterator[ShardReport]:
            manifest = parts.transient.manifest(batch_id)
            for shard in shards:
                yield process_shard(parts.transient, StandInCutter(), manifest, shard, clock)  # type: ignore[arg-type]

        return run

    def _write(self, parts: Parts) -> Callable[[Sequence[Portion], datetime], Iterator[LakeFile]]:
        def write(portions: Sequence[Portion], admitted_at: datetime) -> Iterator[LakeFile]:
            for portion in portions:
                yield write_candidates(parts.lake, parts.transient, portion, admitted_at)

        return write

    def _new_owner(self, name: str) -> Owner:
        with self.database.calm() as connection:
            made = people.create_account(connection, name, f"{name}@example.com", self.now, self.random.randbytes)
        return Owner(name, *made)

    def _receipts(self) -> list[Receipt]:
        with self.database.calm() as connection:
            return [each for each in receipts.list_receipts(connection) if each.kind is Erased.BATCH]

    def _look_up_grants(self) -> None:
        """The ledger is the truth about who allowed what; a crash decides by itself whether an act came through."""
        with self.database.calm() as connection:
            grants = ledger.live_grants(connection)
        for owner in self.owners:
            now_live = {each.industry: each.grant_id for each in grants if each.account_id == owner.account_id}
            for grant_id in owner.live.values():
                if grant_id not in now_live.values():
                    self.ended[grant_id] = self.now
            owner.live = now_live

    def _living_keys(self) -> set[str]:
        """What no clock that may be wrong here, and no slow call, makes due in this cleanup."""
        young = [each.prefix for each in self.batches if self.now - each.at < LIVES]
        keys = {each.found.key for each in self.bucket.things}
        return {key for key in keys if any(key.startswith(prefix) for prefix in young)}

    def _of_hastened(self, keys: set[str]) -> set[str]:
        """Those that somebody wanted gone earlier, be it while the cleanup ran."""
        return {key for key in keys if any(f"/{batch_id}/" in key for batch_id in self.hastened)}

    def _live_grants(self) -> list[GrantId]:
        with self.database.calm() as connection:
            return [each.grant_id for each in ledger.live_grants(connection)]

    def _received(self, thing: Thing) -> datetime:
        """When the customer's bytes came in; for a stray, when it was born."""
        key = thing.found.key
        return next((each.at for each in self.batches if key.startswith(each.prefix)), thing.born)

    def _batch(self, number: int) -> Received | None:
        return self.batches[-1 - number % len(self.batches)] if self.batches else None

    def _is_quiet(self) -> bool:
        """Whether a cleanup would find nothing at all to do (most hours of most days)."""
        soon = self.now - timedelta(hours=22)
        return all(self._received(each) > soon and each.born is not None for each in self.bucket.things) and not (
            self.database.has_overdue(self.now)
        )

    def _is_lake_quiet(self) -> bool:
        """Whether a reconcile would find nothing to do but what time alone brings: that is looked for each hour."""
        if not self.lake.things:
            return True
        at, state = self._reconciled
        live = {grant_id for owner in self.owners for grant_id in owner.live.values()}
        is_allowed = all(each.found.key.split("/")[1].removeprefix("grant=") in live for each in self.lake.things)
        is_recent = self.now - at < timedelta(hours=1) and state == self._lake_state()
        return is_allowed and is_recent and not self.trouble.is_armed

    def _lake_state(self) -> tuple[object, ...]:
        return self.generation, *(each.found.key for each in self.lake.things)

    def _let_time_pass(self) -> None:
        self.now += TICK * self.random.random()

    def _somebody_withdraws(self) -> None:
        self.withdraw(self.random.randrange(2), self.random.choice(INDUSTRIES))

    def _late_writer(self) -> None:
        self.write_late(self.random.randrange(3))


@dataclass(frozen=True)
class StandInPhoto:
    """One of which nothing is known but what was ordered."""

    order: Order


class StandInCutter:
    """Cuts nothing: the promise is not about pixels."""

    network = "stand-in"
    weights_sha256 = "0" * 64
    device = "none"
    limits = Limits(pixels=1_000_000, bytes=1_000_000)

    pace = ONE_BY_ONE

    def open(self, order: Order) -> StandInPhoto:
        return StandInPhoto(order)

    def segment(self, photos: list[StandInPhoto]) -> list[StandInPhoto]:
        return photos

    def finish(self, photo: StandInPhoto, behind: Pixels | None = None) -> Cut:
        order = photo.order
        return Cut(
            file=b"cutout of " + order.source[:8],
            width=16,
            height=16,
            source_width=16,
            source_height=16,
            scores=Scores(**dict.fromkeys(Scores.model_fields, 1)),
            flags=(),
            mask_png=_mask() if order.want_mask else None,
        )


@cache
def _mask() -> bytes:
    file = io.BytesIO()
    Image.new("L", (16, 16), 255).save(file, "PNG")
    return file.getvalue()


@cache
def _jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (number * 30, 80, 120)).save(file, "JPEG")
    return file.getvalue()
